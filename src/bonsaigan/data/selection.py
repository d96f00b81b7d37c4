"""Some pictures of a set that need not fit into memory."""

from __future__ import annotations

from typing import Any

import numpy as np


class Selection:
    """Pictures of a memory-mapped array, in an order of their own; read when they are asked for.

    It is indexed like an array's first axis: a number, a slice, or an array of places.
    """

    def __init__(self, pictures: np.ndarray, index: np.ndarray):
        """
        Args:
            pictures: uint8 (N, H, W, C).
            index: int64 (M,), places in it.
        """
        self._pictures, self._index = pictures, index
        self.shape = (len(index), *pictures.shape[1:])
        self.dtype, self.ndim = pictures.dtype, pictures.ndim

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, which: Any) -> np.ndarray:
        """uint8 (K, H, W, C), or (H, W, C) for one number."""
        return self._pictures[self._index[which]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of it in memory."""
        if copy is False:
            raise ValueError("a selection has no array of its own: it is copied")
        return np.asarray(self[:], dtype=dtype)


PictureArray = np.ndarray | Selection
"""uint8 (N, H, W, C), in memory or not."""


def spread_places(count: int, most: int) -> np.ndarray:
    """int64 places, ascending: all of so many pictures, or `most` of them, evenly spread."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)


def spread_out(pictures: PictureArray, most: int) -> np.ndarray:
    """At most so many pictures, evenly spread over the set, in memory: the same ones every time."""
    return np.asarray(pictures[spread_places(len(pictures), most)])
