"""From a user's wishes to a run: find the pictures, resolve every setting, train, go on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape

from bonsaigan import processes, runs
from bonsaigan.config import (
    Budget,
    ComponentsConfig,
    DataConfig,
    Device,
    Fit,
    Mode,
    Precision,
    Size,
    TrainConfig,
)
from bonsaigan.data.prepare import PreparedSet
from bonsaigan.data.selection import PictureArray, Selection
from bonsaigan.data.sources import PUBLIC
from bonsaigan.device import choose_device, choose_precision, memory_for
from bonsaigan.durable import write_atomically
from bonsaigan.errors import ConfigError, RunError
from bonsaigan.generator import GeneratorSpec
from bonsaigan.training import checkpoint
from bonsaigan.training.pictures import DataProgress, as_it_began, data_of, listed, prepare_data, remember
from bonsaigan.training.recipes import default_config, find

DEFAULT_MINUTES = 10.0
TOLD_MAX = 10
"""Pictures left out that are printed."""
Conclude = Callable[["Trained"], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run that could start now."""

    config: TrainConfig
    """Every setting."""
    prepared: PreparedSet
    """The pictures."""
    source_name: str
    """For the name of the run."""

    @property
    def training_pictures(self) -> PictureArray:
        """uint8 (N, H, W, C), those to train on; they stay on the disk until they are asked for."""
        index, pictures = self.prepared.train_index, self.prepared.pictures
        whole = len(index) == len(pictures) and bool((np.diff(index) == 1).all())
        return pictures if whole else Selection(pictures, index)

    def tell(self, console: Console) -> None:
        """Print what will be trained on, what was left out, and how."""
        config, manifest = self.config, self.prepared.manifest
        left_out = manifest["left_out"]
        lines = [f"{len(self.prepared.pictures)} pictures from {manifest['source']}"]
        for name, key in (("licence", "licence"), ("cite", "citation")):
            if manifest.get(key):
                lines.append(f"{name}: {manifest[key]}")
        lines += [f"left out: {entry['name']}: {entry['reason']}" for entry in left_out[:TOLD_MAX]]
        if len(left_out) > TOLD_MAX:
            lines.append(f"and {len(left_out) - TOLD_MAX} more; all of them are listed in {runs.DATA_FILE}")
        lines.append(
            f"recipe {config.recipe}, {config.data.size} px, batch {config.batch}, {config.precision}, "
            f"{config.budget}, seed {config.seed}"
        )
        for line in lines:
            console.print(escape(line), highlight=False)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run whose training ended."""

    folder: Path
    """Its folder."""
    plan: Plan
    """What was trained on, and how."""
    device: torch.device
    """Where."""
    stopped: bool
    """Whether it ended before its budget because someone asked it to."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a user may ask for; None leaves it to the recipe."""

    recipe: str = "projected"
    """Name of the recipe."""
    size: str | int = "64"
    """As `Size.parse` reads it."""
    fit: Fit | None = None
    """How pictures are fitted."""
    mode: Mode = "auto"
    """Colours of the pictures: `L` greyscale, `RGB`, `RGBA` with transparency; `auto` is `L` if all are grey,
    `RGBA` if at least half are transparent, else `RGB`."""
    archive: str | None = None
    """A copy of the Caltech-101 archive."""
    holdout: float = 0.0
    """Share kept out of training."""
    minutes: float | None = None
    """Budget in minutes."""
    kimg: float | None = None
    """Budget in thousands of pictures."""
    steps: int | None = None
    """Budget in steps."""
    batch: int | None = None
    """Pictures a step."""
    lr: float | None = None
    """Learning rate of the generator; the discriminator's changes in proportion."""
    width: int | None = None
    """Base width of the generator."""
    init: str | None = None
    """A run to start from the networks of."""
    accumulate: int = 1
    """Passes for each batch."""
    precision: Precision = "auto"
    """Arithmetic of the convolutions."""
    device: Device = "auto"
    """Where to compute."""
    flip: bool = True
    """Mirror half of the pictures, where the recipe does."""
    seed: int = 0
    """Source of all randomness."""
    evaluate: bool = True
    """Score while training."""
    patience: int = 0
    """Stop after so many evaluations without a better score."""


