"""How a drawn bonsai grows: trunk, branches, pads, twigs and leaves, all as arrays of points.

The world's unit is about the height of a tree; x goes right, y up from the soil, z towards the viewer. A limb
is a path of M places with M radii; limbs of one kind share M, so that they are made and drawn together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bonsaigan.data.bonsai_parts import LEAF_SIZES, LEAF_TURNS, Array, unit
from bonsaigan.data.bonsai_species import Look, Species, Style

TAU = 2.0 * np.pi
TRUNK, BRANCHES, ROOTS, TWIGS = 0, 1, 2, 3
"""Places in `Tree.limbs`; twigs take three, each growing on the one before."""
LEAVES_MOST = 5000
CLUMPS, RACEMES = 7, 12
"""Tufts of leaves, and hanging strands of flowers, in a pad."""


@dataclass(frozen=True, kw_only=True)
class Limbs:
    """N limbs of one kind."""

    path: Array
    """(N, M, 3) places from the root of each limb to its tip."""
    radius: Array
    """(N, M) radius at those places."""


@dataclass(frozen=True, kw_only=True)
class Leaves:
    """K leaves and flowers."""

    at: Array
    """(K, 3) places."""
    normal: Array
    """(K, 3) unit vectors out of the foliage."""
    size: Array
    """(K,) index into `LEAF_SIZES`."""
    turn: Array
    """(K,) direction of the stamp, 0 to `LEAF_TURNS` - 1."""
    bloom: Array
    """(K,) whether it is a flower."""
    tone: Array
    """(K,) added to its brightness."""


@dataclass(frozen=True, kw_only=True)
class Tree:
    """All that stands in the pot."""

    limbs: tuple[Limbs, ...]
    """Trunks, branches, roots, and three generations of twigs."""
    pads: Array
    """(P, 3) middles of the pads."""
    reach: Array
    """(P, 3) half axes of the pads."""
    leaves: Leaves
    """None on a bare tree."""


def grow(rng: np.random.Generator, style: Style, species: Species, look: Look) -> Tree:
    """Grow one, two or several trees in this style."""
    side = rng.choice([-1.0, 1.0])
    count = style.trunks if style.trunks < 3 else int(rng.integers(3, style.trunks + 1))
    trunks, branches, pads, reach = [], [], [], []
    for k in range(count):
        size = 1.0 if k == 0 else rng.uniform(0.52, 0.86)
        base = _place(rng, k, count)
        lean = side if base[0] * side >= 0 else -side
        trunk = _trunk(rng, style, base, size, lean)
        limbs, middles, axes = _branches(rng, style, species, trunk, size, lean)
        trunks.append(trunk)
        branches.append(limbs)
        pads.append(middles)
        reach.append(axes)
    trunk, branch = _together(trunks), _together(branches)
    middles, axes = np.concatenate(pads), np.concatenate(reach)
    return Tree(
        limbs=(trunk, branch, _roots(rng, trunk), *_twigs(rng, branch, middles, axes)),
        pads=middles,
        reach=axes,
        leaves=_leaves(rng, middles, axes, species, look),
    )


def _place(rng: np.random.Generator, k: int, count: int) -> Array:
    """Where trunk `k` of `count` stands: the first in the middle, the others to both sides."""
    z = rng.uniform(-0.1, 0.1) * (k > 0)
    if count < 3:
        return np.array([0.13 * k - 0.05 * (count - 1), 0.0, z])
    return np.array([(-1) ** k * ((k + 1) // 2) * 0.17 + rng.uniform(-0.03, 0.03), 0.0, z])


def _trunk(rng: np.random.Generator, style: Style, base: Array, size: float, side: float) -> Limbs:
    """One path of 40 places: the heading is given along the trunk, the places are its sum."""
    t = np.linspace(0.0, 1.0, 40)
    knots = np.array(style.heading, np.float64)
    waves, phase, strength = rng.uniform(1.0, 1.7), rng.uniform(-0.08, 0.2), rng.uniform(0.75, 1.2)
    heading = np.interp(t, knots[:, 0], knots[:, 1]) * rng.uniform(0.85, 1.1)
    heading = heading + strength * style.wiggle * np.sin(TAU * (waves * t + phase)) * (1.05 - 0.5 * t)
    step = style.length * size * rng.uniform(0.9, 1.1) / 39.0
    path = np.zeros((1, 40, 3))
    path[0, 1:, 0] = np.cumsum(np.sin(heading[1:])) * step * side
    path[0, 1:, 1] = np.cumsum(np.cos(heading[1:])) * step
    path[0, :, 2] = 0.05 * np.sin(TAU * (rng.uniform(0.5, 1.0) * t + rng.random())) * t
    taper = 0.14 + 0.86 * (1.0 - t) ** (0.35 if style.crown == "fan" else 0.9)
    flare = 1.0 + 0.9 * np.exp(-np.maximum(path[:, :, 1], 0.0) / 0.045) * (t < 0.3)
    girth = style.girth * size**0.8 * rng.uniform(0.85, 1.25)
    return Limbs(path=path + base, radius=girth * taper * flare)


def _branches(
    rng: np.random.Generator, style: Style, species: Species, trunk: Limbs, size: float, side: float
) -> tuple[Limbs, Array, Array]:
    """The branches of one trunk, and the middles (P, 3) and half axes (P, 3) of its pads."""
    n = style.branches
    t = style.first + (0.97 - style.first) * (np.arange(n) + rng.uniform(-0.25, 0.25, n)) / n
    share = (t - style.first) / (1.0 - style.first)
    length = style.spread * size * rng.uniform(0.78, 1.12, n) * _crown(style.crown, share)
    out = _directions(rng, style, species, side) * length[:, None]
    start = _along(trunk.path[0], t * 39.0)
    bend = start + out * 0.5 + _up(rng.uniform(-0.1, 0.14, n) * length)
    path = _bow(start, bend, start + out, 12)
    root = np.minimum(_along(trunk.radius.T, t * 39.0)[:, 0] * 0.55, 0.006 + 0.05 * length)
    wide = (0.42 * length + 0.045 * size) * rng.uniform(0.85, 1.15, n)
    if style.crown == "wind":
        wide *= 0.74
    reach = np.stack([wide, wide * species.flat * rng.uniform(0.85, 1.2, n), wide * 0.85], axis=-1)
    outer = start + out + _up(reach[:, 1] * 0.35)
    inner = path[:, 6] + _up(reach[:, 1] * 0.25)
    inner[:, 2] += rng.uniform(-0.6, 0.6, n) * wide
    room = length > 0.22 * size
    top = size * (0.2 if style.crown == "fan" else 0.15) * (0.8 if style.trunks > 2 else 1.0)
    crown = np.array([[top, top * max(species.flat, 0.55), top]])
    pads = np.concatenate([outer, inner[room], trunk.path[0, -1:] + _up(crown[:, 1] * 0.2)])
    limbs = Limbs(path=path, radius=root[:, None] * np.linspace(1.0, 0.3, 12))
    return limbs, pads, np.concatenate([reach, reach[room] * 0.8, crown])


def _directions(rng: np.random.Generator, style: Style, species: Species, side: float) -> Array:
    """Where branches point (N, 3): left and right in turn, every fourth to the front or the back."""
    n = style.branches
    if style.crown == "wind":
        return np.stack(
            [side * rng.uniform(0.6, 1.15, n), rng.uniform(0.0, 0.2, n), rng.uniform(-0.4, 0.4, n)], axis=-1
        )
    k = np.arange(n)
    turn = np.where((k + (side > 0)) % 2 == 0, 0.0, np.pi) + rng.uniform(-0.5, 0.5, n)
    turn = np.where(k % 4 == 2, rng.choice([-1.0, 1.0], n) * np.pi / 2 + rng.uniform(-0.4, 0.4, n), turn)
    if style.crown == "fan":
        rise = np.pi / 2 - np.linspace(1.15, 0.1, n) * rng.uniform(0.85, 1.1, n)
    else:
        rise = rng.uniform(-0.05, 0.2, n) if species.flat < 0.5 else rng.uniform(0.1, 0.5, n)
    return np.stack([np.cos(turn) * np.cos(rise), np.sin(rise), 0.8 * np.sin(turn) * np.cos(rise)], axis=-1)


def _crown(kind: str, share: Array) -> Array:
    """Length of branches from the bottom of the crown (`share` 0) to its top (1), against the longest."""
    match kind:
        case "cone":
            return 0.30 + 0.70 * (1.0 - share) ** 0.9
        case "dome":
            return 0.35 + 0.65 * np.sqrt(1.0 - np.square(share))
        case "even":
            return 0.85 - 0.25 * share
        case "wind":
            return 0.9 - 0.4 * share
        case _:
            return np.full_like(share, 0.95)


def _roots(rng: np.random.Generator, trunk: Limbs) -> Limbs:
    """The nebari: seven roots on the soil about each trunk."""
    base, girth = trunk.path[:, :1], trunk.radius[:, :1]
    turn = (np.arange(7) + rng.uniform(-0.35, 0.35, (len(base), 7))) / 7 * TAU
    out = np.stack([np.cos(turn), 0 * turn, np.sin(turn)], axis=-1) * girth[..., None]
    start = (base + out * 0.35 + [0.0, 0.03, 0.0]).reshape(-1, 3)
    end = (base + out * rng.uniform(1.25, 1.95, (len(base), 7, 1)) - [0.0, 0.012, 0.0]).reshape(-1, 3)
    path = _bow(start, start * 0.4 + end * 0.6, end, 6)
    return Limbs(path=path, radius=np.repeat(girth, 7, axis=0) * np.linspace(0.4, 0.1, 6))


def _twigs(rng: np.random.Generator, branch: Limbs, pads: Array, reach: Array) -> list[Limbs]:
    """Three generations: five twigs from the nearest branch into each pad, then forks of forks."""
    ways = branch.path[:, 4:].reshape(-1, 3)
    near = np.square(pads[:, None] - ways).sum(-1).argmin(1)
    start, middle, axes = (np.repeat(a, 5, axis=0) for a in (ways[near], pads, reach))
    onward, found = np.zeros_like(start), []
    for children, width, stride, wild in ((3, 0.008, 0.0, 0.0), (2, 0.0048, 0.6, 0.5), (1, 0.003, 0.36, 0.6)):
        aim = _ball(rng, len(start))
        aim[:, 1] = np.abs(aim[:, 1]) * 0.9
        target = middle + axes * aim * 0.75
        if stride:
            aim = onward + aim * wild + [0.0, 0.2, 0.0]
            target = start + aim * axes[:, :1] * stride * rng.uniform(0.7, 1.2, (len(start), 1))
        path = _bow(start, (start + target) / 2 + rng.uniform(-0.02, 0.03, start.shape), target, 6)
        radius = width * np.sqrt(axes[:, :1] / 0.22) * np.linspace(1.0, 0.6, 6)
        found.append(Limbs(path=path, radius=radius))
        fork = rng.integers(2, 6, (len(path), children))
        onward = np.repeat(unit(target - start), children, axis=0)
        start = path[np.arange(len(path))[:, None], fork].reshape(-1, 3)
        middle, axes = np.repeat(middle, children, axis=0), np.repeat(axes, children, axis=0)
    return found


def _leaves(rng: np.random.Generator, pads: Array, reach: Array, species: Species, look: Look) -> Leaves:
    """Fill the pads; every pad is a heap of round clumps, flat below, with its leaves near their surfaces."""
    area = reach[:, 0] * (reach[:, 1] + 0.5 * reach[:, 2])
    count = int(min(LEAVES_MOST, 5.3 * area.sum() / species.leaf_size**2) * look.leaves)
    pad = np.searchsorted(np.cumsum(area) / area.sum(), rng.random(count)).clip(max=len(area) - 1)
    clump = rng.integers(CLUMPS, size=count)
    heart = _ball(rng, len(area) * CLUMPS).reshape(-1, CLUMPS, 3) * 0.62
    out = _ball(rng, count)
    local = heart[pad, clump] + out * rng.uniform(0.30, 0.52, (count, 1))
    local[:, 1] *= np.where(local[:, 1] < 0, 0.45, 1.0)
    normal = unit(0.5 * out + 0.95 * local + rng.normal(0.0, 0.14, (count, 3)))
    at = pads[pad] + local * reach[pad]
    patchy = min(look.blooming, 1.0 - look.blooming) * rng.uniform(-1.0, 1.0, (len(area), CLUMPS))
    bloom = rng.random(count) < look.blooming + patchy[pad, clump]
    if species.hang:
        at = np.where(bloom[:, None], _racemes(rng, pads, reach, pad, species.hang), at)
    tone = rng.normal(0.0, 0.06, count) - 0.22 * np.clip(0.1 - local[:, 1], 0.0, 0.5)
    size, turn = rng.integers(len(LEAF_SIZES), size=count), rng.integers(LEAF_TURNS, size=count)
    seen = normal[:, 2] > -0.3  # the others are behind their clump
    return Leaves(
        at=at[seen], normal=normal[seen], size=size[seen], turn=turn[seen], bloom=bloom[seen], tone=tone[seen]
    )


def _racemes(rng: np.random.Generator, pads: Array, reach: Array, pad: Array, length: float) -> Array:
    """Places (K, 3) on strands that hang from the pads, thick above and pointed below."""
    anchor = _ball(rng, len(pads) * RACEMES).reshape(-1, RACEMES, 3) * [0.95, 0.3, 0.95]
    down, strand = rng.random(len(pad)) ** 1.3, rng.integers(RACEMES, size=len(pad))
    at = pads[pad] + anchor[pad, strand] * reach[pad]
    at += _ball(rng, len(pad)) * (0.042 * (1.0 - down) + 0.006)[:, None]
    return at - _up(down * length * (0.6 + 0.05 * strand))


def _together(limbs: list[Limbs]) -> Limbs:
    return Limbs(
        path=np.concatenate([each.path for each in limbs]),
        radius=np.concatenate([each.radius for each in limbs]),
    )


def _up(height: Array) -> Array:
    """Vectors (N, 3) straight up."""
    return np.stack([0 * height, height, 0 * height], axis=-1)


def _along(values: Array, place: Array) -> Array:
    """Values (M, K) at fractional indices `place` (N,)."""
    i = np.clip(place.astype(np.int64), 0, len(values) - 2)
    share = (place - i)[:, None]
    return values[i] * (1.0 - share) + values[i + 1] * share


def _bow(start: Array, bend: Array, end: Array, count: int) -> Array:
    """Quadratic Bézier curves (N, count, 3) from control points (N, 3)."""
    t = np.linspace(0.0, 1.0, count)[None, :, None]
    return start[:, None] * (1 - t) ** 2 + bend[:, None] * 2 * t * (1 - t) + end[:, None] * t**2


def _ball(rng: np.random.Generator, count: int) -> Array:
    """Random unit vectors (count, 3)."""
    return unit(rng.normal(0.0, 1.0, (count, 3)))
