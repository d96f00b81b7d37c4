"""Measures of generated pictures, one function each: features → statistics → number.

Every function takes features as `embedding.embed` gives them; `scores.py` brings them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bonsaigan.errors import ConfigError, DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bonsaigan.evaluation.embedding import Features

    Matrix = NDArray[np.float64]

NEIGHBOURS = 5
KID_SUBSETS, KID_SUBSET_MAX = 100, 1000
EQUAL_SHARE = 1e-6
"""Distances below this share of the rows' length are rounding."""


@dataclass(frozen=True, kw_only=True)
class Kid:
    """Kernel distance over random subsets; multiply by 1000 for the usual way of printing it."""

    mean: float
    """Mean over the subsets."""
    std: float
    """Standard deviation over the subsets."""
    subsets: int
    """How many subsets were drawn."""
    subset_size: int
    """Pictures of each side in a subset."""


# ---------------------------------------------------------------------------------------------------------
# Kernel distance: Bińkowski et al., "Demystifying MMD GANs" (ICLR 2018)


def kid(
    a: Features,
    b: Features,
    *,
    subsets: int = KID_SUBSETS,
    subset_size: int | None = None,
    seed: int = 0,
) -> Kid:
    """KID over random subsets; by default of half the smaller set, so that their spread means something.

    Args:
        a, b: float32 (N, D) and (M, D).
        subsets: how many subsets.
        subset_size: pictures of each side, at least 2 and smaller than both sets.
        seed: draws the subsets.

    Raises:
        ConfigError: `subset_size` is out of its limits.
    """
    smaller = min(len(a), len(b))
    size = min(smaller // 2, KID_SUBSET_MAX) if subset_size is None else subset_size
    if not 2 <= size < smaller:
        raise ConfigError(f"KID subset size {size}: must be from 2 to {smaller - 1}, below the smaller set")
    aa, ab, bb = polynomial_kernel(a, a), polynomial_kernel(a, b), polynomial_kernel(b, b)
    values = []
    for subset in range(subsets):
        rng = np.random.default_rng((seed, subset))
        i, j = rng.choice(len(a), size, replace=False), rng.choice(len(b), size, replace=False)
        values.append(_squared_mmd(aa[np.ix_(i, i)], ab[np.ix_(i, j)], bb[np.ix_(j, j)]))
    return Kid(mean=float(np.mean(values)), std=float(np.std(values)), subsets=subsets, subset_size=size)


def kid_full(a: Features, b: Features) -> float:
    """KID's unbiased estimate over all pairs of pictures: one number, no randomness.

    Args:
        a, b: float32 (N, D) and (M, D), N and M at least 2.
    """
    return _squared_mmd(polynomial_kernel(a, a), polynomial_kernel(a, b), polynomial_kernel(b, b))


def polynomial_kernel(a: Features, b: Features) -> Matrix:
    """(x·y / D + 1)³ between the rows of float32 (N, D) and (M, D); float64 (N, M)."""
    return (a.astype(np.float64) @ b.astype(np.float64).T / a.shape[1] + 1) ** 3


def _squared_mmd(aa: Matrix, ab: Matrix, bb: Matrix) -> float:
    # Gretton et al. (JMLR 2012), equation 3, for sets of any two sizes.
    return mean_off_diagonal(aa) + mean_off_diagonal(bb) - 2 * float(ab.mean())


def mean_off_diagonal(kernel: Matrix) -> float:
    """Mean of a square matrix without its diagonal."""
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))


# ---------------------------------------------------------------------------------------------------------
# Fréchet distance: Heusel et al. (NeurIPS 2017)


def frechet(a: Features, b: Features) -> float:
    """Fréchet distance between the Gaussians with the sets' means and covariances.

    With X the centred rows over √(N-1), a covariance is XᵀX, and tr √(S₁S₂) is the sum of the singular values
    of X₁X₂ᵀ. That is exact at any rank: no D × D matrix root, which loses its digits when N < D.

    Args:
        a, b: float32 (N, D) and (M, D), N and M at least 2.
    """
    mean_a, root_a = _mean_and_root(a)
    mean_b, root_b = _mean_and_root(b)
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    traces = np.square(root_a).sum() + np.square(root_b).sum()
    return max(float(np.square(mean_a - mean_b).sum() + traces - 2 * cross), 0.0)


