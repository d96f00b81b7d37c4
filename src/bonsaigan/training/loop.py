"""The training loop: steps until the budget is spent or a stop is asked for, and nothing is lost.

Of several processes (see `processes.py`) the first one decides, writes and prints.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import torch

from bonsaigan import processes
from bonsaigan.config import TrainConfig
from bonsaigan.data.selection import PictureArray
from bonsaigan.runs import CHECKPOINT_DIR
from bonsaigan.training import checkpoint
from bonsaigan.training.checkpoint import Progress
from bonsaigan.training.monitor import Helper, Monitor
from bonsaigan.training.signals import stop_signals
from bonsaigan.training.trainer import Trainer

SAVE_EVERY_SEC = 60.0


def fit(
    config: TrainConfig,
    pictures: PictureArray,
    folder: Path,
    monitor: Monitor | Helper,
    *,
    device: torch.device,
) -> Progress:
    """Train until the budget is spent, a stop is asked for, or patience runs out; keep everything.

    Args:
        config: the run.
        pictures: uint8 (N, H, W, C), those to train on.
        folder: the run's folder; a state in it is gone on from.
        monitor: is told of each step; draws samples, scores and logs.
        device: where to compute.

    Raises:
        NotFiniteError: a loss is not finite.
        CheckpointError: the state cannot be saved, or none that is there can be used.
    """
    trainer = Trainer(config, device=device)
    exists = processes.from_first(checkpoint.exists(folder / CHECKPOINT_DIR))
    if exists:
        monitor.resumed(trainer, trainer.restore(folder))
    elif config.init is not None:
        monitor.warn(trainer.begin_from(Path(config.init)))
    leads, saved_at = processes.is_first(), time.monotonic()
    with stop_signals() as stop, monitor.showing(trainer):
        started = time.monotonic()
        trainer.begin(pictures, anew=not exists)
        begin_sec = time.monotonic() - started
        trainer.progress.begin_sec += begin_sec
        trainer.progress.train_sec += begin_sec
        if leads and not exists and config.init is not None:
            trainer.save(folder)  # from here on the other run may change, or go
        while True:
            progress = trainer.progress
            over = progress.done_share(config.budget) >= 1.0 or monitor.out_of_patience(progress)
            # One process's wish to stop is enough; all else is the first one's word, and so is its clock.
            told = [float(over), progress.train_sec] if leads else [0.0, 0.0]
            stops, over, progress.train_sec = processes.total([float(bool(stop)), *told])
            if stops or over:
                break
            started = time.monotonic()
            trainer.anneal()
            stats = trainer.step(pictures)
            progress.train_sec += time.monotonic() - started
            monitor.step(trainer, stats)
            if leads and time.monotonic() - saved_at > SAVE_EVERY_SEC:
                trainer.save(folder)
                saved_at = time.monotonic()
        if leads:
            trainer.save(folder)
        if not stops:
            monitor.look(trainer, last=True)
            if leads:
                trainer.save(folder)  # with what that look found
    monitor.finished(trainer, stopped=bool(stops or stop))
    return trainer.progress


def measure_step_sec(
    config: TrainConfig, pictures: PictureArray, *, device: torch.device, steps: int = 4
) -> float:
    """Seconds a step takes here: the median of a few after two that warm up."""
    trainer = Trainer(config, device=device)
    trainer.begin(pictures, anew=False)
    times = []
    for _ in range(2 + steps):
        started = time.monotonic()
        trainer.step(pictures)
        times.append(time.monotonic() - started)
    return float(np.median(times[2:]))


def measure_begin_sec(config: TrainConfig, pictures: PictureArray, *, device: torch.device) -> float:
    """Seconds that the generator's start takes here, told from starts of one step and of five."""
    settings = config.components
    if not settings.first_steps:
        return 0.0
    times = []
    for steps in (1, 5):
        short = dataclasses.replace(settings, first_steps=steps)
        trainer = Trainer(dataclasses.replace(config, components=short), device=device)
        started = time.monotonic()
        trainer.begin(pictures, anew=True)
        times.append(time.monotonic() - started)
    return times[0] + max(0.0, times[1] - times[0]) / 4 * (settings.first_steps - 1)
