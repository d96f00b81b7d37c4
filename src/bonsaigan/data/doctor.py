"""What is wrong with a set of pictures, and what will be done about it."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bonsaigan.config import PICTURES_MIN, DataConfig
from bonsaigan.data.files import Progress, Refused, printable
from bonsaigan.data.picture import decode
from bonsaigan.data.resize import Resample, kept_box
from bonsaigan.data.sources import Source
from bonsaigan.data.survey import FileReport, Fingerprint, changed, fingerprint, survey
from bonsaigan.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """A set examined; the files in natural order of their names."""

    source: str
    """The source's description."""
    config: DataConfig
    """The settings it was examined for."""
    mode: str
    """Colour mode chosen for the whole set: L, RGB or RGBA."""
    files: tuple[FileReport, ...]

    @property
    def used(self) -> int:
        """Number of pictures that will be used."""
        return sum(file.used for file in self.files)

    @property
    def counts(self) -> dict[str, int]:
        """Kind of finding → number of files that have it, the commonest first."""
        return dict(Counter(f.kind for file in self.files for f in file.findings).most_common())

    @property
    def summary(self) -> str:
        """In plain sentences, what will be done."""
        return _summary(self)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(file name, kind, severity, message) for a table: left out first, then fixed, then notes."""
        order = {"left out": 0, "fixed": 1, "note": 2}
        rows = [(file.name, f.kind, f.severity, f.message) for file in self.files for f in file.findings]
        return sorted(rows, key=lambda row: order[row[2]])


def doctor(source: Source, config: DataConfig, *, progress: Progress | None = None) -> Diagnosis:
    """Examine every file of a source as `prepare` would.

    Args:
        progress: called with the files done and, once they are counted, the files in all.

    Raises:
        DataError: the source as a whole cannot be read, or holds no files.
    """
    prints = fingerprint(source, progress=progress)
    return diagnose(source, prints, config, progress=progress)


def diagnose(
    source: Source,
    prints: list[Fingerprint],
    config: DataConfig,
    *,
    keep: Callable[[int, np.ndarray], None] | None = None,
    resample: Resample = "antialias",
    progress: Progress | None = None,
) -> Diagnosis:
    """`doctor` for files already hashed, whose pictures may be kept; arguments and errors as for `survey`."""
    found = survey(source, prints, config, keep=keep, resample=resample, progress=progress)
    return Diagnosis(source=source.description, config=config, mode=found.mode, files=found.files)


# --- what will be done, in words and in a picture ----------------------------------------------------------


def _summary(diagnosis: Diagnosis) -> str:
    config, used = diagnosis.config, diagnosis.used
    left_out = Counter(
        next(f.kind for f in file.findings if f.severity == "left out")
        for file in diagnosis.files
        if not file.used
    )
    fixed = Counter(
        f.kind for file in diagnosis.files if file.used for f in file.findings if f.severity == "fixed"
    )
    how = {"crop": "cropped about the centre", "pad": "padded", "squash": "squashed"}[config.fit]
    words = {"L": "greyscale", "RGB": "colour", "RGBA": "colour with transparency"}[diagnosis.mode]
    parts = [
        f"{used} of {len(diagnosis.files)} files will be used, {how} to {config.size} pixels in {words}."
    ]
    if left_out:
        parts.append(f"Left out: {listed(left_out)}.")
    if fixed:
        parts.append(f"Fixed on the way: {listed(fixed)}.")
    near = diagnosis.counts.get("near duplicate", 0)
    if near:
        verbs = "looks like another picture and is" if near == 1 else "look like another picture and are"
        parts.append(f"{near} {verbs} kept.")
    if used < PICTURES_MIN:
        parts.append(f"That is too few: at least {PICTURES_MIN} usable pictures are needed.")
    return " ".join(parts)


def listed(counts: dict[str, int]) -> str:
    """`3 truncated, 1 empty`."""
    return ", ".join(f"{count} {kind}" for kind, count in Counter(counts).most_common())


def crop_figure(source: Source, diagnosis: Diagnosis, *, count: int = 24, cell_px: int = 160) -> Image.Image:
    """A contact sheet: whole pictures with the part that the crop cuts away dimmed, what loses most first.

    Args:
        count: how many pictures, spread evenly from those that lose most to those that lose least.
        cell_px: side of a cell.

    Returns:
        An RGB picture, six cells wide.

    Raises:
        DataError: no picture is usable, or the source cannot be read.
    """
    from PIL import Image

    config = diagnosis.config
    used = [file for file in diagnosis.files if file.used]
    if not used:
        raise DataError(f"{diagnosis.source}: no usable picture to show")
    used.sort(key=lambda file: _kept_share(file, config))
    step = max(1.0, len(used) / count)
    chosen = [used[int(i * step)] for i in range(min(count, len(used)))]
    cells = _cells(source, {(file.name, file.sha256) for file in chosen}, config, cell_px)
    columns, gap = min(6, len(chosen)), 8
    rows = -(-len(chosen) // columns)
    sheet = Image.new("RGB", (columns * (cell_px + gap) + gap, rows * (cell_px + gap) + gap), "white")
    for i, file in enumerate(chosen):
        cell = cells.get((file.name, file.sha256))
        if cell is None:
            raise changed(file.name)
        x, y = (gap + n * (cell_px + gap) for n in (i % columns, i // columns))
        sheet.paste(cell, (x + (cell_px - cell.width) // 2, y + (cell_px - cell.height) // 2))
    return sheet


def _kept_share(file: FileReport, config: DataConfig) -> float:
    left, top, right, bottom = kept_box(file.width_px, file.height_px, size=config.size, fit=config.fit)
    return (right - left) * (bottom - top) / (file.width_px * file.height_px)


def _cells(
    source: Source, wanted: set[tuple[str, str]], config: DataConfig, cell_px: int
) -> dict[tuple[str, str], Image.Image]:
    """(name, SHA-256) → cell. An archive may hold several files of one name: the content decides."""
    cells: dict[tuple[str, str], Image.Image] = {}
    names = {name for name, _ in wanted}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of what is already a finding
        for file in source.files():
            name = printable(file.name)
            if name not in names:
                continue
            with contextlib.suppress(Refused):
                data = file.read()
                key = (name, hashlib.sha256(data).hexdigest())
                if key in wanted:
                    cells[key] = _cell(data, config, cell_px)
    return cells


def _cell(data: bytes, config: DataConfig, cell_px: int) -> Image.Image:
    from PIL import Image, ImageDraw

    bright = _thumbnail(decode(data, at_least=(2 * cell_px, 2 * cell_px)), cell_px)
    box = kept_box(bright.width, bright.height, size=config.size, fit=config.fit)
    left, top = min(round(box[0]), bright.width - 1), min(round(box[1]), bright.height - 1)
    right, bottom = max(round(box[2]), left + 1), max(round(box[3]), top + 1)
    cell = Image.blend(bright, Image.new("RGB", bright.size, "white"), 0.7)
    cell.paste(bright.crop((left, top, right, bottom)), (left, top))
    ImageDraw.Draw(cell).rectangle((left, top, right - 1, bottom - 1), outline=(220, 60, 40))
    return cell


def _thumbnail(image: Image.Image, cell_px: int) -> Image.Image:
    """`image` as RGB on white, at most `cell_px` a side."""
    from PIL import Image

    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    scale = cell_px / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
