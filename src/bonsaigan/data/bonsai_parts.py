"""How the drawn bonsai become pixels: points in space, stamped back to front on a canvas.

Everything solid is a cloud of points with a place, a normal and a colour: limbs are tubes of points, the pot
is a surface of points, a leaf is one point with a stamp in the shape of a leaf. The view is orthographic and
looks down a little, so that a rim is an ellipse. Units of the world: a tree is about 1 high, x goes right,
y up, z towards the viewer; after `view`, y is up the picture and z is nearness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Ramp = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]
"""Colours of a material in shadow, in half light and in full light."""

LEAF_TURNS = 16
"""Directions a leaf may have."""
LEAF_SIZES = (0.75, 1.0, 1.25)
"""Sizes of leaves, against the usual one of their species."""
SECOND = 0.82
"""Brightness of the second colour of a stamp, against the first."""


@dataclass(frozen=True, kw_only=True)
class Light:
    """One soft lamp and the sky."""

    direction: Array
    """Unit vector towards the lamp, in view space."""
    ambient: float
    """Brightness of what the lamp does not reach, 0 to 1."""

    def on(self, normals: Array, shadow: Array | float = 1.0) -> Array:
        """Brightness 0 to 1 of surfaces with these unit `normals` (N, 3)."""
        lamp = np.clip(dot(normals, self.direction) * 0.75 + 0.25, 0.0, 1.0) * shadow
        sky = 0.5 + 0.5 * normals[:, 1]
        return np.clip(self.ambient * sky + (1.0 - self.ambient) * lamp, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Tubes:
    """Points on the near side of limbs, in view space."""

    at: Array
    """(K, 3) places."""
    normal: Array
    """(K, 3) unit vectors out of the wood."""
    along: Array
    """(K,) length from the root of the limb."""
    around: Array
    """(K,) from -1 to 1 across the limb."""
    limb: Array
    """(K,) number of the limb."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where the world stands on the canvas."""

    width: int
    """Canvas width in pixels."""
    height: int
    """Canvas height in pixels."""
    scale: Array
    """Pixels per unit of the world, across and up."""
    origin: Array
    """Canvas pixel (x, y) of the world's origin."""
    tilt: float
    """How far the view looks down, in radians."""

    @property
    def unit(self) -> float:
        """Pixels per unit, for sizes that have no direction."""
        return float(min(self.scale))

    def pixels(self, seen: Array) -> tuple[Array, Array]:
        """Canvas x and y, as floats, of points already in view space."""
        return self.origin[0] + seen[:, 0] * self.scale[0], self.origin[1] - seen[:, 1] * self.scale[1]


def view(points: Array, tilt: float) -> Array:
    """Turn world points (..., 3) to the viewer's axes."""
    c, s = np.cos(tilt), np.sin(tilt)
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    return np.stack([x, y * c - z * s, z * c + y * s], axis=-1)


class Noise:
    """Smooth random texture over the plane, repeating every 64 units."""

    def __init__(self, rng: np.random.Generator):
        self._table = rng.random((64, 64), dtype=np.float32)

    def __call__(self, x: Array, y: Array) -> Array:
        """Values 0 to 1 at the points (x, y)."""
        i, j = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        u, v = x - i, y - j
        u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
        i0, i1, j0, j1 = i & 63, (i + 1) & 63, j & 63, (j + 1) & 63
        t = self._table
        return (t[i0, j0] * (1 - u) + t[i1, j0] * u) * (1 - v) + (t[i0, j1] * (1 - u) + t[i1, j1] * u) * v


class ShadowMap:
    """How far points lie behind the leaves that are nearest to the lamp: a grid seen from the lamp."""

    def __init__(self, casters: Array, light: Light, *, cell: float = 0.035, soft: float = 0.11):
        """From leaves (N, 3) in view space; `cell` is the grid's step, `soft` how deep light gets."""
        up = np.array([0.0, 0.0, 1.0])
        self._right = unit(np.cross(up, light.direction))
        self._other = np.cross(light.direction, self._right)
        self._light, self._cell, self._soft = light.direction, cell, soft
        self._top = np.full(128 * 128, -9.0)
        toward = dot(casters, self._light)
        order = np.argsort(toward, kind="stable")
        self._top[self._cells(casters)[order]] = toward[order]

    def __call__(self, points: Array) -> Array:
        """Light that reaches `points` (N, 3): 1 in the open, towards 0 deep behind leaves."""
        behind = self._top[self._cells(points)] - dot(points, self._light) - 0.02
        return 1.0 / (1.0 + np.square(np.maximum(behind, 0.0) / self._soft))

    def _cells(self, points: Array) -> Array:
        i = np.clip(dot(points, self._right) / self._cell + 64, 0, 127).astype(np.int64)
        j = np.clip(dot(points, self._other) / self._cell + 64, 0, 127).astype(np.int64)
        return i * 128 + j


