"""Pixel distance between pictures that forgives what a copy may change.

Pictures become small and blurred, 32 pixels a side; the middle of one is compared with the same-sized part of
the other at every small shift, at four zooms, mirrored and not, and the nearest counts. Brightness and
contrast are divided out. Shift, zoom, blur and the reduction are all linear, so a part is `rows @ picture @
columns` with fixed matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from bonsaigan.data.prepare import to_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bonsaigan.evaluation.embedding import Pictures

    Array = NDArray[np.float32]

SIDE_PX = 32
MARGIN_PX = 4
STRIDE_PX = 2
"""The blur leaves nothing that sampling every second pixel would miss; it quarters the work."""
SHIFTS_PX = tuple(0.75 * step for step in range(-4, 5))
"""Of 32 pixels: up to 6 pixels of a 64-pixel picture, in steps of 1.5."""
ZOOMS = (1 / 1.1, 1.0, 1.1, 1.21)
FLATNESS = 0.02
"""Standard deviation, of a range of 1, at which a picture counts half as flat: near to no other picture."""

FLAT, UNRELATED = 0.25, 2.0
"""Two pictures shorter than this once standardised (a standard deviation of 1.7 of 255) show nothing in which
they could be alike, so they count as unrelated: the squared distance at correlation 0."""


def pixel_distances(pictures: Pictures, others: Pictures) -> tuple[Array, NDArray[np.bool_]]:
    """Distance between every two pictures at their best alignment.

    Args:
        pictures: uint8 (N, H, W, C).
        others: uint8 (M, H, W, C); these are shifted, zoomed and mirrored.

    Returns:
        Distances, float32 (N, M), and whether the mirrored other is the nearer, bool (N, M). 0 is the same
        picture; 1.4 is what unrelated pictures have before alignment, at correlation 0.
    """
    middle = _sampling(zoom=1.0, shift=0.0)
    fixed = _standardise(middle @ reduce(pictures) @ middle.T)
    fixed_squared = np.square(fixed).sum(axis=1)[:, None]
    nearest = np.full((len(pictures), len(others)), np.inf, np.float32)
    mirrored = np.zeros(nearest.shape, np.bool_)
    flat = np.flatnonzero(fixed_squared < FLAT**2)
    for is_mirror, parts in _aligned_parts(reduce(others)):
        parts_squared = np.square(parts).sum(axis=1)
        squared = fixed_squared + parts_squared - 2 * (fixed @ parts.T)
        if len(flat):
            squared[np.ix_(flat, np.flatnonzero(parts_squared < FLAT**2))] = UNRELATED
        nearer = squared < nearest
        mirrored[nearer] = is_mirror
        np.minimum(nearest, squared, out=nearest)
    return np.sqrt(np.maximum(nearest, 0)), mirrored


def reduce(pictures: Pictures) -> Array:
    """uint8 (N, H, W, C) → float32 (N, 3, 32, 32) in [0, 1]: areas averaged, then blurred."""
    height, width = pictures.shape[1:3]
    blur = _blur()
    rows, columns = (blur @ blur @ _area(side) for side in (height, width))
    reduced = np.empty((len(pictures), 3, SIDE_PX, SIDE_PX), np.float32)
    for i in range(0, len(pictures), 256):
        images = to_rgb(pictures[i : i + 256]).transpose(0, 3, 1, 2).astype(np.float32) / 255
        reduced[i : i + 256] = rows @ images @ columns.T
    return reduced


def _aligned_parts(small: Array) -> Iterator[tuple[bool, Array]]:
    for is_mirror in (False, True):
        images = small[..., ::-1] if is_mirror else small
        for zoom in ZOOMS:
            for across in SHIFTS_PX:
                strips = images @ _sampling(zoom=zoom, shift=across).T
                for down in SHIFTS_PX:
                    yield is_mirror, _standardise(_sampling(zoom=zoom, shift=down) @ strips)


def _standardise(parts: Array) -> Array:
    """(N, 3, h, w) → (N, 3·h·w): each colour's mean removed, the whole brought to unit length."""
    vectors = (parts - parts.mean(axis=(2, 3), keepdims=True)).reshape(len(parts), -1)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / (length + FLATNESS * vectors.shape[1] ** 0.5)


def _sampling(*, zoom: float, shift: float) -> Array:
    """Matrix that takes the middle of a side of 32 pixels, linearly interpolated."""
    half = SIDE_PX // 2 - MARGIN_PX
    places = np.arange(-half + STRIDE_PX / 2, half, STRIDE_PX) / zoom + shift + (SIDE_PX - 1) / 2
    places = np.clip(places, 0, SIDE_PX - 1)
    weights = 1 - np.abs(places[:, None] - np.arange(SIDE_PX)[None, :])
    return np.maximum(weights, 0).astype(np.float32)


def _area(side: int) -> Array:
    """Matrix that averages a side of `side` pixels to 32 by the area each covers."""
    edges = np.arange(SIDE_PX + 1) * side / SIDE_PX
    pixels = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.maximum(overlap, 0) * SIDE_PX / side).astype(np.float32)


def _blur() -> Array:
    """Matrix of the filter 1/4, 1/2, 1/4 along a side of 32, its ends repeated."""
    padded = np.eye(SIDE_PX, dtype=np.float32)[[0, *range(SIDE_PX), -1]]
    return (padded[:-2] / 4 + padded[1:-1] / 2 + padded[2:] / 4).astype(np.float32)
