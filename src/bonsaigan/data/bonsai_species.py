"""What a drawn bonsai is chosen from: species in their seasons, styles, pots and glazes."""

from __future__ import annotations

from dataclasses import dataclass

from bonsaigan.data.bonsai_parts import Ramp


@dataclass(frozen=True, kw_only=True)
class Look:
    """A species in one season."""

    ramp: Ramp
    """Colours of the leaves."""
    bloom: Ramp | None = None
    """Colours of the flowers among the leaves."""
    blooming: float = 0.0
    """Share of flowers, 0 to 1."""
    leaves: float = 1.0
    """How many leaves; 0 is a bare tree."""
    snow: float = 0.0
    """How much snow lies on what faces up, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Species:
    """What all trees of a kind share."""

    styles: tuple[str, ...]
    """Names in `STYLES`."""
    looks: tuple[Look, ...]
    """Its seasons."""
    bark: Ramp
    """Colours of the bark."""
    grain: tuple[float, float]
    """How fine the bark is along and around the trunk."""
    leaf: str
    """Shape of a leaf, see `leaf_shapes`."""
    leaf_size: float
    """Half the length of a leaf, in units of the world."""
    flat: float
    """Height of a pad as a share of its width."""
    weight: float = 1.0
    """How often it is drawn, against the others."""
    hang: float = 0.0
    """Length of hanging racemes of flowers."""
    deadwood: float = 0.0
    """Share of bleached wood on the trunk."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """A classical form."""

    heading: tuple[tuple[float, float], ...]
    """(share of the trunk, radians from upright) in turn; the trunk runs smoothly through them."""
    wiggle: float = 0.1
    """Strength of the S-curves, in radians."""
    length: float = 1.0
    """Length of the trunk."""
    girth: float = 0.06
    """Radius of the trunk above the roots."""
    branches: int = 8
    """How many branches a trunk carries."""
    first: float = 0.32
    """Share of the trunk below the first branch."""
    spread: float = 0.5
    """Length of the lowest branches."""
    crown: str = "cone"
    """`cone`, `dome`, `fan` (broom), `even`, or `wind`: how branches change along the trunk."""
    trunks: int = 1
    """How many trees stand in the pot; above two, the most there can be."""
    pot: str = "oval"
    """Name in `POTS`."""


GREEN_PINE: Ramp = ((12, 34, 28), (42, 86, 48), (138, 166, 88))
BLUE_PINE: Ramp = ((14, 38, 40), (58, 104, 88), (158, 190, 150))
JUNIPER: Ramp = ((16, 46, 32), (62, 116, 58), (166, 196, 104))
FRESH: Ramp = ((48, 90, 22), (124, 176, 46), (214, 232, 112))
SUMMER: Ramp = ((20, 60, 22), (70, 128, 44), (166, 204, 90))
DEEP: Ramp = ((12, 48, 24), (44, 112, 44), (150, 204, 104))
RED: Ramp = ((88, 8, 18), (190, 30, 28), (252, 112, 66))
ORANGE: Ramp = ((124, 40, 10), (224, 104, 24), (255, 192, 84))
GOLD: Ramp = ((132, 82, 10), (226, 168, 32), (255, 230, 120))
CRIMSON: Ramp = ((84, 10, 36), (182, 40, 62), (244, 124, 124))
PINK: Ramp = ((178, 88, 122), (242, 166, 190), (255, 232, 238))
WHITE: Ramp = ((150, 132, 150), (236, 222, 226), (255, 252, 248))
MAGENTA: Ramp = ((128, 12, 84), (226, 50, 140), (255, 156, 204))
SALMON: Ramp = ((158, 36, 40), (240, 92, 80), (255, 176, 152))
WISTERIA: Ramp = ((76, 56, 138), (148, 122, 206), (222, 206, 248))
SNOW: Ramp = ((134, 152, 182), (216, 226, 240), (255, 255, 255))
MOSS: Ramp = ((24, 48, 16), (76, 112, 34), (150, 178, 70))
SOIL: Ramp = ((34, 26, 20), (84, 66, 50), (140, 118, 92))
DEADWOOD: Ramp = ((112, 98, 82), (206, 194, 172), (248, 242, 226))


SPECIES = {
    "pine": Species(
        weight=3,
        styles=("informal", "informal", "formal", "slanting", "cascade", "literati", "windswept", "twin"),
        looks=(
            Look(ramp=GREEN_PINE),
            Look(ramp=BLUE_PINE),
            Look(ramp=GREEN_PINE),
            Look(ramp=GREEN_PINE, snow=0.8),
        ),
        bark=((30, 22, 18), (98, 74, 58), (178, 148, 122)),
        grain=(16, 5),
        leaf="tuft",
        leaf_size=0.034,
        flat=0.36,
    ),
    "juniper": Species(
        weight=2,
        styles=("informal", "slanting", "cascade", "windswept", "literati", "formal"),
        looks=(Look(ramp=JUNIPER), Look(ramp=BLUE_PINE), Look(ramp=JUNIPER)),
        deadwood=0.42,
        bark=((44, 24, 16), (124, 76, 50), (196, 148, 110)),
        grain=(4, 7),
        leaf="spray",
        leaf_size=0.02,
        flat=0.46,
    ),
    "maple": Species(
        weight=3,
        styles=("informal", "informal", "twin", "forest", "slanting", "broom"),
        looks=(
            Look(ramp=RED),
            Look(ramp=ORANGE),
            Look(ramp=FRESH),
            Look(ramp=SUMMER),
            Look(ramp=CRIMSON),
            Look(ramp=RED, leaves=0.0),
        ),
        bark=((48, 42, 36), (128, 118, 104), (206, 198, 182)),
        grain=(4, 3),
        leaf="star",
        leaf_size=0.030,
        flat=0.55,
    ),
    "cherry": Species(
        weight=2.2,
        styles=("informal", "slanting", "informal", "twin", "broom"),
        looks=(
            Look(ramp=FRESH, bloom=PINK, blooming=0.94),
            Look(ramp=CRIMSON, bloom=WHITE, blooming=0.95),
            Look(ramp=FRESH, bloom=PINK, blooming=0.9),
            Look(ramp=ORANGE, leaves=0.8),
        ),
        bark=((38, 24, 24), (96, 66, 60), (176, 138, 124)),
        grain=(22, 1.5),
        leaf="oval",
        leaf_size=0.024,
        flat=0.62,
    ),
    "azalea": Species(
        weight=1.3,
        styles=("informal", "broom", "slanting", "formal"),
        looks=(
            Look(ramp=DEEP, bloom=MAGENTA, blooming=0.6),
            Look(ramp=DEEP, bloom=SALMON, blooming=0.5),
            Look(ramp=DEEP, bloom=WHITE, blooming=0.5),
        ),
        bark=((50, 38, 30), (134, 108, 86), (204, 180, 152)),
        grain=(4, 4),
        leaf="oval",
        leaf_size=0.026,
        flat=0.6,
    ),
    "ficus": Species(
        weight=1.3,
        styles=("broom", "informal", "broom", "slanting"),
        looks=(Look(ramp=DEEP), Look(ramp=SUMMER)),
        bark=((66, 58, 48), (152, 140, 120), (220, 210, 190)),
        grain=(3, 3),
        leaf="oval",
        leaf_size=0.030,
        flat=0.66,
    ),
    "elm": Species(
        weight=2,
        styles=("broom", "informal", "broom", "forest", "twin"),
        looks=(
            Look(ramp=SUMMER),
            Look(ramp=FRESH),
            Look(ramp=GOLD),
            Look(ramp=GOLD, leaves=0.0),
            Look(ramp=GOLD, leaves=0.0, snow=0.9),
        ),
        bark=((42, 36, 32), (116, 102, 88), (196, 182, 164)),
        grain=(7, 4),
        leaf="oval",
        leaf_size=0.020,
        flat=0.58,
    ),
    "larch": Species(
        weight=1.3,
        styles=("formal", "forest", "formal", "slanting"),
        looks=(
            Look(ramp=GOLD),
            Look(ramp=ORANGE, leaves=0.8),
            Look(ramp=FRESH),
            Look(ramp=GOLD, leaves=0.0, snow=0.8),
        ),
        bark=((44, 30, 24), (118, 86, 66), (188, 154, 128)),
        grain=(12, 5),
        leaf="tuft",
        leaf_size=0.024,
        flat=0.36,
    ),
    "ginkgo": Species(
        weight=0.7,
        styles=("formal", "broom", "twin"),
        looks=(Look(ramp=GOLD), Look(ramp=GOLD), Look(ramp=SUMMER)),
        bark=((52, 42, 34), (132, 114, 94), (204, 188, 164)),
        grain=(9, 4),
        leaf="fan",
        leaf_size=0.028,
        flat=0.62,
    ),
    "wisteria": Species(
        weight=0.8,
        styles=("informal", "slanting", "broom"),
        looks=(Look(ramp=FRESH, bloom=WISTERIA, blooming=0.86),),
        bark=((50, 42, 36), (126, 110, 96), (196, 182, 164)),
        grain=(5, 5),
        leaf="oval",
        leaf_size=0.02,
        flat=0.6,
        hang=0.2,
    ),
}

STYLES = {
    "formal": Style(
        heading=((0, 0), (1, 0)), wiggle=0.06, branches=13, first=0.22, spread=0.5, pot="rectangle"
    ),
    "informal": Style(
        heading=((0, 0.1), (1, -0.05)), wiggle=0.7, length=1.1, branches=9, first=0.34, spread=0.5
    ),
    "slanting": Style(
        heading=((0, 0.7), (0.5, 0.55), (1, 0.1)), wiggle=0.25, branches=9, spread=0.5, pot="rectangle"
    ),
    "cascade": Style(
        heading=((0, 0.1), (0.14, 0.2), (0.3, 1.6), (0.42, 2.6), (1, 2.9)),
        wiggle=0.35,
        length=1.55,
        girth=0.06,
        branches=12,
        first=0.18,
        spread=0.4,
        crown="even",
        pot="tall",
    ),
    "windswept": Style(
        heading=((0, 0.25), (0.45, 0.4), (1, 0.95)),
        wiggle=0.2,
        length=1.05,
        branches=6,
        first=0.3,
        spread=0.62,
        crown="wind",
        pot="slab",
    ),
    "literati": Style(
        heading=((0, 0.4), (0.5, 0.15), (1, 0.0)),
        wiggle=0.6,
        length=1.25,
        girth=0.042,
        branches=7,
        first=0.56,
        spread=0.44,
        pot="round",
    ),
    "broom": Style(
        heading=((0, 0), (1, 0)), length=0.55, girth=0.075, branches=16, first=0.62, spread=0.56, crown="fan"
    ),
    "twin": Style(
        heading=((0, 0.12), (1, 0.0)),
        wiggle=0.35,
        branches=8,
        first=0.32,
        spread=0.42,
        trunks=2,
        crown="dome",
    ),
    "forest": Style(
        heading=((0, 0.0), (1, 0.0)),
        wiggle=0.16,
        length=0.95,
        girth=0.034,
        branches=7,
        first=0.42,
        spread=0.28,
        trunks=5,
        pot="slab",
    ),
}

POTS: dict[str, dict[str, float]] = {
    "oval": {
        "corner": 2.0,
        "depth": 0.7,
        "foot_width": 0.78,
        "belly": 0.07,
        "lip": 0.05,
        "half_width": 0.44,
        "height": 0.2,
    },
    "rectangle": {
        "corner": 9.0,
        "depth": 0.6,
        "foot_width": 0.86,
        "belly": 0.0,
        "lip": 0.06,
        "half_width": 0.42,
        "height": 0.21,
    },
    "round": {
        "corner": 2.0,
        "depth": 0.72,
        "foot_width": 0.6,
        "belly": 0.16,
        "lip": 0.04,
        "half_width": 0.29,
        "height": 0.24,
    },
    "tall": {
        "corner": 3.0,
        "depth": 0.98,
        "foot_width": 0.72,
        "belly": 0.03,
        "lip": 0.06,
        "half_width": 0.24,
        "height": 0.62,
        "feet": 0.05,
    },
    "slab": {
        "corner": 2.4,
        "depth": 0.7,
        "foot_width": 0.84,
        "belly": 0.05,
        "lip": 0.03,
        "half_width": 0.58,
        "height": 0.12,
    },
}
"""Shapes of pots: fields of `bonsai_pot.Pot`, but `depth` is a share of the half width."""

GLAZES: tuple[tuple[Ramp, float], ...] = (
    (((52, 24, 14), (144, 76, 46), (208, 142, 102)), 0.05),
    (((34, 22, 18), (92, 62, 48), (158, 122, 98)), 0.06),
    (((12, 22, 54), (34, 68, 134), (124, 166, 214)), 0.6),
    (((10, 38, 34), (42, 104, 88), (142, 196, 172)), 0.5),
    (((104, 94, 76), (206, 194, 166), (250, 246, 230)), 0.3),
    (((20, 22, 26), (58, 62, 70), (132, 140, 150)), 0.35),
    (((60, 12, 14), (140, 36, 32), (214, 106, 88)), 0.5),
    (((52, 66, 72), (126, 152, 158), (206, 224, 226)), 0.45),
)
"""Colours of pots, and how much they shine."""

WOODS: tuple[Ramp, ...] = (
    ((34, 22, 18), (92, 62, 48), (158, 122, 98)),
    ((20, 12, 10), (58, 34, 26), (120, 80, 60)),
    ((60, 34, 18), (146, 98, 58), (206, 160, 112)),
)
"""Colours of stands."""
