"""From an upright picture to the wanted size: crop, pad or squash, with antialiasing or as OpenCV does."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image

from bonsaigan.config import Fit, Size

Resample = Literal["antialias", "bilinear"]
"""`antialias`: every source pixel counts. `bilinear`: the four nearest do, as in OpenCV's INTER_LINEAR."""


def kept_box(width_px: int, height_px: int, *, size: Size, fit: Fit) -> tuple[float, float, float, float]:
    """The rectangle (left, top, right, bottom) of a picture, in its pixels, that `fit` keeps."""
    if fit != "crop":
        return 0.0, 0.0, float(width_px), float(height_px)
    scale = min(width_px / size.width_px, height_px / size.height_px)
    left = (width_px - scale * size.width_px) / 2
    top = (height_px - scale * size.height_px) / 2
    return max(left, 0.0), max(top, 0.0), min(width_px - left, width_px), min(height_px - top, height_px)


def fitted(image: Image.Image, *, size: Size, fit: Fit, resample: Resample) -> np.ndarray:
    """Bring an upright L, RGB or RGBA picture to `size`; uint8 (H, W, C)."""
    wanted = (size.width_px, size.height_px)
    if fit != "pad":
        box = kept_box(image.width, image.height, size=size, fit=fit)
        return as_array(_resized(image, wanted, box=box, resample=resample))
    scale = min(wanted[0] / image.width, wanted[1] / image.height)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = _resized(image, inner, box=(0, 0, *image.size), resample=resample)
    canvas = Image.new(small.mode, wanted, _edge_colour(as_array(small)))
    canvas.paste(small, ((wanted[0] - inner[0]) // 2, (wanted[1] - inner[1]) // 2))
    return as_array(canvas)


def _resized(
    image: Image.Image,
    wanted: tuple[int, int],
    *,
    box: tuple[float, float, float, float],
    resample: Resample,
) -> Image.Image:
    if resample == "antialias":
        # Pillow multiplies by alpha before and divides after, so hidden colours do not bleed in.
        return image.resize(wanted, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    source = image.convert("RGBa") if image.mode == "RGBA" else image
    values = np.rint(bilinear(as_array(source).astype(np.float32), wanted, box=box)).astype(np.uint8)
    small = Image.frombytes(source.mode, wanted, values.tobytes())
    return small.convert(image.mode)


def bilinear(
    values: np.ndarray, wanted: tuple[int, int], *, box: tuple[float, float, float, float]
) -> np.ndarray:
    """Resize by the four nearest pixels, without antialiasing: OpenCV's INTER_LINEAR with half-pixel centres.

    Args:
        values: float32 (H, W, C).
        wanted: (width, height) in pixels.
        box: (left, top, right, bottom) of the part to take.

    Returns:
        float32 (height, width, C), before rounding.
    """
    column, column_after, right_share = _neighbours(wanted[0], box[0], box[2], values.shape[1])
    row, row_after, lower_share = _neighbours(wanted[1], box[1], box[3], values.shape[0])
    right_share, lower_share = right_share[None, :, None], lower_share[:, None, None]
    upper, lower = values[row], values[row_after]
    upper = upper[:, column] * (1 - right_share) + upper[:, column_after] * right_share
    lower = lower[:, column] * (1 - right_share) + lower[:, column_after] * right_share
    return upper * (1 - lower_share) + lower * lower_share


def _neighbours(
    count: int, start: float, stop: float, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each wanted pixel along one axis: the pixel before, the one after, and the share of the latter."""
    at = start + (np.arange(count) + 0.5) * ((stop - start) / count) - 0.5
    at = np.clip(at, 0, length - 1)
    before = np.floor(at).astype(np.intp)
    return before, np.minimum(before + 1, length - 1), (at - before).astype(np.float32)


def _edge_colour(picture: np.ndarray) -> tuple[int, ...] | int:
    """Mean of the outermost pixels of (H, W, C), for a border that does not catch the eye; RGBA: clear."""
    if picture.shape[2] == 4:
        return 0, 0, 0, 0
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    mean = [int(value) for value in np.rint(edge.mean(axis=0))]
    return mean[0] if len(mean) == 1 else tuple(mean)


def as_array(image: Image.Image) -> np.ndarray:
    """uint8 (H, W, C) of a picture of any 8-bit mode."""
    values = np.asarray(image)
    return values[..., None] if values.ndim == 2 else values
