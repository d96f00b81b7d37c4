"""Arrays in, pictures and figures out."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def make_grid(pictures: np.ndarray, *, columns: int, gap_px: int = 2) -> np.ndarray:
    """Lay pictures out in rows, left to right.

    Args:
        pictures: uint8 (N, H, W, C).
        columns: pictures a row; a last row that is not full ends in white.
        gap_px: white (or transparent) pixels between pictures.

    Returns:
        uint8 (rows * (H + gap) - gap, columns * (W + gap) - gap, C).
    """
    count, height, width, channels = pictures.shape
    rows = -(-count // columns)
    grid = np.full(
        (rows * (height + gap_px) - gap_px, columns * (width + gap_px) - gap_px, channels), 255, np.uint8
    )
    for index, picture in enumerate(pictures):
        top, left = index // columns * (height + gap_px), index % columns * (width + gap_px)
        grid[top : top + height, left : left + width] = picture
    return grid


def save_grid(path: Path, pictures: np.ndarray, *, columns: int) -> None:
    """Write `make_grid`'s picture as a PNG, replaced atomically."""
    save_png(path, make_grid(pictures, columns=columns))


def save_png(path: Path, picture: np.ndarray) -> None:
    """Write one picture, uint8 (H, W, C), so that a reader never sees half of it."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".writing")
    with fresh.open("wb") as file:
        Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(file, format="PNG")
    fresh.replace(path)
