"""What stands behind and under a drawn bonsai: studio paper, a wall, shoji, a garden out of focus, dusk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from bonsaigan.data.bonsai_parts import Array, Noise

Colour = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Backdrop:
    """A kind of background."""

    top: tuple[Colour, ...]
    """Colours of the wall at the top, one is chosen."""
    low: tuple[Colour, ...]
    """Colours of the wall at the horizon."""
    table: tuple[Colour, ...]
    """Colours of the ground."""
    ambient: float = 0.42
    """Brightness of shaded sides."""
    grain: float = 0.0
    """Strength of the ground's wood grain."""
    wall: bool = True
    """Whether shadows fall on a wall."""
    detail: str = ""
    """What is drawn on the wall: glow, bokeh, shoji, hills, boards."""
    bright: bool = False
    """Whether pale blossom and snow would be lost on it."""


WOODS: tuple[Colour, ...] = ((150, 102, 62), (112, 72, 44), (178, 134, 88), (84, 54, 38))
BACKDROPS = {
    "white": Backdrop(
        top=((236, 238, 240), (244, 241, 234)),
        low=((214, 217, 220), (226, 221, 212)),
        table=((232, 232, 232), (238, 234, 226)),
        ambient=0.5,
        bright=True,
    ),
    "grey": Backdrop(
        top=((96, 102, 108), (118, 110, 102)),
        low=((176, 180, 182), (190, 182, 172)),
        table=((150, 152, 154), (160, 152, 142)),
        detail="glow",
    ),
    "dark": Backdrop(
        top=((12, 13, 16), (20, 14, 12), (10, 18, 20)),
        low=((52, 54, 60), (62, 50, 42), (36, 56, 60)),
        table=((30, 29, 30), (48, 33, 24)),
        ambient=0.34,
        grain=0.3,
        detail="glow",
    ),
    "garden": Backdrop(
        top=((52, 84, 48), (84, 116, 66), (40, 66, 58)),
        low=((128, 156, 92), (98, 128, 72), (150, 166, 120)),
        table=(*WOODS, (136, 134, 128)),
        ambient=0.42,
        grain=1.0,
        wall=False,
        detail="bokeh",
    ),
    "shoji": Backdrop(
        top=((240, 232, 212), (232, 228, 218)),
        low=((226, 212, 184), (216, 210, 196)),
        table=WOODS,
        ambient=0.46,
        grain=0.8,
        detail="shoji",
        bright=True,
    ),
    "wall": Backdrop(
        top=((204, 190, 160), (188, 196, 190), (176, 160, 140), (150, 170, 178)),
        low=((180, 164, 134), (166, 174, 168), (150, 134, 116), (128, 148, 156)),
        table=WOODS,
        grain=0.8,
    ),
    "boards": Backdrop(
        top=((104, 88, 74), (126, 118, 110)),
        low=((86, 72, 60), (110, 102, 94)),
        table=((122, 104, 86), (96, 84, 74), (150, 146, 138)),
        grain=0.7,
        detail="boards",
    ),
    "dusk": Backdrop(
        top=((72, 76, 128), (48, 70, 118), (96, 72, 116)),
        low=((250, 182, 116), (244, 150, 112), (252, 206, 150)),
        table=((74, 54, 50), (60, 52, 60)),
        ambient=0.36,
        grain=0.4,
        wall=False,
        detail="hills",
    ),
    "sky": Backdrop(
        top=((112, 164, 210), (140, 180, 208)),
        low=((214, 228, 234), (226, 228, 220)),
        table=(*WOODS, (160, 158, 150)),
        ambient=0.46,
        grain=0.7,
        wall=False,
        detail="hills",
        bright=True,
    ),
}


def paint(
    kind: Backdrop, rng: np.random.Generator, noise: Noise, width: int, height: int, horizon: float
) -> Array:
    """The empty scene as float64 (H, W, 3), 0 to 255; the ground begins at row `horizon`."""
    pick = [
        np.array(colours[rng.integers(len(colours))], np.float64)
        for colours in (kind.top, kind.low, kind.table)
    ]
    top, low, table = (np.clip(c + rng.normal(0, 5, 3) + rng.normal(0, 5), 4, 250) for c in pick)
    details = rng.random((40, 5))
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    unit = float(min(width, height))
    down = np.clip(y / max(horizon, 1.0), 0.0, 1.0)[..., None]
    wall = top + (low - top) * down**1.3
    wall = _DETAILS[kind.detail](wall, x / unit, y / unit, horizon / unit, low, details, noise)
    ground = _ground(table, kind.grain, x / unit, (y - horizon) / unit, noise, details)
    edge = np.clip((y - horizon) / (0.012 * unit if kind.grain else 0.16 * unit) + 0.5, 0.0, 1.0)[..., None]
    return wall * (1.0 - edge) + ground * edge


