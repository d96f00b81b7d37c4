"""A run's grids of samples → a film of how it learnt: the same latent vectors, drawn again and again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from bonsaigan import runs
from bonsaigan.errors import RunError
from bonsaigan.evaluation.embedding import to_rgb
from bonsaigan.report.images import read_picture, sample_grids

FADE_FRAMES = 6
"""Frames in which a moment becomes the next."""


def timelapse(folder: Path, *, seconds: float, fps: float) -> np.ndarray:
    """Frames of a run's training, from its first grid of samples to its last.

    Args:
        folder: the run.
        seconds: length of the film; every grid is shown equally long, the last one twice.
        fps: frames a second.

    Returns:
        uint8 (N, H, W, 3).

    Raises:
        RunError: the run kept no grids.
    """
    grids = [
        p for _, path in sample_grids(folder / runs.SAMPLES_DIR) if (p := read_picture(path)) is not None
    ]
    # The last size counts: whatever else lies there is no moment of this run.
    shown = [to_rgb(p[None])[0] for p in grids if p.shape == grids[-1].shape]
    if not shown:
        raise RunError(f"{folder / runs.SAMPLES_DIR}: no grids there to make a film of")
    each = max(1, round(seconds * fps / (len(shown) + 1)))
    fade = min(FADE_FRAMES, each // 2)
    frames: list[np.ndarray] = []
    for now, then in zip(shown, [*shown[1:], shown[-1]]):
        frames += [now] * (each - fade)
        frames += [_between(now, then, (n + 1) / (fade + 1)) for n in range(fade)]
    return np.stack([*frames, *[shown[-1]] * each])


def _between(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    return np.asarray(Image.blend(Image.fromarray(a), Image.fromarray(b), share))