class Shapes:
    """Stamps as lists of pixels."""

    def __init__(self, masks: Array):
        """From `masks` (B, D, D), D odd: 0 clear, 1 first colour, 2 second colour."""
        shape, row, column = np.nonzero(masks)
        self.counts = np.bincount(shape, minlength=len(masks)).astype(np.int32)
        """Pixels of each shape."""
        self.first = (np.cumsum(self.counts) - self.counts).astype(np.int32)
        """Where its pixels begin in the lists below."""
        self.down = (row - masks.shape[1] // 2).astype(np.int32)
        self.right = (column - masks.shape[2] // 2).astype(np.int32)
        self.tone = masks[shape, row, column].astype(np.int32) - 1


class Canvas:
    """Pixels, and the nearness of what was painted last; has a margin, so that stamps may overhang."""

    def __init__(self, background: Array, margin: int):
        self.height, self.width = background.shape[:2]
        self._margin, self._stride = margin, self.width + 2 * margin
        packed = np.zeros((self.height + 2 * margin, self._stride), np.uint32)
        packed[margin:-margin, margin:-margin] = pack(background)
        self._pixels = packed.reshape(-1)
        self._near = np.full(self._pixels.size, -9.0, np.float32)
        self._square = Shapes(np.array([[[0, 0, 0], [0, 1, 1], [0, 1, 1]]]))

    def fill(self, seen: Array, frame: Frame, colours: Array, near: Array | None = None) -> None:
        """Paint surface points (N, 3) in `colours` (N, 3) as squares of two pixels, which leave no gaps."""
        which = np.zeros(len(seen), np.int64)
        self.stamp(seen, frame, colours, self._square, which, near=near)

    def stamp(
        self,
        seen: Array,
        frame: Frame,
        colours: Array,
        shapes: Shapes,
        which: Array,
        near: Array | None = None,
    ) -> None:
        """Paint N stamps in order of nearness, hidden by what is nearer already.

        Args:
            seen: (N, 3) middles, in view space.
            frame: what maps them to pixels.
            colours: (N, 3) first colours, 0 to 255.
            shapes: the stamps to choose from.
            which: (N,) the shape of each stamp.
            near: (N,) nearness, if not that of `seen`.
        """
        x, y = frame.pixels(seen)
        near = (seen[:, 2] if near is None else near).astype(np.float32)
        order = np.argsort(near, kind="stable")
        reach = self._margin // 2
        column = np.clip(np.rint(x) + self._margin, reach, self._stride - reach - 1)
        row = np.clip(np.rint(y) + self._margin, reach, self.height + 2 * self._margin - reach - 1)
        middle = (row * self._stride + column).astype(np.int32)[order]
        which = which[order]
        counts = shapes.counts[which]
        item = np.repeat(np.arange(len(order), dtype=np.int32), counts)
        pixel = np.arange(len(item), dtype=np.int32) + np.repeat(
            (shapes.first[which] - np.cumsum(counts) + counts).astype(np.int32), counts
        )
        spot = middle[item] + (shapes.down[pixel] * self._stride + shapes.right[pixel])
        nearness = near[order][item]
        shown = nearness >= self._near[spot]
        spot, item, pixel = spot[shown], item[shown], pixel[shown]
        both = np.stack([pack(colours), pack(colours * SECOND)], axis=-1)[order].reshape(-1)
        self._pixels[spot] = both[item * 2 + shapes.tone[pixel]]
        self._near[spot] = nearness[shown]

    def picture(self) -> Array:
        """The painted part, uint8 (H, W, 3)."""
        m = self._margin
        inner = self._pixels.reshape(-1, self._stride)[m:-m, m:-m]
        return np.stack([inner & 255, inner >> 8 & 255, inner >> 16 & 255], axis=-1).astype(np.uint8)


def tubes(path: Array, radius: Array, frame: Frame) -> Tubes:
    """Cover limbs with points about one canvas pixel apart.

    Args:
        path: (N, M, 3) places along N limbs, in view space.
        radius: (N, M) radius at those places.
        frame: gives the size of a pixel.
    """
    heading = np.gradient(path[:, :, :2], axis=1)
    heading /= np.sqrt(np.square(heading).sum(-1, keepdims=True)) + 1e-9
    across = np.stack([-heading[..., 1], heading[..., 0], np.zeros_like(radius)], axis=-1)
    step = np.sqrt(np.square(np.diff(path, axis=1)).sum(-1))
    along = np.concatenate([np.zeros((len(path), 1)), np.cumsum(step, axis=1)], axis=1)
    counts = np.ceil(step * frame.unit * 0.85).astype(np.int64).reshape(-1) + 1
    segment, t = _ragged(counts)
    limb, i = np.divmod(segment, path.shape[1] - 1)
    girth = _lerp(radius, limb, i, t)
    middle, side, length = _lerp(path, limb, i, t), _lerp(across, limb, i, t), _lerp(along, limb, i, t)
    ring, u = _ragged(np.ceil(girth * frame.unit * 1.7).astype(np.int64))
    u = 1.8 * u - 0.9
    bulge = np.sqrt(1.0 - np.square(u))
    normal = side[ring] * u[:, None]
    normal[:, 2] += bulge
    at = middle[ring] + normal * girth[ring][:, None]
    return Tubes(at=at, normal=normal, along=length[ring], around=u, limb=limb[ring])


def leaf_shapes(kind: str, radius_px: float) -> Shapes:
    """Stamps of one kind of leaf, every size of `LEAF_SIZES` in `LEAF_TURNS` directions."""
    reach = int(np.ceil(radius_px * LEAF_SIZES[-1]))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    rho0, angle = np.hypot(x, y), np.arctan2(-y, x)
    shapes = []
    for size in LEAF_SIZES:
        rho = rho0 / max(radius_px * size, 0.5)
        for turn in range(LEAF_TURNS):
            edge, second = _outline(kind, angle - turn * 2 * np.pi / LEAF_TURNS, rho)
            shapes.append(np.where(rho <= edge, np.where(second, 2, 1), 0))
    stamps = np.array(shapes, np.uint8)
    stamps[:, reach, reach] = np.maximum(stamps[:, reach, reach], 1)
    return Shapes(stamps)


def _outline(kind: str, angle: Array, rho: Array) -> tuple[Array | float, Array]:
    """Edge of a leaf in polar form, and where its second colour is."""
    lower = np.sin(angle) < 0
    match kind:
        case "oval":
            return 1.0 / np.sqrt(np.square(np.cos(angle)) + np.square(np.sin(angle) / 0.55)), lower
        case "star":
            return 0.4 + 0.6 * np.square(np.cos(2.5 * angle)), rho < 0.3
        case "flower":
            return 0.72 + 0.28 * np.abs(np.cos(2.5 * angle)), rho < 0.3
        case "spray":
            return 0.5 + 0.5 * np.square(np.cos(3.5 * angle)) * (np.cos(angle) > -0.4), rho < 0.35
        case "fan":
            return np.where(np.cos(angle) > -0.1, 1.0, 0.25), rho < 0.5
        case "tuft":
            fan = np.cos(angle) > -0.25
            return np.where(fan & (np.cos(11 * angle) > -0.2), 1.0, 0.35), rho < 0.45
        case _:
            return 1.0, lower


def shade(ramp: Ramp, light: Array) -> Array:
    """Colours (N, 3) 0 to 255 of a material under brightness `light` (N,) 0 to 1."""
    steps = np.linspace(0.0, 1.0, 256)
    table = np.stack([np.interp(steps, (0.0, 0.5, 1.0), channel) for channel in zip(*ramp)], axis=-1)
    return table.astype(np.float32)[np.clip(light * 255.0, 0.0, 255.0).astype(np.uint8)]


def pack(colours: Array) -> Array:
    """Colours (..., 3) 0 to 255 as one uint32 each."""
    c = np.clip(colours, 0, 255).astype(np.uint32)
    return c[..., 0] | c[..., 1] << 8 | c[..., 2] << 16


def unit(vectors: Array) -> Array:
    """Vectors (..., 3) scaled to length 1."""
    return vectors / (np.sqrt(np.square(vectors).sum(-1, keepdims=True)) + 1e-9)


def dot(a: Array, b: Array) -> Array:
    """Scalar products of vectors (..., 3) with one vector (3,)."""
    return a[..., 0] * b[0] + a[..., 1] * b[1] + a[..., 2] * b[2]


def _ragged(counts: Array) -> tuple[Array, Array]:
    """For items cut into `counts` points each: the item of every point, and its share of the way, 0 to 1."""
    item = np.repeat(np.arange(len(counts)), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    return item, (np.arange(len(item)) - first) / np.maximum(counts[item] - 1, 1)


def _lerp(values: Array, limb: Array, i: Array, t: Array) -> Array:
    t = t.reshape(t.shape + (1,) * (values.ndim - 2))
    return values[limb, i] * (1.0 - t) + values[limb, i + 1] * t
