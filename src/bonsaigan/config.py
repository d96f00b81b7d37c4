"""Every setting of a run: frozen, validated on construction, and the same after a round trip through JSON.

`TrainConfig` is what `config.json` in a run folder holds. It is fully resolved: nothing in it depends on
the machine or on a default that may change, so that rebuilding from it gives the same networks.
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from bonsaigan.errors import ConfigError

SIDE_MIN_PX, SIDE_MAX_PX, SIDE_STEP_PX = 32, 256, 16
PICTURES_MIN = 8
WHOLE_MAX = 2**64
"""Larger whole numbers than this stand in no file of ours; some do not even fit into a float."""
NONBLOCK = getattr(os, "O_NONBLOCK", 0)
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Channels of a picture → Pillow's name of the mode."""

AUGMENTATION_NAMES = ("flip", "colour", "translation")
"""What `training.augment` knows."""

Fit = Literal["crop", "pad", "squash"]
Mode = Literal["auto", "L", "RGB", "RGBA"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Half = Literal["bf16", "fp16"]
Arithmetic = Literal["fp32", "bf16", "fp16"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class Size:
    """Width and height of a picture in pixels."""

    width_px: int
    """32 to 256, a multiple of 16."""
    height_px: int
    """32 to 256, a multiple of 16."""

    def __post_init__(self) -> None:
        for side in (self.width_px, self.height_px):
            if not SIDE_MIN_PX <= side <= SIDE_MAX_PX or side % SIDE_STEP_PX:
                raise ConfigError(
                    f"--size {self}: each side must be a multiple of {SIDE_STEP_PX} "
                    f"from {SIDE_MIN_PX} to {SIDE_MAX_PX} pixels"
                )

    def __str__(self) -> str:
        if self.width_px == self.height_px:
            return str(self.width_px)
        return f"{self.width_px}x{self.height_px}"

    @classmethod
    def parse(cls, text: str) -> Size:
        """Read `64` (square) or `96x64` (width x height).

        Raises:
            ConfigError: the text has another form, or a side is out of its limits.
        """
        match = re.fullmatch(r"\s*(\d{1,6})(?:\s*[x×X]\s*(\d{1,6}))?\s*", text)
        if match is None:
            raise ConfigError(f"--size {text!r}: expected one number like 64, or WIDTHxHEIGHT like 96x64")
        width = int(match[1])
        return cls(width_px=width, height_px=int(match[2] or width))


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where pictures come from and how each becomes an array."""

    source: str
    """DATA as the user gave it: a folder, an archive, `caltech101:...`, `hf:...` or `demo:bonsai`."""
    archive: str | None = None
    """A local copy of the Caltech-101 archive, instead of a download."""
    size: Size = field(default_factory=lambda: Size(width_px=64, height_px=64))
    """Size of the prepared pictures."""
    fit: Fit = "crop"
    """`crop` cuts the longer side about the centre, `pad` adds borders, `squash` ignores the aspect ratio."""
    mode: Mode = "auto"
    """Colour mode of the set; `auto` keeps greyscale and transparent sets as such."""
    holdout: float = 0.0
    """Share of the pictures kept out of training for an honest score, 0 to 0.5."""

    def __post_init__(self) -> None:
        _check_choice("--fit", self.fit, get_args(Fit))
        _check_choice("--mode", self.mode, get_args(Mode))
        _check_range("--holdout", self.holdout, 0.0, 0.5)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long to train: exactly one of three measures."""

    minutes: float | None = None
    """Minutes of training; time spent on evaluation and saving is not counted."""
    kimg: float | None = None
    """Thousands of real pictures shown to the discriminator."""
    steps: int | None = None
    """Training steps."""

    def __post_init__(self) -> None:
        given = {f"--{k}": v for k, v in dataclasses.asdict(self).items() if v is not None}
        if len(given) != 1:
            raise ConfigError(f"give exactly one of --minutes, --kimg and --steps, not {len(given)}")
        for flag, value in given.items():
            _check_range(flag, value, 0.0, 1e9, above=True)

    @classmethod
    def asked(cls, *, minutes: float | None, kimg: float | None, steps: int | None) -> Budget | None:
        """What a user asked for; None if nothing."""
        nothing = minutes is None and kimg is None and steps is None
        return None if nothing else cls(minutes=minutes, kimg=kimg, steps=steps)

    def __str__(self) -> str:
        if self.minutes is not None:
            return f"{self.minutes:g} minutes"
        return f"{self.kimg:g} kimg" if self.kimg is not None else f"{self.steps} steps"


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Adam (Kingma & Ba 2015) for both players, with optional linear decays."""

    generator_lr: float
    """Learning rate of the generator at the start."""
    discriminator_lr: float
    """Learning rate of the discriminator at the start."""
    beta1: float = 0.0
    """Decay of the first moment, 0 to 1."""
    beta2: float = 0.99
    """Decay of the second moment, 0 to 1."""
    first_beta2: float | None = None
    """Its value at the start, if it moves: with the learning rate, to `beta2` at the end of the budget."""
    epsilon: float = 1e-8
    """Added to the root of the second moment."""
    final_lr_share: float = 1.0
    """Share of both learning rates left at the end of the budget; 1 keeps them constant."""
    generator_decay_share: float = 1.0
    """Share of the generator's learning rate left after `generator_decay_kimg`, whatever the budget."""
    generator_decay_kimg: float = 0.0
    """Thousands of pictures over which it falls, linearly; 0 keeps it constant."""

    def __post_init__(self) -> None:
        _check_range("--lr", self.generator_lr, 0.0, 1.0, above=True)
        _check_range("--lr", self.discriminator_lr, 0.0, 1.0, above=True)
        for name in ("beta1", "beta2", "first_beta2"):
            if getattr(self, name) is not None:
                _check_range(name, getattr(self, name), 0.0, 1.0)
        for name in ("final_lr_share", "generator_decay_share"):
            _check_range(name, getattr(self, name), 0.0, 1.0)
        _check_range("generator_decay_kimg", self.generator_decay_kimg, 0.0, 1e6)


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Shape of the two networks; what a width means is the recipe's own business."""

    latent: int
    """Length of the latent vector."""
    width: int
    """Base width of the generator in channels."""
    discriminator_width: int
    """Base width of the discriminator in channels."""
    subpixel: bool = False
    """Whether the generator's last doubling is a sub-pixel convolution (fastgan alone)."""
    soft_colour: bool = False
    """Whether colours are drawn a little softer than lightness, once trained (fastgan alone)."""
    told: int = 0
    """Numbers of a latent vector, the first ones, that the discriminator is told (projected alone): in
    photographs the places along as many principal components. 0 is without."""

    def __post_init__(self) -> None:
        _check_range("network.latent", self.latent, 1, 4096)
        _check_range("--width", self.width, 1, 4096)
        _check_range("network.discriminator_width", self.discriminator_width, 1, 4096)
        _check_range("network.told", self.told, 0, self.latent)


@dataclass(frozen=True, kw_only=True)
class PenaltyConfig:
    """Zero-centred gradient penalties on real and on generated pictures, on every step."""

    gamma: float = 0.0
    """Weight at the start of the budget; 0 is without."""
    final_share: float = 1.0
    """Share of the weight left at the end of the budget."""

    def __post_init__(self) -> None:
        _check_range("penalty.gamma", self.gamma, 0.0, 1e6)
        _check_range("penalty.final_share", self.final_share, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class ComponentsConfig:
    """How the generator starts from the pictures' principal components: see `training/components.py`."""

    first_steps: int = 0
    """Steps, before all others, in which it learns to draw them; 0 is without."""
    weight: float = 0.0
    """Weight in its loss, at the first step against a discriminator, of the distance from them."""
    until_step: int = 0
    """Step by which that weight has fallen to 0, evenly."""

    def __post_init__(self) -> None:
        _check_range("components.first_steps", self.first_steps, 0, 10**6)
        _check_range("components.weight", self.weight, 0.0, 1e6)
        _check_range("components.until_step", self.until_step, 0, 10**9)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A run, fully resolved."""

    recipe: str
    """Name of the recipe, see `bonsaigan recipes`."""
    data: DataConfig
    """The pictures."""
    channels: int
    """1 greyscale, 3 RGB, 4 RGBA: found when the pictures were prepared."""
    budget: Budget
    """How long to train."""
    batch: int
    """Pictures a step, over all processes, 2 to 4096; the recipe says how many of them are real."""
    network: NetworkConfig
    """Shape of the networks."""
    optimizer: OptimizerConfig
    """Settings of Adam."""
    penalty: PenaltyConfig = field(default_factory=PenaltyConfig)
    """Gradient penalties."""
    components: ComponentsConfig = field(default_factory=ComponentsConfig)
    """The generator's start."""
    augment: tuple[str, ...] = ()
    """Differentiable augmentations, in order: see `training/augment.py`."""
    ema_kimg: float = 0.0
    """Half-life of the generator's moving average in thousands of pictures; 0 keeps no average."""
    generator_turns: int = 1
    """Turns that the generator takes in a step, after the one of the discriminator, 1 to 16."""
    accumulate: int = 1
    """Passes that each process takes its part of a batch in: less memory; without batch norm the same
    gradients."""
    precision: Arithmetic = "fp32"
    """Arithmetic of the convolutions; weights, statistics and optimiser are always float32."""
    init: str | None = None
    """Folder of the run whose networks this one starts from."""
    seed: int = 0
    """The source of all randomness."""
    evaluate: bool = True
    """Score the generator while training and keep the best moment."""
    patience: int = 0
    """Stop after this many evaluations without a better KID; 0 never does."""

    def __post_init__(self) -> None:
        _check_range("--batch", self.batch, 2, 4096)
        _check_range("generator_turns", self.generator_turns, 1, 16)
        _check_range("--accumulate", self.accumulate, 1, 4096)
        _check_range("--seed", self.seed, 0, 2**63 - 1)
        for name in self.augment:
            _check_choice("augment", name, AUGMENTATION_NAMES)
        _check_range("--patience", self.patience, 0, 10**6)
        if self.patience and not self.evaluate:
            raise ConfigError(f"--patience {self.patience}: counts scores, and --no-evaluate makes none")
        _check_range("ema_kimg", self.ema_kimg, 0.0, 1e6)
        if self.channels not in MODES:
            raise ConfigError(f"channels {self.channels}: expected one of {sorted(MODES)}")

    def to_json(self) -> str:
        """The settings as indented JSON; `from_json` reads it back equal, NumPy's numbers as Python's."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=_plain_number)

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Rebuild from `to_json`'s text, checking every name, type and range.

        Raises:
            ConfigError: the text is not JSON, or not a config of this version.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"config is not valid JSON: {error}") from None
        return from_dict(cls, raw)


T = TypeVar("T")


def from_dict(kind: type[T], raw: Any, *, where: str = "config") -> T:
    """Build the dataclass `kind` from plain JSON values, checking names and types all the way down.

    Args:
        kind: a dataclass of str, int, float, bool, None, tuples of them, `Literal`s and other dataclasses.
        raw: what `json.loads` gave.
        where: how to name the place in an error.

    Raises:
        ConfigError: a key is missing or unknown, or a value has the wrong type or range.
    """
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: expected an object, found {type(raw).__name__}")
    hints = get_type_hints(kind)
    unknown = sorted(set(raw) - set(hints))
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r:.60} (made by a newer version?)")
    values = {key: _from_json(hints[key], value, f"{where}.{key}") for key, value in raw.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from None


def read_json(path: Path, *, limit_bytes: int = 16 << 20) -> Any:
    """Read a JSON file that may come from a stranger.

    Raises:
        ConfigError: the file is missing, larger than `limit_bytes`, or not valid JSON.
    """
    try:
        return json.loads(read_bounded(path, limit_bytes=limit_bytes).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from None


def read_bounded(path: Path, *, limit_bytes: int) -> bytes:
    """Read a file that may come from a stranger: never a pipe or a device, never without end.

    Raises:
        ConfigError: the file is missing, no plain file, or larger than `limit_bytes`.
    """
    try:
        # A pipe would be waited for already when it is opened.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"{path}: not a plain file")
            # By the size that is there: for the limit, Python would ask for that much memory at once.
            data = file.read(status.st_size + 1) if status.st_size <= limit_bytes else None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ValueError as error:  # a name with a zero byte
        raise ConfigError(f"{path}: {error}") from None
    if data is None or len(data) > limit_bytes:
        raise ConfigError(f"{path}: larger than {limit_bytes >> 20} MiB, which no file of ours is")
    return data


def _from_json(hint: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if value is None and type(None) in args:
            return None
        return _from_json(next(a for a in args if a is not type(None)), value, where)
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{where}: {value!r:.40} is not one of {', '.join(map(str, args))}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: expected a list, found {type(value).__name__}")
        return tuple(_from_json(args[0], item, where) for item in value)
    if origin is dict:  # what a later version put there may be anything
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: expected an object, found {type(value).__name__}")
        return value
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where=where)  # pyright: ignore[reportArgumentType]
    if isinstance(value, int) and abs(value) > WHOLE_MAX:
        raise ConfigError(f"{where}: too large a number")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where}: expected {hint.__name__}, found {value!r:.40}")
    return value


def _plain_number(value: Any) -> float:
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _check_choice(flag: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{flag} {value!r:.40}: choose one of {', '.join(choices)}")


def _check_range(flag: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ConfigError(f"{flag} {value!r:.40}: must be a number")
    # First the limits: a whole number may be too large to be asked whether it is finite.
    if not low <= value <= high or (above and value == low) or not math.isfinite(value):
        raise ConfigError(f"{flag} {value}: must be {'above' if above else 'from'} {low:g} up to {high:g}")