def _ground(table: Array, grain: float, x: Array, y: Array, noise: Noise, details: Array) -> Array:
    depth = np.clip(y, 0.0, 0.35)
    streaks = noise(x * 3 + details[0, 0] * 50, y * 90) * 0.6 + noise(x * 9, y * 160 + 9) * 0.4
    light = 0.92 + 0.9 * depth + grain * 0.28 * (streaks - 0.5)
    return table * light[..., None]


def _plain(
    wall: Array, x: Array, y: Array, horizon: float, low: Array, details: Array, noise: Noise
) -> Array:
    mottle = noise(x * 7 + details[0, 0] * 40, y * 7) * 0.6 + noise(x * 19, y * 19) * 0.4
    side = (details[1, 0] - 0.5) * 0.24
    return wall * (0.97 + 0.06 * mottle + side * (x - 0.5))[..., None]


def _glow(wall: Array, x: Array, y: Array, horizon: float, low: Array, details: Array, noise: Noise) -> Array:
    cx, cy = x.max() * (0.35 + 0.3 * details[0, 0]), horizon * (0.45 + 0.3 * details[0, 1])
    near = np.exp(-(np.square(x - cx) + np.square(y - cy)) / 0.12)[..., None]
    return wall * (1.0 - 0.75 * near) + low * 1.12 * 0.75 * near


def _bokeh(
    wall: Array, x: Array, y: Array, horizon: float, low: Array, details: Array, noise: Noise
) -> Array:
    height, width = x.shape
    patches = noise(x * 4 + details[0, 0] * 50, y * 4 + details[0, 1] * 50)[..., None]
    picture = Image.fromarray(np.clip(wall * (0.62 + 0.7 * patches), 0, 255).astype(np.uint8))
    pen, unit = ImageDraw.Draw(picture, "RGBA"), min(width, height)
    for u, v, size, tone, alpha in details[: 14 + int(details[0, 2] * 26)]:
        r = (0.03 + 0.075 * size) * unit
        tint = low * (0.75 + 0.7 * tone) + np.array([40.0, 26.0, -10.0]) * (tone - 0.3)
        fill = (*(int(c) for c in np.clip(tint, 0, 255)), int(40 + 110 * alpha))
        pen.ellipse([u * width - r, v * horizon * unit - r, u * width + r, v * horizon * unit + r], fill=fill)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(unit / 60)), np.float64)


def _shoji(
    wall: Array, x: Array, y: Array, horizon: float, low: Array, details: Array, noise: Noise
) -> Array:
    wide, high = 0.24 + 0.12 * details[0, 0], 0.16 + 0.1 * details[0, 1]
    across = np.abs((x + details[0, 2]) / wide % 1.0 - 0.5) * wide
    down = np.abs((y + details[0, 3]) / high % 1.0 - 0.5) * high
    bar = np.clip(1.6 - np.minimum(across, down) / 0.006, 0.0, 1.0)[..., None] * 0.75
    frame = np.array([120.0, 86.0, 58.0])
    return wall * (1.0 - bar) + frame * bar


def _boards(
    wall: Array, x: Array, y: Array, horizon: float, low: Array, details: Array, noise: Noise
) -> Array:
    wide = 0.13 + 0.1 * details[0, 0]
    board = np.floor(x / wide)
    tone = 0.82 + 0.3 * noise(board * 7.5 + 3, board * 3.5) + 0.16 * (noise(x * 60, y * 2.5) - 0.5)
    gap = np.clip(np.minimum(x / wide % 1.0, 1 - x / wide % 1.0) * wide / 0.008, 0.45, 1.0)
    return wall * (tone * gap)[..., None]


def _hills(
    wall: Array, x: Array, y: Array, horizon: float, low: Array, details: Array, noise: Noise
) -> Array:
    mist = noise(x * 2.2 + details[0, 0] * 50, y * 7)[..., None]
    wall = wall + (low - wall) * 0.4 * np.clip(mist * 1.8 - 0.8, 0, 1)
    for k in range(3):
        crest = horizon * (0.62 + 0.13 * k) - 0.16 * (
            noise(x * (2.0 + k) + details[k, 1] * 50, x * 0 + k) - 0.3
        )
        inside = np.clip((y - crest) / 0.03 + 0.5, 0, 1)[..., None]
        hill = low * (0.80 - 0.15 * k) + np.array([-18.0, -4.0, 14.0])
        wall = wall * (1 - 0.8 * inside) + hill * 0.8 * inside
    return wall


_DETAILS = {"": _plain, "glow": _glow, "bokeh": _bokeh, "shoji": _shoji, "boards": _boards, "hills": _hills}
