"""Full training states on disk: tensors as safetensors, the rest as JSON, never a pickle.

A state is a folder that is written under a temporary name, flushed, and renamed into place; the one before
stays beside it as `NAME.previous`. A checksum tells a damaged file from a good one; then the previous state
is used, and the damaged one is kept as `NAME.damaged`, so that it never takes the place of a good one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn, optim

from bonsaigan import durable
from bonsaigan.config import Budget, from_dict, read_bounded, read_json
from bonsaigan.errors import CheckpointError, ConfigError
from bonsaigan.runs import STATE_FILE

FORMAT = 1
"""Raised when older code could not read what is written."""
TENSORS_FILE = "state.safetensors"
TENSORS_MAX_BYTES = 8 << 30
COUNT_MAX = 2**53
ADAM_SLOTS = 3


@dataclass
class Progress:
    """The counters of a run; all that a resume needs beside the tensors."""

    step: int = 0
    """Steps done."""
    seen_nimg: int = 0
    """Real pictures shown to the discriminator."""
    train_sec: float = 0.0
    """Seconds spent in training."""
    begin_sec: float = 0.0
    """Of those, seconds before the first step: the generator's start."""
    evaluate_sec: float = 0.0
    """Seconds spent on scores and samples."""
    best_kid: float | None = None
    """Lowest KID so far."""
    best_step: int = 0
    """Step of the lowest KID."""
    evaluations_since_best: int = 0
    """For `--patience`."""
    loss_scale: float | None = None
    """What losses are multiplied with in half precision, so that no gradient becomes 0 or infinite."""
    loss_scale_steps: int | None = None
    """Steps since it was last changed."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            low = -COUNT_MAX if name == "best_kid" else 0
            if value is not None and not (low <= value <= COUNT_MAX and math.isfinite(value)):
                raise ConfigError(f"{name}: not a number that a run can have")

    def done_share(self, budget: Budget) -> float:
        """How much of the budget is spent, 0 to 1 and a little beyond."""
        if budget.minutes is not None:
            return self.train_sec / 60 / budget.minutes
        if budget.kimg is not None:
            return self.seen_nimg / 1000 / budget.kimg
        assert budget.steps is not None
        return self.step / budget.steps

    def seconds_left(self, budget: Budget) -> float:
        """Seconds of training until the budget is spent, at the run's mean pace."""
        spent = self.train_sec if budget.minutes is not None else self.step_sec
        return spent * (1 / max(self.done_share(budget), 1e-9) - 1)

    @property
    def step_sec(self) -> float:
        """Seconds spent in all steps."""
        return self.train_sec - self.begin_sec


def save(folder: Path, *, tensors: Mapping[str, Tensor], progress: Progress) -> None:
    """Replace the state in `folder` atomically, keeping the one before as `folder.previous`.

    Raises:
        CheckpointError: the disk is full or not writable; the old state is untouched.
    """
    data = save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    known = {name: value for name, value in vars(progress).items() if value is not None}
    state = {"format": FORMAT, "sha256": hashlib.sha256(data).hexdigest(), "progress": known}
    fresh, previous = _sibling(folder, "writing"), _sibling(folder, "previous")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        durable.write_durably(fresh / TENSORS_FILE, data)
        durable.write_durably(fresh / STATE_FILE, json.dumps(state, indent=2).encode())
        _sync_folder(fresh)
        if folder.exists():
            shutil.rmtree(previous, ignore_errors=True)
            folder.rename(previous)
        fresh.rename(folder)
        _sync_folder(folder.parent)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise CheckpointError(
            f"cannot save {folder}: {error.strerror}; what was saved before is kept"
        ) from None


def load(folder: Path) -> tuple[dict[str, Tensor], Progress, str | None]:
    """Read the newest good state.

    Returns:
        The tensors, the counters, and a sentence if the latest state was damaged and the one before is used.

    Raises:
        CheckpointError: there is no good state.
    """
    problems = []
    for candidate in (folder, _sibling(folder, "previous")):
        if not candidate.exists():
            continue
        try:
            tensors, progress = _load_one(candidate)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        warning = f"{problems[0]}; going on from the state before it" if problems else None
        return tensors, progress, warning
    raise CheckpointError(problems[0] if problems else f"{folder}: no checkpoint there")


