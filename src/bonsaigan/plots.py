"""Arrays in, pictures out."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from bonsaigan.durable import fresh_name, open_new


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


def cut_grid(
    grid: np.ndarray, *, height: int, width: int, columns: int, gap_px: int = 2
) -> list[np.ndarray] | None:
    """The places of a grid that `make_grid` laid out, those left empty included.

    Returns:
        Views of the grid, (height, width, C) each; None when it was laid out in another way.
    """
    rows, left_over = divmod(grid.shape[0] + gap_px, height + gap_px)
    if left_over or grid.shape[1] != columns * (width + gap_px) - gap_px:
        return None
    corners = [(r * (height + gap_px), c * (width + gap_px)) for r in range(rows) for c in range(columns)]
    return [grid[top : top + height, left : left + width] for top, left in corners]


def pair_up(left: np.ndarray, right: np.ndarray, *, gap_px: int = 2) -> np.ndarray:
    """Pairs as pictures of their own: two uint8 (N, H, W, C) → uint8 (N, H, 2W + gap, C)."""
    between = np.full((*left.shape[:2], gap_px, left.shape[3]), 255, np.uint8)
    return np.concatenate((left, between, right), axis=2)


def save_grid(path: Path, pictures: np.ndarray, *, columns: int, gap_px: int = 2) -> None:
    """Write `make_grid`'s picture as a PNG, replaced atomically."""
    save_png(path, make_grid(pictures, columns=columns, gap_px=gap_px))


def save_png(path: Path, picture: np.ndarray) -> None:
    """Write one picture, uint8 (H, W, C), so that a reader never sees half of it."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = fresh_name(path)
    try:
        with open_new(fresh) as file:
            Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(file, format="PNG")
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
