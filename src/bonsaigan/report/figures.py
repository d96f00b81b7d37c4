"""The page's pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bonsaigan import runs
from bonsaigan.appraise import PAIR_COLUMNS, PAIR_GAP_PX
from bonsaigan.errors import RunError
from bonsaigan.report import facts as read
from bonsaigan.report.charts import evenly
from bonsaigan.report.facts import Facts
from bonsaigan.report.images import cells_of, lay_out, read_picture, sample_grids, to_uri
from bonsaigan.report.words import count, span

COLUMNS, GRID_COUNT = 8, 64
LAPSE_COLUMNS, LAPSE_ROWS, FRAMES_MAX = 6, 4, 30
PAIRS_MIN, PAIRS_MAX = 8, 16
GRID_BYTES, REALS_BYTES, FRAME_BYTES, PAIR_BYTES = 640_000, 400_000, 50_000, 24_000
"""Limits that keep the whole page below 4 MB; base64 adds a third."""
GRID_PX, FRAME_PX, PAIR_PX = 1600, 640, 400


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture of the page."""

    uri: str
    """A `data:` address."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    caption: str
    """What it shows."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A moment of the time-lapse."""

    uri: str
    """A `data:` address."""
    label: str
    """When it was."""
    at: float
    """Share of the time of training, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A new picture beside the training picture it is nearest to."""

    uri: str
    """A `data:` address of both."""
    seed: str
    """Of the new picture."""
    real: str
    """Name of the training picture; empty when it is not known."""
    mirrored: bool
    """Whether the training picture is shown mirrored."""
    closeness: str
    """Below 1 looks like a copy."""
    flagged: bool
    """Whether it does."""


def trained_grid(facts: Facts) -> Figure | None:
    """Seeds 0 to 63 of the best generator; without one, the latest grid of samples."""
    from bonsaigan.generator import load

    try:
        generator = load(facts.folder)
    except RunError:
        return _latest_samples(facts)
    pictures = generator.images(generator.latents(range(GRID_COUNT)))
    step = generator.spec.step
    moment = f", as they were at step {count(step)}" if step else ""
    return _figure(
        list(pictures),
        f"Seeds 0 to {GRID_COUNT - 1}, row by row{moment}. Nothing was picked out.",
        limit_bytes=GRID_BYTES,
    )


def real_grid(facts: Facts) -> Figure | None:
    """Some of the pictures trained on."""
    cells = cells_of(read_picture(facts.folder / runs.REALS_FILE), **_size(facts), columns=COLUMNS)
    if not cells:
        return None
    total = read.number(facts.data, "counts", "train")
    of_all = f" of the {count(total)}" if total and total > len(cells) else ""
    return _figure(cells, f"{len(cells)}{of_all} pictures it was trained on.", limit_bytes=REALS_BYTES)


def time_lapse(facts: Facts) -> list[Frame]:
    """The same few latents through training."""
    grids = _grids(facts)
    total = facts.last.train_sec if facts.last is not None else 0.0
    frames = []
    for place in evenly(len(grids), FRAMES_MAX):
        step, path = grids[place]
        cells = cells_of(read_picture(path), **_size(facts), columns=COLUMNS)
        shown = [
            cells[row * COLUMNS + column]
            for row in range(LAPSE_ROWS)
            for column in range(LAPSE_COLUMNS)
            if row * COLUMNS + column < len(cells)
        ]
        if len(shown) < LAPSE_ROWS * LAPSE_COLUMNS:
            continue
        picture = lay_out(shown, columns=LAPSE_COLUMNS, gap_px=_gap(shown[0]))
        sec = facts.seconds_at(step)
        label = f"step {count(step)}" + (f", {span(sec)}" if sec is not None else "")
        at = min(1.0, sec / total) if sec is not None and total else 0.0
        uri = to_uri(picture, limit_bytes=FRAME_BYTES, widest_px=FRAME_PX)
        frames.append(Frame(uri=uri, label=label, at=round(at, 4)))
    return frames


def closest_pairs(facts: Facts) -> list[Pair]:
    """The pairs of `closest.png`, apart and with their names."""
    size, entries = _size(facts), read.items(facts.metrics, "copies", "closest")
    cells = cells_of(
        read_picture(facts.folder / runs.CLOSEST_FILE),
        height=size["height"],
        width=2 * size["width"] + 2,
        columns=PAIR_COLUMNS,
        gap_px=PAIR_GAP_PX,
    )
    trained = [f for f in read.items(facts.data, "files") if read.mapping(f).get("holdout") is not True]
    flagged = sum(read.mapping(entry).get("flagged") is True for entry in entries)
    pairs = []
    for entry, cell in list(zip(entries, cells))[: min(max(flagged, PAIRS_MIN), PAIRS_MAX)]:
        closeness, place = read.number(entry, "closeness"), read.integer(entry, "training")
        seed = read.integer(entry, "seed")
        known = place is not None and 0 <= place < len(trained)
        halves = [cell[:, : size["width"]], cell[:, size["width"] + 2 :]]
        picture = lay_out(halves, columns=2, gap_px=2)
        pairs.append(
            Pair(
                uri=to_uri(picture, limit_bytes=PAIR_BYTES, widest_px=PAIR_PX),
                seed="" if seed is None else str(seed),
                real=read.text(trained[place], "name") if known and place is not None else "",
                mirrored=read.mapping(entry).get("mirrored") is True,
                closeness="" if closeness is None else f"{closeness:.2f}",
                flagged=read.mapping(entry).get("flagged") is True,
            )
        )
    return pairs


def _latest_samples(facts: Facts) -> Figure | None:
    for step, path in reversed(_grids(facts)):
        cells = cells_of(read_picture(path), **_size(facts), columns=COLUMNS)
        if cells:
            return _figure(cells, f"New pictures at step {count(step)}.", limit_bytes=GRID_BYTES)
    return None


def _grids(facts: Facts) -> list[tuple[int, Path]]:
    """The grids of samples, but for those of steps that a crash undid."""
    grids = sample_grids(facts.folder / runs.SAMPLES_DIR)
    return [(step, path) for step, path in grids if facts.last is None or step <= facts.last.step]


def _figure(pictures: list[np.ndarray], caption: str, *, limit_bytes: int) -> Figure:
    grid = lay_out(pictures, columns=COLUMNS, gap_px=_gap(pictures[0]))
    uri = to_uri(grid, limit_bytes=limit_bytes, widest_px=GRID_PX)
    return Figure(uri=uri, width=grid.shape[1], height=grid.shape[0], caption=caption)


def _gap(picture: np.ndarray) -> int:
    return max(1, picture.shape[1] // 32)


def _size(facts: Facts) -> dict[str, int]:
    size = read.mapping(facts.config, "data", "size") or read.mapping(facts.spec, "size")
    sides = {name: read.number(size, f"{name}_px") for name in ("height", "width")}
    return {name: int(side) if side is not None and 0 < side < 10_000 else 0 for name, side in sides.items()}
