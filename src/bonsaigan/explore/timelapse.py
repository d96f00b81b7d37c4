"""A run's grids of samples → a film of how it learnt: the same latent vectors, drawn again and again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bonsaigan import runs
from bonsaigan.data.prepare import to_rgb
from bonsaigan.errors import RunError
from bonsaigan.report.images import read_picture, sample_grids

FADE_FRAMES = 6
"""Frames in which a moment becomes the next, at most; half of a moment's time where that is shorter."""


class Timelapse:
    """Frames of a run's training, uint8 (H, W, 3) each; read while they are walked through, two at a time."""

    def __init__(self, grids: Sequence[Path], count: int):
        self.grids, self.count = grids, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[np.ndarray]:
        if self.count < len(self.grids):  # some of them, the first and the last included
            places = np.linspace(0, len(self.grids) - 1, self.count).round().tolist()
        else:
            places = [n * len(self.grids) / self.count for n in range(self.count)]
        fade = min(0.5, FADE_FRAMES * len(self.grids) / self.count)
        now, pair = -1, (Image.new("RGB", (1, 1)),) * 2
        for place in places:
            if int(place) != now:
                now = int(place)
                pair = _read(self.grids[now]), _read(self.grids[min(now + 1, len(self.grids) - 1)])
            share = max(0.0, (place - now - 1 + fade) / fade)
            before, after = pair
            yield np.asarray(Image.blend(before, after, share))


def timelapse(folder: Path, *, seconds: float, fps: float) -> Timelapse:
    """A run's training, from its first grid of samples to its last.

    Args:
        folder: the run.
        seconds: length of the film; every grid is shown equally long, or some are left out evenly where
            there are more than frames.
        fps: frames a second.

    Raises:
        RunError: the run kept no grids.
    """
    grids = [
        (path, picture.shape)
        for _, path in sample_grids(folder / runs.SAMPLES_DIR)
        if (picture := read_picture(path)) is not None
    ]
    if not grids:
        raise RunError(f"{folder / runs.SAMPLES_DIR}: no grids there to make a film of")
    # The last size counts: whatever else lies there is no moment of this run.
    shown = [path for path, shape in grids if shape == grids[-1][1]]
    return Timelapse(shown, max(round(seconds * fps), 2))


def _read(path: Path) -> Image.Image:
    picture = read_picture(path)
    if picture is None:
        raise RunError(f"{path}: it changed while the film was made")
    return Image.fromarray(to_rgb(picture[None])[0])
