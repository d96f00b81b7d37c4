"""One registry of the forms that a generator can be written in, and one check that each must pass.

Every form is written under a temporary name, loaded again by the program it is meant for, and compared with
the original on fixed latent vectors. Only what draws the same pictures is moved to its place.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import nn

from bonsaigan.data.files import is_clutter
from bonsaigan.errors import BonsaiganError, ConfigError
from bonsaigan.generator import Generator, GeneratorSpec
from bonsaigan.models.folding import fold

PROBES = 8
"""Pictures compared after writing: seeds 0 to 7."""
TOLERANCE_LEVELS = {"fp32": 0.5, "fp16": 2.0}
"""Largest difference from the original in grey levels of 255, by how the weights are stored."""
Draw = Callable[[np.ndarray], np.ndarray]
"""Latent vectors, float32 (N, latent) → pictures, float32 (N, H, W, C) in [-1, 1]."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A form that a generator can be written in."""

    name: str
    """Of the file or folder, where the user gives none."""
    runtime: str
    """The program that loads it."""
    module: str
    """Where it is written and loaded: a `Form` in this package."""
    weights: Literal["fp32", "either", "fp16"] = "fp32"
    """How weights can be stored."""
    optional: str = ""
    """A folder that it may have in it or not."""


TARGETS = {
    "safetensors": Target(
        name="safetensors",
        runtime="bonsaigan",
        module="weights",
        weights="either",
    ),
    "onnx": Target(
        name="generator.onnx",
        runtime="ONNX Runtime",
        module="onnx",
        weights="either",
    ),
    "keras": Target(name="generator.keras", runtime="Keras", module="keras"),
    "torch": Target(name="generator.pt2", runtime="torch.export", module="program"),
    "web": Target(
        name="web",
        runtime="ONNX Runtime",
        module="web",
        weights="fp16",
        optional="runtime",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What there is to write."""

    network: nn.Module
    """The generator on the CPU, float32, for evaluation, batch norms folded."""
    spec: GeneratorSpec
    """What is known about it, fit to be published."""
    card: str = ""
    """The model card, Markdown."""
    half: bool = False
    """Store weights as fp16."""
    original: Generator
    """The generator as it was trained."""
    bundle: Path | None = None
    """A folder with ONNX Runtime Web, for the page."""


class Form(Protocol):
    """What the module of a target has."""

    def write(self, job: Job, path: Path) -> None:
        """Write the file or folder."""
        ...

    def load(self, path: Path) -> Draw:
        """Load it with the program it is meant for."""
        ...


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A generator that was written and draws the same pictures."""

    path: Path
    """The file or folder."""
    runtime: str
    """The program that it was compared in."""
    difference_levels: float
    """Largest difference from the original in grey levels of 255."""
    tolerance_levels: float
    """What is allowed."""
    size_bytes: int
    """Of the file, or of all the folder's files."""

    def __str__(self) -> str:
        return (
            f"{self.path}, {self.size_bytes / 1e6:.1f} MB; {PROBES} pictures compared in {self.runtime}: "
            f"largest difference {self.difference_levels:.2g} grey levels, "
            f"allowed {self.tolerance_levels:g}"
        )


def export(
    generator: Generator,
    *,
    to: str,
    out: Path,
    half: bool = False,
    bundle: Path | None = None,
    spec: GeneratorSpec | None = None,
    card: str = "",
) -> Exported:
    """Write a generator for another program, load it there, and compare their pictures.

    Args:
        generator: the original.
        to: a key of `TARGETS`.
        out: the file or folder. A folder that is there is replaced only if an earlier export wrote it.
        half: store weights as fp16; the arithmetic stays float32.
        bundle: for `web`, a folder with the npm package onnxruntime-web, to be copied into the page's.
        spec: what to publish about it, where that is not its own.
        card: the model card.

    Raises:
        ConfigError: unknown target, or settings that do not fit it.
        MissingExtraError: the program is not installed.
        BonsaiganError: the files cannot be written, or what the program draws from them differs.
    """
    target = _target(to)
    if half and target.weights == "fp32":
        raise ConfigError(f"--half: --to {to} stores float32 weights alone")
    if bundle is not None and to != "web":
        raise ConfigError(f"--bundle {str(bundle)!r}: is for --to web, not --to {to}")
    if out.name in ("", ".."):
        raise ConfigError(f"--out {str(out)!r}: give what is written a name of its own")
    half = half or target.weights == "fp16"
    form: Form = importlib.import_module(f"{__package__}.{target.module}")  # pyright: ignore[reportAssignmentType]
    network = fold(copy.deepcopy(generator.network).cpu().float())
    job = Job(
        network=network.to(memory_format=torch.contiguous_format),  # pyright: ignore[reportCallIssue]
        spec=dataclasses.replace(spec or generator.spec, folded=True),
        card=card,
        half=half,
        original=generator,
        bundle=bundle,
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
            part = Path(folder) / out.name
            form.write(job, part)
            _check_place(part, out, optional=target.optional)
            tolerance = TOLERANCE_LEVELS["fp16" if half else "fp32"]
            difference = _difference_levels(generator, form.load(part))
            if not difference <= tolerance:  # also when it is not a number
                raise BonsaiganError(
                    f"{out} not written: {target.runtime} draws pictures that differ by {difference:.3g} "
                    f"grey levels, more than {tolerance:g}"
                )
            files = [part] if part.is_file() else [p for p in part.rglob("*") if p.is_file()]
            size_bytes = sum(p.stat().st_size for p in files)
            _put(part, out, before=Path(folder) / "before" / out.name)
    except OSError as error:
        raise BonsaiganError(f"{out}: cannot be written: {error.strerror or error}") from None
    return Exported(
        path=out,
        runtime=target.runtime,
        difference_levels=difference,
        tolerance_levels=tolerance,
        size_bytes=size_bytes,
    )


def _put(part: Path, out: Path, *, before: Path) -> None:
    """In the place of an earlier export, which stays if that fails."""
    if not out.is_dir():
        part.replace(out)
        return
    before.parent.mkdir()
    out.rename(before)
    try:
        part.replace(out)
    except OSError:
        before.rename(out)
        raise


def _target(to: str) -> Target:
    if to not in TARGETS:
        raise ConfigError(f"--to {to!r}: choose one of {', '.join(TARGETS)}")
    return TARGETS[to]


@torch.inference_mode()
def _difference_levels(generator: Generator, draw: Draw) -> float:
    """Largest difference on the pictures of the first seeds, drawn in batches of unlike sizes."""
    z = generator.latents(range(PROBES))
    ours = generator.network(z.to(generator.device)).float().cpu().permute(0, 2, 3, 1).numpy()
    theirs = np.concatenate([draw(z[:1].numpy()), draw(z[1:].numpy())])
    if theirs.shape != ours.shape:
        raise BonsaiganError(f"not written: the pictures came back as {theirs.shape}, not {ours.shape}")
    return float(np.abs(ours.clip(-1, 1) - theirs.clip(-1, 1)).max() * 127.5)


def _check_place(part: Path, out: Path, *, optional: str) -> None:
    """A file may replace a file. A folder may replace one with the same files: it is an earlier export."""
    if part.is_file():
        if out.is_dir():
            raise ConfigError(f"--out {str(out)!r}: is a folder; name a file")
        return
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"--out {str(out)!r}: is a file; name a folder")
    there, fresh = (
        {
            q
            for p in folder.rglob("*")
            if (q := p.relative_to(folder)).parts[0] != optional and not is_clutter(q.name)
        }
        for folder in (out, part)
    )
    if there and there != fresh:
        raise ConfigError(f"--out {str(out)!r}: has other files in it; name another folder or remove it")