def plan(data: str, wishes: Wishes, *, progress: DataProgress | None = None) -> Plan:
    """Find and prepare the pictures and resolve every setting; nothing is trained or written but the cache.

    Raises:
        BonsaiganError: DATA or a wish cannot be used; one line that says why.
    """
    recipe = find(wishes.recipe)
    data_config = DataConfig(
        source=data,
        archive=wishes.archive,
        size=Size.parse(str(wishes.size)),
        fit=wishes.fit or recipe.fit,
        mode=wishes.mode,
        holdout=wishes.holdout,
    )
    processes.join()
    asked = Budget.asked(minutes=wishes.minutes, kimg=wishes.kimg, steps=wishes.steps)
    budget, device = asked or Budget(minutes=DEFAULT_MINUTES), choose_device(wishes.device)
    # Only the first process has that run; `start` gives its settings to the others.
    init = runs.find_run(wishes.init) if wishes.init is not None and processes.is_first() else None
    if init is not None and not checkpoint.exists(init / runs.CHECKPOINT_DIR):
        raise ConfigError(f"--init {str(init)!r}: has no saved state ({runs.CHECKPOINT_DIR}/) to start from")
    precision = choose_precision(wishes.precision, device, half=recipe.half_precision)
    prepared = prepare_data(data_config, resample=recipe.resample, progress=progress)
    usual = default_config(recipe, data_config.size, channels=prepared.channels)
    if precision == "fp16" and usual.penalty.gamma > 0:
        raise ConfigError(
            f"--precision fp16: the penalties' gradients of recipe {recipe.name} do not fit into it; "
            "bf16 or fp32 do"
        )
    optimizer, network = usual.optimizer, usual.network
    if wishes.lr is not None:
        ratio = optimizer.discriminator_lr / optimizer.generator_lr
        rates = {"generator_lr": wishes.lr, "discriminator_lr": wishes.lr * ratio}
        optimizer = dataclasses.replace(optimizer, **rates)
    if init is not None:
        network = runs.read_config(init).network
    if wishes.width is not None:
        network = dataclasses.replace(network, width=wishes.width)
    config = dataclasses.replace(
        usual,
        data=data_config,
        budget=budget,
        batch=usual.batch if wishes.batch is None else wishes.batch,
        network=network,
        augment=tuple(name for name in usual.augment if wishes.flip or name != "flip"),
        optimizer=optimizer,
        components=usual.components if init is None else ComponentsConfig(),
        accumulate=wishes.accumulate,
        precision=precision,
        init=None if init is None else str(init),
        seed=wishes.seed,
        evaluate=wishes.evaluate,
        patience=wishes.patience,
    )
    if init is not None:
        _check_init(config, init, prepared)
    # As it will be read again: numbers may be of any kind in Python, and what no file can hold is told now.
    config = TrainConfig.from_json(config.to_json())
    recipe.own_batches(config)
    return Plan(config=config, prepared=prepared, source_name=str(prepared.manifest["name"]))


def is_begun(run: str) -> bool:
    """Whether there is a run of that name to go on with.

    Raises:
        RunError: it is not a name that a run can have.
    """
    processes.join()
    return processes.from_first((runs.named(run) / runs.CONFIG_FILE).is_file())


def start(
    plan: Plan,
    *,
    run: str | None = None,
    device: Device = "auto",
    console: Console | None = None,
    conclude: Conclude | None = None,
) -> Path:
    """Make the run's folder and train.

    Args:
        plan: from `plan`.
        run: a name for the run.
        device: where to compute.
        console: where to print; nothing is printed without one.
        conclude: called when training ended and its state is safe, such as `conclude.conclude`.

    Returns:
        The folder.

    Raises:
        BonsaiganError: the folder cannot be used, or training cannot go on.
    """
    console = console or Console(quiet=True)
    plan.tell(console)
    leads = processes.is_first()
    folder = runs.create_run(run, source_name=plan.source_name) if leads else None
    folder, config = processes.from_first((folder, plan.config))
    assert folder is not None
    plan = dataclasses.replace(plan, config=config)
    with runs.only_process(folder) if leads else contextlib.nullcontext():
        if leads:
            # The settings last: a folder that has them is a run, and can be gone on with.
            write_atomically(folder / runs.DATA_FILE, json.dumps(plan.prepared.manifest, indent=2).encode())
            write_atomically(folder / runs.CONFIG_FILE, plan.config.to_json().encode())
        _train(plan, folder, device=device, console=console, conclude=conclude)
    return folder


