"""What the health of a run is read from: cheap numbers taken from pictures and weights.

No network takes part: 256 pictures of 64 px cost a few hundredths of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from bonsaigan.data.prepare import to_float, to_rgb, to_uint8
from bonsaigan.data.selection import PictureArray
from bonsaigan.evaluation.metrics import mean_distance, mean_off_diagonal
from bonsaigan.training.augment import augment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bonsaigan.evaluation.embedding import Pictures

    Matrix = NDArray[np.float64]

GRID_SIDE = 8
"""Squares a side that pictures become before their colours are measured: blur and noise are gone then."""
PHOTOS_MAX, COPIES, PHOTOS_MIN = 128, 4, 16
DISTANCE_MIN = 0.01
"""Squared distance from photographs to augmented ones under which nothing can be said of a leak."""
CONTRAST_FLOOR, CHROMA_FLOOR, CHANGE_FLOOR = 4.0, 3.0, 1.5
"""Levels of 255, added before a logarithm is taken: less than this is none."""


# ---------------------------------------------------------------------------------------------------------
# Collapse


def spread(pictures: Pictures) -> float:
    """Mean distance between two pictures' colours, in levels of 255.

    Args:
        pictures: uint8 (N, H, W, C), N at least 2, sides multiples of 8.
    """
    return mean_distance(_reduced(pictures).reshape(len(pictures), -1)) / (GRID_SIDE * 3**0.5)


# ---------------------------------------------------------------------------------------------------------
# Augmentation that leaks


@dataclass(frozen=True, kw_only=True)
class Leak:
    """How generated pictures lie to photographs and to augmented photographs."""

    share: float
    """How far on the way from the photographs to augmented ones they lie; 0 and 1 are the two ends."""
    likeness: float
    """Cosine between that way and theirs: 1 if nothing but the augmentation sets them apart."""


class LeakDetector:
    """Compares pictures with photographs and with augmented photographs, in what augmentations change.

    A distribution is its mean in the space of a Gaussian kernel (Gretton et al., "A Kernel Two-Sample Test",
    JMLR 2012). With r, a and g for photographs, augmented and generated pictures, share and likeness are
    <g - r, a - r> / |a - r|² and <g - r, a - r> / (|g - r| |a - r|), from unbiased means over pairs; a
    photograph is never paired with its own augmented copies.

    KID's features do not serve here: the augmentations move photographs by a KID x1000 of 1 to 15, and
    generated pictures are 15 to 400 away for other reasons (benchmarks/LOG.md).
    """

    def __init__(self, photos: PictureArray, names: Sequence[str], *, seed: int = 0):
        """
        Args:
            photos: uint8 (N, H, W, C); of many, 128 are drawn.
            names: the run's augmentations; those that cannot be told from photographs are left out.
            seed: draws photographs and augmentations.
        """
        self.sides: dict[str, _Sides] = {}
        signs = {name: SIGNS[name] for name in names if name in SIGNS}
        if not signs or len(photos) < PHOTOS_MIN:
            return
        rng = np.random.default_rng(seed)
        drawn = np.asarray(photos[np.sort(rng.permutation(len(photos))[:PHOTOS_MAX])])
        copies = _augmented(drawn, names, seed=seed)
        for name, sign in signs.items():
            sides = _Sides(sign(drawn), [sign(copy) for copy in copies])
            if sides.distance > DISTANCE_MIN:
                self.sides[name] = sides

    def leaks(self, generated: Pictures) -> dict[str, Leak]:
        """The leak by each augmentation that can be told, for uint8 (N, H, W, C), N at least 2."""
        return {name: sides.leak(SIGNS[name](generated)) for name, sides in self.sides.items()}


class _Sides:
    """Photographs and their augmented copies, described; what does not depend on generated pictures."""

    def __init__(self, photos: Matrix, copies: list[Matrix]):
        both = np.concatenate((photos, *copies))
        deviation = both.std(axis=0)
        self.mean, self.deviation = both.mean(axis=0), np.where(deviation > 1e-3, deviation, 1.0)
        self.photos = self._scaled(photos)
        self.augmented = self._scaled(np.concatenate(copies))
        same = np.eye(len(photos), dtype=bool)
        apart = ~np.tile(same, (len(copies), 1))
        self.within = mean_off_diagonal(_kernel(self.photos, self.photos))
        self.across = float(_kernel(self.augmented, self.photos)[apart].mean())
        within_augmented = _kernel(self.augmented, self.augmented)[np.tile(apart, (1, len(copies)))].mean()
        self.distance = float(within_augmented) + self.within - 2 * self.across

    def leak(self, generated: Matrix) -> Leak:
        scaled = self._scaled(generated)
        to_photos = float(_kernel(scaled, self.photos).mean())
        to_augmented = float(_kernel(scaled, self.augmented).mean())
        along = to_augmented - to_photos - self.across + self.within
        away = mean_off_diagonal(_kernel(scaled, scaled)) + self.within - 2 * to_photos
        share = along / self.distance
        # By Cauchy and Schwarz no squared distance is below along² / distance; an estimate may be.
        away = max(away, share * along)
        likeness = along / (away * self.distance) ** 0.5 if away > 0 else 0.0
        return Leak(share=share, likeness=likeness)

    def _scaled(self, values: Matrix) -> Matrix:
        return (values - self.mean) / self.deviation


def colours(pictures: Pictures) -> Matrix:
    """What `colour` changes: lightness, and the logarithms of contrast and of colourfulness.

    Args:
        pictures: uint8 (N, H, W, C), sides multiples of 8.

    Returns:
        float64 (N, 3).
    """
    small = _reduced(pictures).astype(np.float64)
    grey = small.mean(axis=3)
    chroma = np.abs(small - grey[..., None]).mean(axis=(1, 2, 3))
    contrast = grey.std(axis=(1, 2))
    lightness = grey.mean(axis=(1, 2))
    return np.stack((lightness, np.log(contrast + CONTRAST_FLOOR), np.log(chroma + CHROMA_FLOOR)), axis=1)


def borders(pictures: Pictures) -> Matrix:
    """What `translation` changes: a shifted picture repeats its outermost row or column.

    There the change from pixel to pixel across the border is small beside the change along it. The logarithm
    of their quotient is taken at all four borders, and of two that face each other the lower and the higher.

    Args:
        pictures: uint8 (N, H, W, C).

    Returns:
        float64 (N, 4).
    """
    grey = to_rgb(pictures).mean(axis=3, dtype=np.float32)
    values = []
    for image in (grey, grey.transpose(0, 2, 1)):
        depth = max(1, image.shape[1] // 32)
        one, other = _smear(image[:, : depth + 1]), _smear(image[:, -depth - 1 :])
        values += [np.minimum(one, other), np.maximum(one, other)]
    return np.stack(values, axis=1).astype(np.float64)


SIGNS: dict[str, Callable[[Pictures], Matrix]] = {"colour": colours, "translation": borders}
"""What tells an augmentation. A mirrored photograph is as good as a photograph: `flip` has none."""


def _smear(strip: NDArray[np.float32]) -> NDArray[np.float32]:
    across = np.abs(np.diff(strip, axis=1)).mean(axis=(1, 2))
    along = np.abs(np.diff(strip, axis=2)).mean(axis=(1, 2))
    return np.log((across + CHANGE_FLOOR) / (along + CHANGE_FLOOR))


def _augmented(photos: Pictures, names: Sequence[str], *, seed: int) -> list[Pictures]:
    images = to_float(photos)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return [to_uint8(augment(images, names).clamp(-1, 1)) for _ in range(COPIES)]


def _kernel(a: Matrix, b: Matrix) -> Matrix:
    squared = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None, :] - 2 * (a @ b.T)
    return np.exp(-squared / (2 * a.shape[1]))


def _reduced(pictures: Pictures) -> NDArray[np.float32]:
    rgb = to_rgb(pictures)
    count, height, width, _ = rgb.shape
    squares = rgb.reshape(count, GRID_SIDE, height // GRID_SIDE, GRID_SIDE, width // GRID_SIDE, 3)
    return squares.mean(axis=(2, 4), dtype=np.float32)


# ---------------------------------------------------------------------------------------------------------
# Values that are not finite


def all_finite(*modules: nn.Module) -> bool:
    """Whether every weight and running statistic is a finite number, none so large that its square is not."""
    tensors = [t for m in modules for t in (*m.parameters(), *m.buffers()) if t.is_floating_point()]
    # One pass without a copy. The largest value would allow for larger ones, and takes ten times as long.
    return bool(torch.stack(torch._foreach_norm(tensors)).isfinite().all())