def set_aside_damaged(folder: Path) -> None:
    """After `load` had to fall back: keep the next `save` from giving up the good state for the damaged one.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    damaged = _sibling(folder, "damaged")
    try:
        if folder.exists():
            shutil.rmtree(damaged, ignore_errors=True)
            folder.rename(damaged)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be set aside: {error.strerror}") from None


def exists(folder: Path) -> bool:
    """Whether there is a state to load, good or not."""
    return folder.exists() or _sibling(folder, "previous").exists()


def pack(parts: Mapping[str, nn.Module | optim.Optimizer]) -> dict[str, Tensor]:
    """Name every tensor of networks and optimisers; frozen features are left out."""
    tensors: dict[str, Tensor] = {}
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            tensors.update({f"{name}.{key}": value for key, value in _trained_tensors(part).items()})
        else:
            for index, state in part.state_dict()["state"].items():
                tensors.update({f"{name}.{index}.{key}": value for key, value in state.items()})
    return tensors


def unpack(tensors: Mapping[str, Tensor], parts: Mapping[str, nn.Module | optim.Optimizer]) -> None:
    """Put `pack`'s tensors back.

    Raises:
        CheckpointError: a tensor is missing, unknown, or of another shape or kind.
    """
    left = dict(tensors)
    for name, part in parts.items():
        own = {
            key.removeprefix(f"{name}."): left.pop(key) for key in list(left) if key.startswith(f"{name}.")
        }
        other = CheckpointError(f"the checkpoint's {name} is of another configuration")
        if isinstance(part, nn.Module):
            expected = _trained_tensors(part)
            if {k: (v.shape, v.dtype) for k, v in own.items()} != {
                k: (v.shape, v.dtype) for k, v in expected.items()
            }:
                raise other
            part.load_state_dict(own, strict=False)
        else:
            params = [p for group in part.param_groups for p in group["params"]]
            shapes = {f"{i}.{slot}": shape for i, p in enumerate(params) for slot, shape in _adam_shapes(p)}
            moved = {key.partition(".")[0] for key in own}  # a parameter may never have had a gradient
            if len(own) != ADAM_SLOTS * len(moved) or any(
                value.shape != shapes.get(key) or value.dtype != torch.float32 for key, value in own.items()
            ):
                raise other
            states: dict[int, dict[str, Any]] = {}
            for key, value in own.items():
                index, _, slot = key.partition(".")
                if slot != "step":
                    # A fused step walks the memory: the moments must lie as the parameter does.
                    value = torch.empty_like(params[int(index)]).copy_(value)
                states.setdefault(int(index), {})[slot] = value
            part.load_state_dict({"state": states, "param_groups": part.state_dict()["param_groups"]})
    if left:
        raise CheckpointError(f"the checkpoint holds an unknown tensor {next(iter(left))!r:.60}")


def _adam_shapes(param: Tensor) -> tuple[tuple[str, torch.Size], ...]:
    return ("step", torch.Size()), ("exp_avg", param.shape), ("exp_avg_sq", param.shape)


def _trained_tensors(module: nn.Module) -> dict[str, Tensor]:
    frozen = tuple(getattr(module, "frozen_names", tuple)())
    return {k: v for k, v in module.state_dict().items() if not (frozen and k.startswith(frozen))}


def _load_one(folder: Path) -> tuple[dict[str, Tensor], Progress]:
    try:
        state = read_json(folder / STATE_FILE)
        data = read_bounded(folder / TENSORS_FILE, limit_bytes=TENSORS_MAX_BYTES)
        if state["format"] != FORMAT:
            raise CheckpointError(f"{folder}: format {state['format']!r:.40}, this version reads {FORMAT}")
        if hashlib.sha256(data).hexdigest() != state["sha256"]:
            raise CheckpointError(f"{folder / TENSORS_FILE} is damaged (its checksum differs)")
        return load_tensors(data), from_dict(Progress, state["progress"], where="progress")
    except KeyError as error:
        raise CheckpointError(f"{folder} is damaged: {STATE_FILE} has no {error}") from None
    except (ConfigError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is damaged: {error}") from None


def _sibling(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
