"""Pictures for the page: grids cut and laid out again, encoded within a number of bytes."""

from __future__ import annotations

import base64
import io
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from bonsaigan.config import read_bounded
from bonsaigan.data.prepare import to_rgb
from bonsaigan.plots import cut_grid, make_grid

PIXELS_MAX = 40_000_000
FILE_MAX_BYTES = 200 << 20
QUALITIES = (90, 75, 50)


def read_picture(path: Path) -> np.ndarray | None:
    """A PNG of a run as uint8 (H, W, 1, 3 or 4); None when it is missing, damaged or too large."""
    try:
        data = read_bounded(path, limit_bytes=FILE_MAX_BYTES)
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=("PNG",))
        with image:
            if image.width * image.height > PIXELS_MAX:
                return None
            mode = image.mode if image.mode in ("L", "RGBA") else "RGB"
            picture = np.asarray(image.convert(mode))
    except Exception:  # a damaged file makes Pillow raise nearly anything
        return None
    return picture[:, :, None] if picture.ndim == 2 else picture


def cells_of(
    grid: np.ndarray | None, *, height: int, width: int, columns: int, gap_px: int = 2
) -> list[np.ndarray]:
    """The pictures of a grid that `plots.make_grid` laid out; empty when it was laid out otherwise."""
    if grid is None or height < 1 or width < 1:
        return []
    cells = cut_grid(grid, height=height, width=width, columns=columns, gap_px=gap_px) or []
    for _ in range(columns - 1):  # the last row may have been filled up
        if cells and (cells[-1] == 255).all():
            cells.pop()
    return cells


def lay_out(pictures: list[np.ndarray], *, columns: int, gap_px: int = 2) -> np.ndarray:
    """Pictures uint8 (H, W, C) in rows; what lies between them is transparent, for light and dark pages.

    Returns:
        uint8 (H, W, 4). Transparent pictures are shown over white.
    """
    opaque = to_rgb(np.stack(pictures))
    solid = np.full((*opaque.shape[:3], 1), 255, np.uint8)
    grid = make_grid(np.concatenate((opaque, solid), axis=3), columns=columns, gap_px=gap_px)
    covered = make_grid(np.zeros_like(solid), columns=columns, gap_px=gap_px)
    grid[covered[:, :, 0] == 255] = 0
    return grid


def to_uri(picture: np.ndarray, *, limit_bytes: int, widest_px: int) -> str:
    """A `data:` address of a picture, uint8 (H, W, C), as WebP of at most so many bytes.

    Quality falls first, then size.
    """
    image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    if image.width > widest_px:
        image = image.resize((widest_px, max(1, round(image.height * widest_px / image.width))))
    while True:
        for quality in QUALITIES:
            file = io.BytesIO()
            image.save(file, format="WEBP", quality=quality, method=3)
            if file.tell() <= limit_bytes or image.width < 64:
                return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
        image = image.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)))


def sample_grids(folder: Path) -> list[tuple[int, Path]]:
    """The grids of a `samples` folder by training step, in order; no figures of other kinds."""
    found = [(int(path.stem), path) for path in folder.glob("*.png") if re.fullmatch(r"\d{1,12}", path.stem)]
    return sorted(found)
