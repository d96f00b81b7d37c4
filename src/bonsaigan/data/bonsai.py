"""The embedded set `demo:bonsai`: bonsai drawn by code, one from each seed, so that everything works offline.

How a tree is drawn. A seed chooses a species in one of its seasons, a style, a pot and a backdrop. The style
bends the trunk; branches leave it to both sides and carry *pads*, flattened ellipsoids where foliage will be;
twigs reach from the branches into the pads, and every pad is a heap of clumps of leaves (`bonsai_tree`). A
shadow map seen from the lamp darkens what other leaves cover, which makes the pads round, and the same leaves
throw the tree's shadow on the ground and the wall. All of it is points in space, stamped back to front on a
canvas three times too large (`bonsai_parts`, `bonsai_pot`), over a painted backdrop (`bonsai_backdrops`). A
box filter brings it down.

Every choice is made in units of the tree, never of pixels: a seed is the same tree at any size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from PIL import Image, ImageFilter

from bonsaigan.data.bonsai_backdrops import BACKDROPS, Backdrop, paint
from bonsaigan.data.bonsai_parts import (
    LEAF_SIZES,
    LEAF_TURNS,
    Array,
    Canvas,
    Frame,
    Light,
    Noise,
    Ramp,
    ShadowMap,
    leaf_shapes,
    shade,
    tubes,
    unit,
    view,
)
from bonsaigan.data.bonsai_pot import Pot
from bonsaigan.data.bonsai_species import (
    DEADWOOD,
    GLAZES,
    MOSS,
    PINK,
    POTS,
    SNOW,
    SOIL,
    SPECIES,
    STYLES,
    WHITE,
    WOODS,
    Look,
    Species,
    Style,
)
from bonsaigan.data.bonsai_tree import BRANCHES, ROOTS, TRUNK, TWIGS, Tree, grow

ZOOM = 3
"""Canvas pixels to one pixel of the picture."""
TUFTS = 1400
"""Pieces of moss, gravel or snow on the soil."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All there is to paint, still without a size."""

    species: Species
    look: Look
    tree: Tree
    pot: Pot
    stand: Pot | None
    backdrop: Backdrop
    light: Light
    noise: Noise
    tilt: float
    """How far the view looks down, in radians."""
    far: float
    """How far behind the tree the ground ends."""

    @property
    def foot(self) -> Pot:
        """What stands on the ground."""
        return self.stand or self.pot


