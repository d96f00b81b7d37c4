"""The pot of a drawn bonsai, and the stand under it: a wall about an outline, elliptic to rectangular."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bonsaigan.data.bonsai_parts import Array, Frame, Light, Noise, Ramp, dot, shade, unit, view


@dataclass(frozen=True, kw_only=True)
class Pot:
    """A pot about x = `centre`, or a stand, in units of the world."""

    centre: float
    half_width: float
    half_depth: float
    height: float
    corner: float
    """Exponent of the outline seen from above: 2 an ellipse, 8 nearly a rectangle."""
    foot_width: float
    """Width at the foot as a share of the rim's."""
    belly: float
    """How far the wall bulges, as a share of the half width."""
    lip: float
    """How far the rim stands out, as a share of the half width."""
    glaze: Ramp
    gloss: float
    """Strength of the highlight: 0 for unglazed clay."""
    feet: float = 0.13
    """Height of the feet as a share of the pot's."""
    rim: float = 0.87
    """Where the rim begins, as a share of the way to the edge; 0 closes the top: a stand."""
    top: float = 0.0
    """The y of the rim."""

    @property
    def ground(self) -> float:
        """The y of what the pot stands on."""
        return self.top - self.height * (1.0 + self.feet)

    def points(self, frame: Frame, light: Light, noise: Noise) -> tuple[Array, Array]:
        """Wall and rim as world points (K, 3) and their colours (K, 3), in painting order."""
        wide = int(np.ceil(1.9 * self.half_width * frame.scale[0]))
        high = int(np.ceil(1.1 * self.height * frame.scale[1])) + 1
        grid = np.meshgrid(np.linspace(-1.0, 1.0, wide), np.linspace(-self.feet, 1.0, high))
        x, h = (axis.reshape(-1) for axis in grid)
        foot = (h >= 0.0) | ((np.abs(x) > 0.62) & (np.abs(x) < 0.86))
        x, h = x[foot], h[foot]
        size = self._profile(h)
        slope = (self._profile(h + 0.02) - self._profile(h - 0.02)) / 0.04 * self.half_width / self.height
        out = np.maximum(1.0 - np.abs(x) ** self.corner, 0.0) ** (1.0 / self.corner)
        y = self.top + (h - 1.0) * self.height
        at = np.stack([x * size * self.half_width, y, out * size * self.half_depth], axis=-1)
        steep = self.corner - 1.0
        flat = np.stack([np.sign(x) * np.abs(x) ** steep, 0 * x, out**steep], axis=-1)
        normal = unit(flat)
        normal[:, 1] = -slope
        normal = unit(view(normal, frame.tilt))
        bright = light.on(normal) * np.where(h < 0.0, 0.45, 0.8 + 0.25 * h)
        bright *= 0.88 + 0.24 * noise(x * 9 + 7, h * 5)
        under_lip = np.exp(-np.square((h - 0.80) / 0.06)) * (self.lip > 0)
        shine = self._highlight(normal, light) * np.exp(-np.square((h - 0.55) / 0.3))
        colour = shade(self.glaze, bright - 0.18 * under_lip) + shine[:, None]
        rim_at, rim_colour = self._rim(frame, light)
        at, colour = np.concatenate([at, rim_at]), np.concatenate([colour, rim_colour])
        at[:, 0] += self.centre
        return at, colour

    def inside(self, r: Array, angle: Array) -> Array:
        """World points (N, 3) at the height of the rim: `r` (N,) is 0 in the middle and 1 at the edge."""
        c, s = np.cos(angle), np.sin(angle)
        outline = (np.abs(c) ** self.corner + np.abs(s) ** self.corner) ** (-1.0 / self.corner)
        reach = r * outline * self._profile(np.ones(1))
        return np.stack(
            [self.centre + reach * c * self.half_width, 0 * r + self.top, reach * s * self.half_depth],
            axis=-1,
        )

    def _profile(self, h: Array) -> Array:
        """Width against the rim's, at a share `h` of the height."""
        h1 = np.clip(h, 0.0, 1.0)
        wall = self.foot_width + (1.0 - self.foot_width) * h1 + self.belly * np.sin(np.pi * h1)
        return wall + self.lip * np.clip((h1 - 0.8) * 25.0, 0.0, 1.0)

    def _rim(self, frame: Frame, light: Light) -> tuple[Array, Array]:
        """The flat ring on top of the wall: points about the origin, and colours."""
        around = int(np.ceil(6 * self.half_width * frame.scale[0]))
        across = int(np.ceil(1.5 * (1.0 - self.rim) * self.half_width * frame.scale[0])) + 2
        angle, r = np.meshgrid(np.linspace(0, 2 * np.pi, around), np.linspace(self.rim, 1.0, across))
        at = self.inside(r.reshape(-1), angle.reshape(-1))
        at[:, 0] -= self.centre
        up = np.tile([0.0, 0.94, 0.34], (len(at), 1))
        bright = light.on(up) * (0.5 + 0.4 * r.reshape(-1)) + 0.05 * (r.reshape(-1) > 0.95)
        return at, shade(self.glaze, bright)

    def _highlight(self, normal: Array, light: Light) -> Array:
        """An upright reflection, 0 to 255 (Blinn 1977); as of a tall window, so height does not count."""
        half = unit(light.direction + np.array([0.0, 0.0, 1.0]))
        half = unit(half * np.array([1.0, 0.0, 1.0]))
        return self.gloss * 255.0 * np.clip(dot(normal, half), 0.0, 1.0) ** 30