def resume(
    run: str | Path | None = None,
    *,
    data: str | None = None,
    budget: Budget | None = None,
    archive: str | None = None,
    device: Device = "auto",
    console: Console | None = None,
    progress: DataProgress | None = None,
    conclude: Conclude | None = None,
) -> Path:
    """Go on with a run from its last saved step, to its budget or to a new one; see `start`.

    Args:
        run: its folder, its name, or None for the newest.
        data: where its pictures are now; from then on the run knows.
        budget: a new one.
        archive: a copy of the Caltech-101 archive, if it is not where it was.
        device: where to compute.
        console: where to print; nothing is printed without one.
        progress: called with files or bytes done, and how many there are.
        conclude: see `start`.

    Returns:
        The folder.

    Raises:
        RunError: there is no such run, or its pictures are not the ones it was trained on.
        BonsaiganError: anything `start` raises.
    """
    processes.join()
    console = console or Console(quiet=True)
    leads = processes.is_first()
    folder = runs.find_run(run, trained=True) if leads else None
    folder, config = processes.from_first((folder, runs.read_config(folder) if folder is not None else None))
    assert folder is not None
    assert config is not None
    with runs.only_process(folder) if leads else contextlib.nullcontext():
        found = data_of(folder, config, moved=data, archive=archive)
        prepared = prepare_data(found, resample=find(config.recipe).resample, progress=progress)
        order = as_it_began(folder, prepared, moved=data).train_index if leads else None
        prepared = dataclasses.replace(prepared, train_index=processes.from_first(order))
        if leads and not (data is None and archive is None):
            config = remember(folder, config, found, prepared)
        more = budget is not None and budget != config.budget
        if budget is not None:
            config = TrainConfig.from_json(dataclasses.replace(config, budget=budget).to_json())
            if leads:
                write_atomically(folder / runs.CONFIG_FILE, config.to_json().encode())
        plan = Plan(config=config, prepared=prepared, source_name=folder.name)
        _train(plan, folder, device=device, console=console, conclude=conclude, more=more)
    return folder


def _check_init(config: TrainConfig, init: Path, prepared: PreparedSet) -> None:
    other = runs.read_config(init)
    held = {file["sha256"] for file in prepared.manifest["files"] if file["holdout"]}
    if held and (init / runs.DATA_FILE).is_file():
        seen = {file["sha256"] for file in listed(init) if not file["holdout"]} & held
        if seen:
            raise ConfigError(
                f"--holdout {config.data.holdout:g}: --init {str(init)!r} was trained on {len(seen)} of the "
                f"{len(held)} pictures to be kept away; leave one of the two out"
            )
    for what, own, theirs in (
        ("recipe", config.recipe, other.recipe),
        ("size", config.data.size, other.data.size),
        ("channels", config.channels, other.channels),
        ("width", config.network.width, other.network.width),
    ):
        if own != theirs:
            raise ConfigError(f"--init {str(init)!r}: its {what} is {theirs}, that of this training {own}")


def spec_of(
    config: TrainConfig,
    *,
    step: int = 0,
    source: str = "",
    licence: str | None = None,
    citation: str | None = None,
) -> GeneratorSpec:
    """What `generator.json` says of the generators that a run with these settings trains."""
    return GeneratorSpec(
        family=find(config.recipe).family,
        network=config.network,
        size=config.data.size,
        channels=config.channels,
        recipe=config.recipe,
        step=step,
        source=source,
        licence=licence,
        citation=citation,
    )


def _train(
    plan: Plan,
    folder: Path,
    *,
    device: Device,
    console: Console,
    conclude: Conclude | None,
    more: bool = False,
) -> None:
    from bonsaigan.training.loop import fit
    from bonsaigan.training.monitor import Helper, Monitor

    others = processes.total([float(processes.from_first(plan.prepared.digest) != plan.prepared.digest)])[0]
    if others:
        raise RunError(f"{others:.0f} of {processes.count()} processes have other pictures than the first")
    config, manifest = plan.config, plan.prepared.manifest
    if plan.prepared.channels != config.channels:
        raise RunError(
            f"{folder}: its pictures have {plan.prepared.channels} channels now, it was begun with "
            f"{config.channels}"
        )
    pictures, where = plan.training_pictures, choose_device(device)
    if not processes.is_first():
        with memory_for(config):
            fit(config, pictures, folder, Helper(config, pictures), device=where)
        return
    typed = config.data.source
    # A generator goes out into the world: where the pictures lie on this machine stays here.
    name = typed if typed.startswith(PUBLIC) else manifest["name"]
    spec = spec_of(
        config,
        source=f"{len(pictures)} pictures, {name}",
        licence=manifest.get("licence"),
        citation=manifest.get("citation"),
    )
    try:
        with memory_for(config):
            monitor = Monitor(config, pictures, folder, spec=spec, console=console, more=more)
            fit(config, pictures, folder, monitor, device=where)
    except OSError as error:  # samples, lines and logs: what must not be lost has its own errors
        said = error.strerror or str(error)
        raise RunError(f"cannot write into {folder}: {said}; what was saved before is kept") from None
    if conclude is not None:
        conclude(Trained(folder=folder, plan=plan, device=where, stopped=monitor.stopped))