def draw(seed: int, *, width_px: int, height_px: int) -> Array:
    """Draw the bonsai of a seed.

    Args:
        seed: any whole number from 0.
        width_px, height_px: size of the picture, made for 32 to 256.

    Returns:
        uint8 (height_px, width_px, 3), RGB. The same arguments always give the same picture.

    Raises:
        ValueError: the seed is negative.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    scene = _imagine(rng)
    frame = _fit(rng, scene, width_px * ZOOM, height_px * ZOOM)
    canvas = Canvas(_stage(rng, scene, frame), margin=2 * int(0.05 * frame.unit) + 8)
    _paint_pot(canvas, scene, frame)
    _paint_soil(rng, canvas, scene, frame)
    leaves = view(scene.tree.leaves.at, scene.tilt)
    shadow = ShadowMap(leaves, scene.light)
    _paint_wood(canvas, scene, frame, shadow)
    _paint_leaves(canvas, scene, frame, leaves, shadow)
    return _develop(rng, canvas.picture())


def _imagine(rng: np.random.Generator) -> Scene:
    weights = np.cumsum([species.weight for species in SPECIES.values()])
    species = list(SPECIES.values())[int(np.searchsorted(weights, rng.random() * weights[-1]))]
    look = species.looks[rng.integers(len(species.looks))]
    style = STYLES[species.styles[rng.integers(len(species.styles))]]
    backdrop = _choose_backdrop(rng, look)
    light = _choose_light(rng, backdrop)
    look = replace(look, ramp=_vary(rng, look.ramp), bloom=look.bloom and _vary(rng, look.bloom))
    tree = grow(rng, style, species, look)
    pot = _choose_pot(rng, style, tree)
    return Scene(
        species=species,
        look=look,
        tree=tree,
        pot=pot,
        stand=_choose_stand(rng, pot),
        backdrop=backdrop,
        light=light,
        noise=Noise(rng),
        tilt=rng.uniform(0.14, 0.24),
        far=rng.uniform(0.7, 1.3),
    )


def _choose_backdrop(rng: np.random.Generator, look: Look) -> Backdrop:
    """Any backdrop against which the tree shows."""
    pale = look.snow > 0 or look.bloom in (WHITE, PINK)
    bare = look.leaves == 0 and not look.snow
    fits = [b for b in BACKDROPS.values() if not (pale and b.bright) and not (bare and b.ambient < 0.35)]
    return fits[rng.integers(len(fits))]


def _choose_light(rng: np.random.Generator, backdrop: Backdrop) -> Light:
    side = rng.choice([-1.0, 1.0])
    direction = np.array([side * rng.uniform(0.25, 0.85), rng.uniform(0.7, 1.1), rng.uniform(0.45, 0.8)])
    return Light(direction=unit(direction), ambient=backdrop.ambient)


def _choose_pot(rng: np.random.Generator, style: Style, tree: Tree) -> Pot:
    """The pot of the style, or another that suits it, set a little towards the side the tree leans to."""
    name = style.pot
    if name in ("oval", "rectangle") and rng.random() < 0.5:
        name = ("oval", "rectangle", "round")[rng.integers(3)]
    shape = dict(POTS[name])
    glaze, gloss = GLAZES[rng.integers(len(GLAZES))]
    depth = rng.uniform(0.85, 1.0) * shape.pop("depth")
    half_width = shape.pop("half_width") * rng.uniform(0.9, 1.12)
    height = shape.pop("height") * rng.uniform(0.85, 1.15)
    lean = float(np.clip(tree.pads[:, 0].mean() * 0.35, -0.28 * half_width, 0.28 * half_width))
    return Pot(
        centre=0.0 if name == "tall" else lean,
        half_width=half_width,
        half_depth=half_width * depth,
        height=height,
        glaze=_vary(rng, glaze),
        gloss=gloss,
        **shape,
    )


def _choose_stand(rng: np.random.Generator, pot: Pot) -> Pot | None:
    """Under two pots of five, a low wooden stand, which is a pot of another shape."""
    kind, wood = rng.random(), WOODS[rng.integers(len(WOODS))]
    if kind > 0.4:
        return None
    return Pot(
        centre=pot.centre,
        half_width=pot.half_width * 1.16,
        half_depth=pot.half_depth * 1.12,
        height=0.05,
        corner=9.0 if kind < 0.28 else 2.0,
        foot_width=0.97,
        belly=0.0,
        lip=0.03,
        glaze=wood,
        gloss=0.1,
        feet=1.3,
        rim=0.0,
        top=pot.ground,
    )


def _vary(rng: np.random.Generator, ramp: Ramp) -> Ramp:
    """The same material on another plant: a little warmer or colder, lighter or darker."""
    gain = np.exp(rng.normal(0.0, 0.03, 3) + rng.normal(0.0, 0.06))
    return cast(Ramp, tuple(tuple(int(min(255, c * k)) for c, k in zip(stop, gain)) for stop in ramp))


def _fit(rng: np.random.Generator, scene: Scene, width: int, height: int) -> Frame:
    """Place the tree so that it fills most of the picture; it may be stretched a little to do so."""
    tree, foot = scene.tree, scene.foot
    side = foot.half_width + 0.03
    ends = np.array([[foot.centre + s * side, foot.ground, foot.half_depth] for s in (-1, 1)])
    wood = [limbs.path.reshape(-1, 3) for limbs in tree.limbs[: TWIGS if scene.look.leaves else None]]
    crown = [tree.pads - tree.reach * 0.9, tree.pads + tree.reach * 0.9]
    seen = view(np.concatenate([*crown, ends, *wood]), scene.tilt)[:, :2]
    low, high = seen.min(0), seen.max(0)
    fill = rng.uniform(0.86, 0.95, 2) * [width, height * 0.95]
    scale = fill / (high - low)
    scale = np.minimum(scale, scale.min() * 1.25)
    spare = fill[1] - scale[1] * (high - low)[1]
    x = width * (0.5 + rng.uniform(-0.015, 0.015)) - (low + high)[0] / 2 * scale[0]
    y = height * 0.505 + fill[1] / 2 - spare * 0.3 + low[1] * scale[1]
    return Frame(width=width, height=height, scale=scale, origin=np.array([x, y]), tilt=scene.tilt)


def _stage(rng: np.random.Generator, scene: Scene, frame: Frame) -> Array:
    """Backdrop and ground with the tree's shadow, uint8 at the size of the canvas.

    It is painted at the size of the picture and enlarged: a background is a little out of focus anyway.
    """
    foot, backdrop = scene.foot, scene.backdrop
    width, height = frame.width // ZOOM, frame.height // ZOOM
    edge = view(np.array([[0.0, foot.ground, -scene.far]]), scene.tilt)
    empty = paint(backdrop, rng, scene.noise, width, height, frame.pixels(edge)[1][0] / ZOOM)
    r, angle = np.meshgrid(np.linspace(0.1, 1.0, 8), np.linspace(0.0, 2 * np.pi, 24))
    disc = foot.inside(r.reshape(-1), angle.reshape(-1)) - [0.0, foot.top, 0.0]
    down = np.array([0.0, foot.ground, 0.0])
    body = [disc + down * share for share in np.linspace(0.0, 1.0, 8)]
    wood = [limbs.path.reshape(-1, 3) for limbs in scene.tree.limbs[: ROOTS if scene.look.leaves else None]]
    casters = np.concatenate([scene.tree.leaves.at[::2], *body, *wood])
    lamp = view(scene.light.direction, -scene.tilt)
    drop = (casters[:, 1] - foot.ground) / lamp[1]
    if backdrop.wall:
        drop = np.minimum(drop, (casters[:, 2] + scene.far) / lamp[2])
    fallen = casters - lamp * drop[:, None]
    fallen = fallen[fallen[:, 2] > -scene.far - 0.01]
    dark = 0.55 * _blot(fallen, frame, width, height, 0.035) + 0.6 * _blot(
        body[-1], frame, width, height, 0.03
    )
    empty *= (1.0 - np.clip(dark, 0.0, 0.85) * (1.15 - backdrop.ambient))[..., None]
    picture = Image.fromarray(np.clip(empty, 0, 255).astype(np.uint8))
    return np.asarray(picture.resize((frame.width, frame.height), Image.Resampling.BICUBIC))


def _blot(points: Array, frame: Frame, width: int, height: int, soft: float) -> Array:
    """World points (N, 3) as darkness (H, W), 0 to 1, blurred by `soft` units of the world."""
    x, y = (v / ZOOM for v in frame.pixels(view(points, frame.tilt)))
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    spots = np.zeros((height, width), np.uint8)
    spots[y[inside].astype(np.int64), x[inside].astype(np.int64)] = 255
    blur = ImageFilter.GaussianBlur(max(soft * frame.unit / ZOOM, 0.7))
    return (
        np.asarray(Image.fromarray(spots).filter(ImageFilter.MaxFilter(3)).filter(blur), np.float64) / 255.0
    )


def _paint_pot(canvas: Canvas, scene: Scene, frame: Frame) -> None:
    for depth, thing in ((-8.0, scene.stand), (-7.0, scene.pot)):
        if thing is not None:
            at, colour = thing.points(frame, scene.light, scene.noise)
            canvas.fill(view(at, scene.tilt), frame, colour, near=depth + np.arange(len(at)) * 1e-6)


def _paint_soil(rng: np.random.Generator, canvas: Canvas, scene: Scene, frame: Frame) -> None:
    """A mound of moss, gravel or snow."""
    pot = scene.pot
    cover = SNOW if scene.look.snow else MOSS if rng.random() < 0.7 else SOIL
    r, turn = np.sqrt(rng.random(TUFTS)), rng.random(TUFTS) * 2 * np.pi
    at = pot.inside(r * 0.9, turn)
    bumps = scene.noise(at[:, 0] * 9 + 20, at[:, 2] * 9)
    at[:, 1] += (0.035 + 0.03 * bumps) * (1.0 - r**3) - 0.012
    level = 0.42 if scene.look.snow else 0.28
    slope = 0.2 * (at[:, 0] - pot.centre) * scene.light.direction[0] / pot.half_width
    bright = level + 0.45 * bumps + slope + rng.normal(0.0, 0.03 if scene.look.snow else 0.09, TUFTS)
    seen = view(at, scene.tilt)
    which = np.arange(TUFTS) % (len(LEAF_SIZES) * LEAF_TURNS)
    shapes = leaf_shapes("dot", 0.022 * frame.unit)
    canvas.stamp(seen, frame, shade(cover, bright), shapes, which, near=seen[:, 2] * 0.1 - 6.0)


def _paint_wood(canvas: Canvas, scene: Scene, frame: Frame, shadow: ShadowMap) -> None:
    """Trunks, branches, roots and twigs; the finest twigs only where no leaves hide them."""
    species, look, noise = scene.species, scene.look, scene.noise
    for generation, limbs in enumerate(scene.tree.limbs[: TWIGS + 1 if look.leaves else None]):
        tube = tubes(view(limbs.path, scene.tilt), limbs.radius, frame)
        bright = (scene.light.on(tube.normal, shadow(tube.at)) - 0.5) * 1.2 + 0.5
        bright *= np.clip(0.85 + 0.8 * tube.at[:, 2], 0.55, 1.1)  # what is behind is darker
        if generation in (TRUNK, ROOTS):
            bright *= np.clip(0.5 + 7.0 * np.abs(tube.at[:, 1]), 0.5, 1.0)  # and so is what touches the soil
        bark = noise(tube.along * species.grain[0] * 3 + tube.limb * 7, tube.around * species.grain[1])
        colour = shade(species.bark, bright * (0.62 + 0.76 * bark))
        if species.deadwood and generation <= BRANCHES:
            strip = noise(tube.along * 2.2 + 30, tube.around * 1.3 + 11 + tube.limb) < species.deadwood
            colour = np.where(strip[:, None], shade(DEADWOOD, bright * (0.8 + 0.3 * bark)), colour)
        if look.snow:
            steep = 1.05 - 0.5 * look.snow + 0.17 * max(0, generation - ROOTS)
            lies = tube.normal[:, 1] + 0.5 * bark > steep
            colour = np.where(lies[:, None], shade(SNOW, 0.35 + 0.65 * bright), colour)
        canvas.fill(tube.at, frame, colour)


def _paint_leaves(canvas: Canvas, scene: Scene, frame: Frame, seen: Array, shadow: ShadowMap) -> None:
    """Leaves, then flowers, then snow, each hidden by what is nearer."""
    species, look, leaves = scene.species, scene.look, scene.tree.leaves
    normal = view(leaves.normal, scene.tilt)
    bright = (scene.light.on(normal, shadow(seen)) - 0.5) * 1.2 + 0.49 + leaves.tone
    snowy = normal[:, 1] + leaves.tone * 2 > (1.0 - 0.7 * look.snow if look.snow else np.inf)
    turn = leaves.turn
    if species.leaf == "tuft":  # needles point away from the pad
        angle = np.arctan2(normal[:, 1] + 0.35, normal[:, 0])
        turn = np.rint(angle / (2 * np.pi) * LEAF_TURNS).astype(np.int64) % LEAF_TURNS
    which = leaves.size * LEAF_TURNS + turn
    for kind, ramp, gain, size, mask in (
        (species.leaf, look.ramp, 0.0, 1.0, ~leaves.bloom & ~snowy),
        ("flower", look.bloom or look.ramp, 0.12, 1.0, leaves.bloom & ~snowy),
        ("dot", SNOW, 0.3, 0.85, snowy),
    ):
        if mask.any():
            shapes = leaf_shapes(kind, size * species.leaf_size * frame.unit)
            canvas.stamp(seen[mask], frame, shade(ramp, bright[mask] + gain), shapes, which[mask])


def _develop(rng: np.random.Generator, picture: Array) -> Array:
    """Reduce to the size asked for, and finish like a photograph: white balance, contrast, vignette."""
    small = np.asarray(Image.fromarray(picture).reduce(ZOOM), np.float64)
    warm, contrast, edge = rng.uniform(-0.04, 0.05), rng.uniform(0.98, 1.1), rng.uniform(0.0, 0.2)
    small = small * [1.0 + warm, 1.0, 1.0 - warm]
    y, x = np.linspace(-1, 1, small.shape[0])[:, None], np.linspace(-1, 1, small.shape[1])
    vignette = 1.0 - edge * (x * x + y * y) ** 1.5 / 2.8
    small = ((small - 118.0) * contrast + 120.0) * vignette[..., None]
    return np.clip(np.rint(small), 0, 255).astype(np.uint8)
