"""The object users hold: seeds → latents → pictures, and the ways between pictures.

A generator on disk is two files: `generator.safetensors` (weights) and `generator.json` (what rebuilds the
network). Both may come from a stranger: they are checked, bounded, and never executed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bonsaigan.config import MODES, Fit, NetworkConfig, Size, from_dict, read_bounded, read_json
from bonsaigan.data.prepare import to_uint8
from bonsaigan.device import choose_device
from bonsaigan.durable import write_atomically
from bonsaigan.errors import CheckpointError, ConfigError, RunError
from bonsaigan.explore.paths import Walk, slerp, walk
from bonsaigan.models import build_generator
from bonsaigan.models.folding import fold
from bonsaigan.runs import BEST_DIR, GENERATOR_FILE, WEIGHTS_FILE, find_run

if TYPE_CHECKING:
    from PIL import Image

    from bonsaigan.explore.directions import Directions
    from bonsaigan.explore.inversion import Inversion

BATCH = 16
"""Every picture is drawn in a batch of this size, so that it does not depend on how many are asked for."""
CHUNK = 256
"""Whoever draws many pictures holds so many of them at once."""
WEIGHTS_MAX_BYTES = 1 << 30
SEED_STREAM = 0x626F6E73
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class GeneratorSpec:
    """What `generator.json` holds."""

    family: str
    """Key of the network in `models`."""
    network: NetworkConfig
    """Its shape."""
    size: Size
    """Size of the pictures."""
    channels: int
    """1 grey, 3 RGB, 4 RGBA."""
    recipe: str
    """Recipe that trained it."""
    step: int
    """Training step of these weights."""
    source: str = ""
    """What it was trained on, for people."""
    licence: str | None = None
    """Terms of the pictures it was trained on."""
    citation: str | None = None
    """What whoever made them wants to be cited."""
    folded: bool = False
    """Whether batch norms are folded into the weights, as in exports."""
    format: int = FORMAT
    """Version of this file's form."""
    scores: dict[str, Any] = field(default_factory=dict)
    """Scores known when it was saved."""

    def __post_init__(self) -> None:
        if self.channels not in MODES:
            raise ConfigError(f"channels {self.channels}: expected one of {sorted(MODES)}")
        if self.format != FORMAT:
            raise ConfigError(f"format {self.format}, this version reads {FORMAT}")