def _mean_and_root(x: Features) -> tuple[Matrix, Matrix]:
    rows = x.astype(np.float64)
    mean = rows.mean(axis=0)
    root = (rows - mean) / np.sqrt(len(x) - 1)
    if len(x) > x.shape[1]:  # The triangular factor has the same XᵀX in D rows.
        root = np.asarray(np.linalg.qr(root, mode="r"))
    return mean, root


# ---------------------------------------------------------------------------------------------------------
# Neighbourhoods: precision and recall of Kynkäänniemi et al. (NeurIPS 2019), density and coverage of
# Naeem et al. (ICML 2020)


@dataclass(frozen=True, kw_only=True)
class Nearness:
    """Distances between generated and real pictures, and the radius of each picture's own neighbourhood."""

    between: Matrix
    """float64 (real, generated)."""
    real_radii: Matrix
    """float64 (real,): distance to the k-th nearest other real picture."""
    generated_radii: Matrix
    """float64 (generated,): the same among generated ones."""
    neighbours: int
    """k."""


def nearness(generated: Features, real: Features, *, neighbours: int = NEIGHBOURS) -> Nearness:
    """The statistics behind the four measures below; give as many generated as real pictures, more than k."""
    return Nearness(
        between=distances(real, generated),
        real_radii=_radii(real, neighbours),
        generated_radii=_radii(generated, neighbours),
        neighbours=neighbours,
    )


def precision(near: Nearness) -> float:
    """Share of generated pictures inside at least one real picture's neighbourhood."""
    return float((near.between < near.real_radii[:, None]).any(axis=0).mean())


def recall(near: Nearness) -> float:
    """Share of real pictures inside at least one generated picture's neighbourhood."""
    return float((near.between < near.generated_radii[None, :]).any(axis=1).mean())


def density(near: Nearness) -> float:
    """Mean number of real neighbourhoods around a generated picture, over k."""
    return float((near.between < near.real_radii[:, None]).sum(axis=0).mean() / near.neighbours)


def coverage(near: Nearness) -> float:
    """Share of real pictures whose nearest generated picture lies in their neighbourhood."""
    return float((near.between.min(axis=1) < near.real_radii).mean())


def distances(a: Features, b: Features) -> Matrix:
    """Euclidean distances between the rows of (N, D) and (M, D); float64 (N, M)."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    squared = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1)[None, :] - 2 * (x @ y.T)
    return np.sqrt(np.maximum(squared, 0))


def _radii(x: Features, neighbours: int) -> Matrix:
    own = distances(x, x)
    np.fill_diagonal(own, 0)
    return np.partition(own, neighbours, axis=1)[:, neighbours]


# ---------------------------------------------------------------------------------------------------------
# Diversity


def diversity(generated: Features, real: Features) -> float:
    """Mean distance between generated pictures over the mean distance between real ones.

    Raises:
        DataError: the real pictures are all the same.
    """
    return ratio(mean_distance(generated), mean_distance(real))


def mean_distance(x: Features) -> float:
    """Mean Euclidean distance over all pairs of rows of (N, D), N at least 2; 0 where none differs.

    Equal rows come out at some 1e-8 of their length, for their distance is the root of a difference.
    """
    mean = mean_off_diagonal(distances(x, x))
    length = float(np.linalg.norm(x.astype(np.float64), axis=1).mean())
    return mean if mean > EQUAL_SHARE * length else 0.0


def ratio(generated: float, real: float) -> float:
    """The quotient `diversity` is, from two mean distances; the same error."""
    if real <= 0:
        raise DataError("the real pictures are all the same: there is nothing to score against")
    return generated / real
