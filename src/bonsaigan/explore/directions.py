"""Directions in which pictures change the most (Härkönen et al., "GANSpace", NeurIPS 2020).

Principal components of the features of many random pictures say how they differ; a regression from
the components to the latent vectors says how to get there (section 2.2 of the paper, for networks without a
style space). Each direction is then named after what it changes, as far as simple measures can tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from bonsaigan.data.prepare import to_rgb
from bonsaigan.errors import ConfigError, RunError
from bonsaigan.models.fastgan import pooled

if TYPE_CHECKING:
    from bonsaigan.generator import Generator

SAMPLES = 512
CELLS = 8
"""Feature maps are averaged to at most so many cells a side: where something is, but not to the pixel."""
TRIED_ON = 8
TRIED_AT = 2.0
STEP = 0.25
"""An amount of 1 moves a latent vector by this share of its length."""
AMOUNT_MAX = 4.0
TELLING = 0.7
"""A measure names a direction when it changes by this many of its own standard deviations."""
NAMES = (
    "brighter",
    "more contrast",
    "more colour",
    "warmer",
    "greener",
    "finer detail",
    "wider",
    "to the right",
    "lower",
)
UNNAMED = "other shape"


@dataclass(frozen=True, kw_only=True)
class Directions:
    """Directions of a generator, the one that changes pictures most first."""

    vectors: Tensor
    """float32 (k, latent), unit length."""
    changes: tuple[float, ...]
    """(k,) how far a picture is at amount 2 from itself at amount -2: root mean square, 0 to 1."""
    names: tuple[str, ...]
    """(k,) what a positive amount does."""

    def move(self, z: Tensor, amounts: dict[int, float]) -> Tensor:
        """Move latent vectors along some directions, keeping their lengths.

        Args:
            z: float32 (N, latent).
            amounts: place of a direction → how far, from -4 to 4; 1 is a quarter of the vector's length.

        Returns:
            float32 (N, latent).

        Raises:
            ConfigError: there is no such direction, or the amount is outside its limits.
        """
        length = z.norm(dim=1, keepdim=True)
        moved = z.clone()
        for place, amount in amounts.items():
            if not 0 <= place < len(self.vectors):
                raise ConfigError(f"direction {place}: there are {len(self.vectors)}, counted from 0")
            if not -AMOUNT_MAX <= amount <= AMOUNT_MAX:
                limits = f"from {-AMOUNT_MAX:g} up to {AMOUNT_MAX:g}"
                raise ConfigError(f"amount {amount:g} of direction {place}: must be {limits}")
            moved += self.vectors[place] * (amount * STEP) * length
        return moved * (length / moved.norm(dim=1, keepdim=True).clamp_min(1e-9))


def find_directions(generator: Generator, k: int) -> Directions:
    """The k strongest directions, always the same ones for the same generator.

    Args:
        k: from 1 up to half the latent vector's length, and up to half of `SAMPLES`.

    Raises:
        ConfigError: k is outside its limits.
    """
    latent = generator.spec.network.latent
    most = max(1, min(latent // 2, SAMPLES // 2))
    if not 1 <= k <= most:
        raise ConfigError(f"-k {k} directions: must be from 1 up to {most}")
    z = generator.latents(range(SAMPLES))
    vectors = principal_directions(z, features(generator, z), count=min(latent, 2 * k))
    tried = Directions(vectors=vectors, changes=(), names=())
    base = z[:TRIED_ON]
    low, high = (
        np.stack([generator.images(tried.move(base, {i: side * TRIED_AT})) for i in range(len(vectors))])
        for side in (-1, 1)
    )
    changes = np.sqrt(np.square(high.astype(np.float32) - low).mean(axis=(2, 3, 4))).mean(axis=1) / 255
    order = np.argsort(-changes, kind="stable")[:k]
    usual = measures(generator.images(z[:128])).std(axis=0)
    told = [(measures(high[i]) - measures(low[i])).mean(axis=0) / np.maximum(usual, 1e-6) for i in order]
    names, signs = _named(np.stack(told))
    return Directions(
        vectors=vectors[torch.from_numpy(order)] * torch.tensor(signs)[:, None],
        changes=tuple(float(changes[i]) for i in order),
        names=names,
    )


def principal_directions(z: Tensor, x: Tensor, *, count: int) -> Tensor:
    """Latent directions of the principal components of features.

    Args:
        z: float32 (N, latent).
        x: float32 (N, D), the features of the pictures drawn from z.
        count: how many components.

    Returns:
        float32 (count, latent), unit length.
    """
    centred = x - x.mean(dim=0)
    # With fewer pictures than features, the N x N matrix of their products has the same components.
    _, places = torch.linalg.eigh((centred @ centred.T).double())
    coordinates = places.flip(1)[:, :count].float()
    # Coordinates are uncorrelated, so least squares from them to z (equation 2 of the paper) is a product.
    return nn.functional.normalize(coordinates.T @ (z - z.mean(dim=0)), dim=1)


def features(generator: Generator, z: Tensor) -> Tensor:
    """The last feature maps of a quarter of the picture's side, float32 (N, D).

    Raises:
        RunError: they are not finite numbers.
    """
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        kept.append(pooled(output, CELLS, CELLS).flatten(1).float().cpu())

    handle = _middle(generator).register_forward_hook(keep)
    try:
        generator.images(z)
    finally:
        handle.remove()
    found = torch.cat(kept)[: len(z)]
    if not found.isfinite().all():
        raise RunError("this generator's feature maps are not finite numbers: its weights are damaged")
    return found


def measures(pictures: np.ndarray) -> np.ndarray:
    """Simple measures of pictures, one for each of `NAMES`.

    Args:
        pictures: uint8 (N, H, W, C).

    Returns:
        float32 (N, 9).
    """
    rgb = to_rgb(pictures).astype(np.float32) / 255
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    edges = np.abs(np.diff(grey, axis=2))[:, 1:] + np.abs(np.diff(grey, axis=1))[:, :, 1:]
    total = edges.sum(axis=(1, 2)) + 1e-6
    rows, columns = (np.linspace(-1, 1, side, dtype=np.float32) for side in edges.shape[1:])
    right = (edges * columns).sum(axis=(1, 2)) / total
    low = (edges * rows[:, None]).sum(axis=(1, 2)) / total
    wide = (edges * np.square(columns - right[:, None, None])).sum(axis=(1, 2)) / total
    values = (
        grey.mean(axis=(1, 2)),
        grey.std(axis=(1, 2)),
        (rgb.max(axis=3) - rgb.min(axis=3)).mean(axis=(1, 2)),
        (red - blue).mean(axis=(1, 2)),
        (green - (red + blue) / 2).mean(axis=(1, 2)),
        edges.mean(axis=(1, 2)),
        wide,
        right,
        low,
    )
    return np.stack(values, axis=1)


def _named(told: np.ndarray) -> tuple[tuple[str, ...], list[float]]:
    """A name for each row of changes, every name once, and the sign that makes it true."""
    free = np.ones(told.shape[1], bool)
    names, signs = [], []
    for row in told:
        most = int(np.argmax(np.where(free, np.abs(row), -1)))
        if not free.any() or abs(row[most]) < TELLING:
            names.append(f"{UNNAMED} {sum(n.startswith(UNNAMED) for n in names) + 1}")
            signs.append(1.0)
            continue
        free[most] = False
        names.append(NAMES[most])
        signs.append(1.0 if row[most] > 0 else -1.0)
    return tuple(names), signs


def _middle(generator: Generator) -> nn.Module:
    seen: list[tuple[nn.Module, int]] = []

    def note(module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            seen.append((module, output.shape[2]))

    handles = [module.register_forward_hook(note) for module in generator.network.modules()]
    try:
        with torch.inference_mode():
            generator.network(torch.ones(1, generator.spec.network.latent, device=generator.device))
    finally:
        for handle in handles:
            handle.remove()
    wanted = min(rows for _, rows in seen if rows >= generator.spec.size.height_px // 4)
    return [module for module, rows in seen if rows == wanted][-1]