class Generator:
    """A trained generator.

    >>> generator = bonsaigan.load("bonsai-1")
    >>> generator.sample(4, seed=7)[0].save("tree.png")
    """

    def __init__(self, network: nn.Module, spec: GeneratorSpec, *, device: str = "cpu"):
        self.spec = spec
        self.device = torch.device(device)
        self._directions: dict[int, Directions] = {}
        self.network = network.eval().requires_grad_(False).to(self.device)
        self.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def sample(self, n: int, *, seed: int = 0, truncation: float = 1.0) -> list[Image.Image]:
        """Draw the pictures of seeds `seed` to `seed + n - 1`. The same seed is always the same picture."""
        from PIL import Image

        pictures = self.images(self.latents(range(seed, seed + n), truncation=truncation))
        mode = MODES[self.spec.channels]
        return [Image.fromarray(p[:, :, 0] if mode == "L" else p, mode=None) for p in pictures]

    def latents(self, seeds: Sequence[int], *, truncation: float = 1.0) -> Tensor:
        """One latent vector for each seed, float32 (N, latent).

        Args:
            seeds: integers from 0.
            truncation: 1 draws from the whole distribution. Less draws nearer to what the generator does
                best, with less variety: each vector is blended towards its nearest of a few typical ones.

        Raises:
            ConfigError: a seed is negative, or the truncation is outside 0 to 1.
        """
        if not 0.0 <= truncation <= 1.0:
            raise ConfigError(f"--truncation {truncation}: must be from 0 up to 1")
        z = seed_latents(seeds, latent=self.spec.network.latent)
        if truncation < 1.0 and len(z):
            z = self._towards_typical(z, truncation)
        return z

    def images(self, z: Tensor) -> np.ndarray:
        """Pictures of latent vectors.

        Args:
            z: float32 (N, latent).

        Returns:
            uint8 (N, H, W, C).
        """
        height, width = self.spec.size.height_px, self.spec.size.width_px
        pictures = np.empty((len(z), height, width, self.spec.channels), dtype=np.uint8)
        for start in range(0, len(z), BATCH):
            part = z[start : start + BATCH]
            padded = torch.cat((part, part[-1:].expand(BATCH - len(part), -1)))
            with torch.inference_mode():
                drawn = self.network(padded.to(self.device))
            pictures[start : start + BATCH] = to_uint8(drawn.float().cpu())[: len(part)]
        return pictures

    def preview(self, z: Tensor) -> np.ndarray:
        """`images` without a full batch, for a hand on a slider: a few may differ by one level of 255."""
        with torch.inference_mode():
            return to_uint8(self.network(z.to(self.device)).float().cpu())

    def interpolate(self, first: int | Tensor, second: int | Tensor, *, frames: int) -> np.ndarray:
        """Pictures on the way from one seed or latent vector to another, along the great circle (slerp).

        Returns:
            uint8 (frames, H, W, C); the ends included.
        """
        a, b = self._latent(first), self._latent(second)
        return self.images(slerp(a, b, torch.linspace(0, 1, frames)))

    def walk(
        self,
        seeds: Sequence[int] | Tensor,
        *,
        frames: int = 240,
        columns: int = 1,
        rows: int = 1,
        truncation: float = 1.0,
    ) -> Walk:
        """A film through some pictures and back to the first, which changes at an even pace.

        >>> generator.walk([3, 14, 15]).save("walk.mp4")

        Args:
            seeds: the stops, or their latent vectors float32 (K, latent). In a grid of several cells, each
                cell takes as many stops of its own, one cell after the other.
            frames: how many.
            columns: cells of the grid side by side.
            rows: cells above each other.
            truncation: see `latents`.

        Raises:
            ConfigError: a cell would have fewer than two stops, or there are too few frames.
        """
        stops = seeds if isinstance(seeds, Tensor) else self.latents(seeds, truncation=truncation)
        cells = columns * rows
        if len(stops) % cells:
            raise ConfigError(
                f"{len(stops)} stops for {cells} cells (--grid): each cell needs as many as the others"
            )
        return walk(self, stops.view(cells, -1, stops.shape[1]), frames=frames, columns=columns)

    def directions(self, k: int = 8) -> Directions:
        """The k directions that change pictures the most, strongest first; computed once.

        >>> generator.images(generator.directions().move(generator.latents([7]), {0: 2.5}))

        Raises:
            ConfigError: k is not from 1 up to half the latent vector's length.
        """
        from bonsaigan.explore.directions import find_directions

        if k not in self._directions:
            self._directions[k] = find_directions(self, k)
        return self._directions[k]

    def mix(
        self, shape: int | Tensor, style: int | Tensor, *, levels: Collection[int] | None = None
    ) -> np.ndarray:
        """The layout of one seed or latent vector with the colours and surfaces of another, uint8 (H, W, C).

        Args:
            shape: whose layout.
            style: whose look.
            levels: which levels of the look, 0 the coarsest; all of them by default.

        Raises:
            ConfigError: the generator draws every level from one place, as all but FastGAN do.
        """
        from bonsaigan.explore.mixing import mix

        a, b = self._latent(shape), self._latent(style)
        return mix(self, a[None], b[None], levels=levels)[0]

    def invert(
        self,
        image: str | Path | bytes | np.ndarray | Image.Image,
        *,
        steps: int | None = None,
        fit: Fit = "crop",
        progress: Callable[[int, int | None], None] | None = None,
    ) -> Inversion:
        """The latent vector whose picture is most like an image, and how like it is.

        Args:
            image: a file, its content, uint8 (H, W, C) or a Pillow image of any size.
            steps: of the search; by default enough.
            fit: how it gets the pictures' shape; as the pictures that were trained on did, for the best find.
            progress: called with the steps done and all steps.

        Raises:
            DataError: the image cannot be read.
        """
        from bonsaigan.explore import inversion

        steps = inversion.STEPS if steps is None else steps
        return inversion.invert(self, image, steps=steps, fit=fit, progress=progress)

    def _latent(self, point: int | Tensor) -> Tensor:
        """The latent vector of a seed, or the one given, float32 (latent,)."""
        return point.flatten() if isinstance(point, Tensor) else self.latents([point])[0]

    def _towards_typical(self, z: Tensor, truncation: float) -> Tensor:
        # The mean latent is zero, which generators that normalise their latent cannot draw. So the centres
        # are vectors of ordinary length: among 8 fixed ones, those nearest by direction.
        source = torch.Generator().manual_seed(SEED_STREAM)
        typical = torch.randn(8, self.spec.network.latent, generator=source)
        nearest = typical[(nn.functional.normalize(z) @ nn.functional.normalize(typical).T).argmax(dim=1)]
        return torch.stack([slerp(c, v, torch.tensor([truncation]))[0] for c, v in zip(nearest, z)])


