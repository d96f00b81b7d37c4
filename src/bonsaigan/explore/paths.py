"""Ways between pictures: great circles, and closed walks whose pictures change at an even pace."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from bonsaigan.errors import ConfigError
from bonsaigan.explore.film import FPS, save_film
from bonsaigan.plots import make_grid

if TYPE_CHECKING:
    from bonsaigan.generator import Generator

WALK_MAX_BYTES = 1 << 30
"""Of a walk's frames, which are in memory several times."""
ROUNDS = 6
"""How often frames are placed anew at most; each round draws all of them."""
EVEN_ENOUGH = 0.03
"""Unevenness at which no eye sees more rounds."""


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Points (N, latent) on the great circle from a to b (latent,), at t (N,) from 0 to 1 (Shoemake 1985)."""
    cosine = nn.functional.cosine_similarity(a, b, dim=0).clamp(-1, 1)
    omega = torch.arccos(cosine)
    t = t[:, None]
    if omega.sin() < 1e-4:
        return a + (b - a) * t
    return (torch.sin((1 - t) * omega) * a + torch.sin(t * omega) * b) / torch.sin(omega)


def loop(stops: Tensor, at: np.ndarray) -> Tensor:
    """Points of the closed walk through stops, from each to the next along the great circle.

    Args:
        stops: float (K, latent).
        at: float64 (N,) from 0 to K: a whole number is a stop, K is the first one again.

    Returns:
        float (N, latent).
    """
    count = len(stops)
    leg = np.floor(at).astype(int)
    return torch.cat(
        [
            slerp(stops[k % count], stops[(k + 1) % count], torch.tensor([t], dtype=stops.dtype))
            for k, t in zip(leg, at - leg)
        ]
    )


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A film that ends where it begins."""

    frames: np.ndarray
    """uint8 (N, H, W, C)."""
    latents: Tensor
    """float32 (N, cells, latent): what each cell of each frame was drawn from."""
    unevenness: float
    """Standard deviation over mean of the distance from frame to frame; the mean of the cells."""
    plain_unevenness: float
    """The same for steps of one length in latent space, as plain interpolation takes them."""

    def save(self, path: str | Path, *, fps: float = FPS) -> Path:
        """Write it as .mp4, .gif or .webp; see `film.save_film`."""
        return save_film(Path(path), self.frames, fps=fps)


def walk(generator: Generator, stops: Tensor, *, frames: int, columns: int = 1) -> Walk:
    """Walk through stops and back to the first, each frame as far from the last as every other.

    Far means the root mean square over the pixels. Steps of one length in latent space would linger at some
    pictures and rush past others. So frames are placed anew by the length of the way in pixels between them,
    until that is even.

    Args:
        stops: float32 (cells, K, latent), K at least 2: every cell of the grid takes a walk of its own.
        frames: how many, at least 2 for each stop.
        columns: cells a row.

    Raises:
        ConfigError: too few stops or frames, or too much to keep in memory.
    """
    cells, count = stops.shape[:2]
    if count < 2:
        raise ConfigError(f"{count} stop: a walk needs two or more different ones (--seeds, --stops)")
    if frames < 2 * count:
        raise ConfigError(
            f"{frames} frames for {count} stops: a walk needs at least two frames a stop (--seconds, --fps)"
        )
    size, channels = generator.spec.size, generator.spec.channels
    size_bytes = frames * cells * size.width_px * size.height_px * channels
    if size_bytes > WALK_MAX_BYTES:
        raise ConfigError(
            f"{frames} frames of {cells} picture{'s' * (cells > 1)}: {size_bytes >> 20} MiB, at most "
            f"{WALK_MAX_BYTES >> 20} fit (--seconds, --fps, --grid)"
        )
    walks = [_even_walk(generator, one, frames) for one in stops]
    pictures = np.stack([pictures for pictures, *_ in walks], axis=1)
    grids = pictures[:, 0] if cells == 1 else np.stack([make_grid(p, columns=columns) for p in pictures])
    return Walk(
        frames=grids,
        latents=torch.stack([z for _, z, *_ in walks], dim=1),
        unevenness=float(np.mean([after for *_, after, _ in walks])),
        plain_unevenness=float(np.mean([before for *_, before in walks])),
    )


def steps_of(frames: np.ndarray) -> np.ndarray:
    """Root mean square difference from each frame of a closed film to the next.

    Args:
        frames: uint8 (N, H, W, C).

    Returns:
        float64 (N,) from 0 to 1; the last is from the last frame to the first.
    """
    following = itertools.chain(frames[1:], frames[:1])
    return np.array(
        [np.sqrt(np.mean(np.square(b.astype(np.float32) - a))) / 255 for a, b in zip(frames, following)],
        np.float64,
    )


def unevenness(steps: np.ndarray) -> float:
    """Coefficient of variation: standard deviation over mean, 0 for steps that are all alike."""
    mean = steps.mean()
    return float(steps.std() / mean) if mean > 0 else 0.0


def respaced(at: np.ndarray, steps: np.ndarray, *, end: float) -> np.ndarray:
    """Places whose steps are even, if between two old places pictures change at a constant rate.

    Args:
        at: float64 (N,) ascending, from 0.
        steps: float64 (N,) how far pictures are from each place to the next, and from the last to `end`.
        end: where the walk closes.
    """
    # The least step keeps places apart where pictures stand still.
    way = np.concatenate([[0.0], np.cumsum(np.maximum(steps, 1e-6))])
    return np.interp(np.linspace(0, way[-1], len(at) + 1)[:-1], way, np.append(at, end))


def _even_walk(generator: Generator, stops: Tensor, frames: int) -> tuple[np.ndarray, Tensor, float, float]:
    """Pictures (N, H, W, C), latents (N, latent), unevenness, and unevenness of the plain walk."""
    end = float(len(stops))
    at = np.linspace(0, end, frames + 1)[:-1]
    best: tuple[np.ndarray, Tensor, float] | None = None
    plain = 0.0
    for number in range(ROUNDS + 1):
        z = loop(stops, at)
        pictures = generator.images(z)
        steps = steps_of(pictures)
        now = unevenness(steps)
        if number == 0:
            plain = now
        if best is None or now < best[2]:
            best = pictures, z, now
        if now <= EVEN_ENOUGH:
            break
        at = respaced(at, steps, end=end)
    assert best is not None
    return *best, plain