def seed_latents(seeds: Sequence[int], *, latent: int) -> Tensor:
    """The latent vector of each seed, float32 (N, latent), standard normal.

    Raises:
        ConfigError: a seed is negative or too large.
    """
    rows = []
    for seed in seeds:
        if not 0 <= seed < 2**63:
            raise ConfigError(f"--seed {seed}: must be from 0 up to 2**63 - 1")
        # A generator of its own for each seed: torch's own mixing keeps neighbouring seeds unrelated.
        words = np.random.SeedSequence([SEED_STREAM, seed]).generate_state(2, dtype=np.uint32)
        source = torch.Generator().manual_seed(int(words[0]) << 32 | int(words[1]))
        rows.append(torch.randn(latent, generator=source))
    return torch.stack(rows) if rows else torch.empty(0, latent)


def load(run: str | Path | None = None, *, latest: bool = False, device: str = "cpu") -> Generator:
    """The generator of a run: its best moment, or its latest.

    Args:
        run: a run's folder, its name under `runs/`, a folder with a generator (a run's or an export's),
            `hf:OWNER/NAME` on the Hugging Face hub, `starter:bonsai`, or None for the newest run.
        latest: the latest weights instead of the best.
        device: where to draw: `auto`, `cpu`, `cuda`, `mps`, or one of several like `cuda:1`.

    Raises:
        ConfigError: that device is not there.
        RunError: there is no such run, or its generator is missing or damaged.
        DownloadError: the hub cannot be reached, and nothing is cached.
    """
    where = str(choose_device(device))  # pyright: ignore[reportArgumentType]  # it checks
    folder = find_run(run)
    best = folder / BEST_DIR
    return read_generator(best if (best / GENERATOR_FILE).is_file() and not latest else folder, device=where)


def save_generator(folder: Path, network: nn.Module, spec: GeneratorSpec) -> None:
    """Write both files, each replaced atomically.

    Raises:
        CheckpointError: the disk is full or not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot save {folder}: {error.strerror}") from None
    tensors = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    write_atomically(folder / WEIGHTS_FILE, save(tensors))
    write_atomically(folder / GENERATOR_FILE, json.dumps(dataclasses.asdict(spec), indent=2).encode())


def read_generator(folder: Path, *, device: str = "cpu") -> Generator:
    """Read what `save_generator` wrote.

    Raises:
        RunError: a file is missing, damaged, too large, or does not fit the other.
    """
    spec, weights = read_spec(folder), folder / WEIGHTS_FILE
    try:
        tensors = load_tensors(read_bounded(weights, limit_bytes=WEIGHTS_MAX_BYTES))
    except (SafetensorError, ConfigError) as error:
        raise RunError(f"{folder}: no usable generator there yet: {error}") from None
    try:
        # Nothing is allocated for what generator.json claims: only what lies in the weights' file counts.
        with torch.device("meta"), _NoInitialValues():
            network = rebuild(spec)
        network.load_state_dict(tensors, assign=True)
        network = network.float()
    except ConfigError as error:
        raise RunError(f"{folder}: no usable generator there yet: {error}") from None
    except (RuntimeError, ValueError, IndexError, AssertionError):
        raise RunError(f"{weights}: does not fit {GENERATOR_FILE} beside it") from None
    for name, t in (*network.named_parameters(), *network.named_buffers()):
        if not t.isfinite().all() or not (t.is_floating_point() or name.endswith("num_batches_tracked")):
            raise RunError(f"{weights}: {name} has a weight that is not a finite number")
        if name.endswith("running_var") and (t < 0).any():
            raise RunError(f"{weights}: {name} is a variance, and below 0")
    return Generator(network, spec, device=device)


def read_spec(folder: Path) -> GeneratorSpec:
    """What `generator.json` in a folder says.

    Raises:
        RunError: it is missing, damaged or of another version.
    """
    try:
        return parse_spec(read_json(folder / GENERATOR_FILE))
    except ConfigError as error:
        raise RunError(f"{folder}: no usable generator there yet: {error}") from None


def parse_spec(raw: Any) -> GeneratorSpec:
    """Check what `generator.json` holds.

    Raises:
        ConfigError: a key is missing or unknown, or a value has the wrong type or range.
    """
    scores = raw.pop("scores", None) if isinstance(raw, dict) else None
    spec = from_dict(GeneratorSpec, raw, where=GENERATOR_FILE)
    return dataclasses.replace(spec, scores=scores if isinstance(scores, dict) else {})


def rebuild(spec: GeneratorSpec) -> nn.Module:
    """The network that a spec describes, with fresh weights.

    Raises:
        ConfigError: its family is unknown.
    """
    network = build_generator(spec.family, network=spec.network, size=spec.size, channels=spec.channels)
    return fold(network) if spec.folded else network


class _NoInitialValues(TorchFunctionMode):
    """Where there is no memory there is nothing to fill; torch would load its compiler for it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))
