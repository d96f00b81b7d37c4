"""A picture → the latent vector whose picture is most like it, and an honest word on how like it is.

Latent vectors are optimised by gradient descent on the distance of frozen features (Zhang et al., "The
Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018, with all channels weighed
alike) and of pixels, from the best of many seeds. They keep the length that training drew, so what is found
is a picture the generator draws, not one that it can be forced to.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from bonsaigan.config import MODES, Fit
from bonsaigan.data.picture import examine, natural
from bonsaigan.data.prepare import to_float
from bonsaigan.data.resize import as_array
from bonsaigan.errors import DataError, first_line
from bonsaigan.evaluation.embedding import NETWORK, embed
from bonsaigan.models import features

if TYPE_CHECKING:
    from PIL import Image

    from bonsaigan.generator import Generator

SEEDS, STARTS, STEPS = 256, 4, 150
LEARNING_RATE = 0.1
PIXEL_WEIGHT = 1.0
PAIRS = 32
FILE_MAX_BYTES = 64 << 20
SAME, LIKE = 0.35, 0.75
"""Shares of the distance between different pictures, by a network the search did not use: below the first it
is the same picture to the eye, below the second a similar one."""


@dataclass(frozen=True, kw_only=True)
class Distance:
    """How far the target is, by one measure."""

    before: float
    """From the nearest of the seeds that were tried."""
    after: float
    """From what was found."""
    different: float
    """Between two different pictures of the generator, on average: what to hold the others against."""

    @property
    def share(self) -> float:
        """`after` over `different`: 0 is the same picture, 1 no nearer than any other."""
        return self.after / max(self.different, 1e-9)


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """What the search found."""

    latent: Tensor
    """float32 (latent,)."""
    target: np.ndarray
    """uint8 (H, W, C), the wanted picture as the generator would have it."""
    picture: np.ndarray
    """uint8 (H, W, C), what the generator draws from `latent`."""
    seed: int
    """The nearest of the seeds that were tried."""
    perceptual: Distance
    """What was minimised, without the pixels: 0 to 4."""
    pixels: Distance
    """Root mean square, 0 to 1."""
    features: Distance
    """Euclidean, between vectors of a network that the search did not use."""

    @property
    def verdict(self) -> str:
        """How close it got, in a sentence or two."""
        share = self.features.share
        found = "It found the picture" if share < SAME else "It found a similar picture"
        if share >= LIKE:
            found = "It did not find the picture: the generator does not draw it"
        return (
            f"{found}. From the target it is {share:.2f} of the distance between two different pictures, by "
            f"a network that the search did not use ({self.perceptual.share:.2f} by the one it used, "
            f"{self.pixels.share:.2f} by pixels); the nearest of {SEEDS} seeds, {self.seed}, was at "
            f"{self.features.before / max(self.features.different, 1e-9):.2f}."
        )


def invert(
    generator: Generator,
    image: str | Path | bytes | np.ndarray | Image.Image,
    *,
    steps: int = STEPS,
    fit: Fit = "crop",
    progress: Callable[[int, int | None], None] | None = None,
) -> Inversion:
    """Find the latent vector whose picture is most like an image.

    Args:
        image: a file, its content, uint8 (H, W, C), or a Pillow image; any size.
        steps: of the optimisation.
        fit: how it gets the shape of the generator's pictures.
        progress: called with the steps done and all steps.

    Raises:
        DataError: the image cannot be read.
    """
    target = as_target(generator, image, fit=fit)
    perceptual = Perceptual(generator.device)
    seeds = generator.latents(range(SEEDS))
    drawn = generator.images(seeds)
    wanted = perceptual.embed(_rgb(to_float(target[None])).to(generator.device))
    wanted_pixels = to_float(target[None]).to(generator.device)
    with torch.no_grad():
        known = [
            perceptual.embed(_rgb(to_float(drawn[i : i + 16])).to(generator.device))
            for i in range(0, SEEDS, 16)
        ]
        of_seeds = torch.cat([perceptual.distance(part, wanted) for part in known])
        stages = [torch.cat(parts) for parts in zip(*known)]
        between = perceptual.distance(stages, [s.roll(1, 0) for s in stages]).mean()
    pixels = np.square(drawn.astype(np.float32) - target).mean(axis=(1, 2, 3)) * 4 / 255**2
    start = torch.argsort(of_seeds.cpu() + PIXEL_WEIGHT * torch.from_numpy(pixels))[:STARTS]
    z, losses = _descend(generator, perceptual, seeds[start], wanted, wanted_pixels, steps, progress)
    best = int(losses.argmin())
    nearest = int(start[0])
    latent = z[best]
    picture = generator.images(latent[None])[0]
    with torch.no_grad():
        found = perceptual.embed(_rgb(to_float(picture[None])).to(generator.device))
        after = float(perceptual.distance(found, wanted))
    return Inversion(
        latent=latent,
        target=target,
        picture=picture,
        seed=nearest,
        perceptual=Distance(before=float(of_seeds[nearest]), after=after, different=float(between)),
        pixels=_pixel_distance(target, drawn[nearest], picture, drawn),
        features=_feature_distance(target, drawn[nearest], picture, drawn, str(generator.device)),
    )


def as_target(
    generator: Generator, image: str | Path | bytes | np.ndarray | Image.Image, *, fit: Fit = "crop"
) -> np.ndarray:
    """Any image as the generator would have drawn it: its size, its channels; uint8 (H, W, C).

    Raises:
        DataError: it cannot be read.
    """
    from PIL import Image as Pillow
    from PIL import ImageOps

    spec, name = generator.spec, "the image"
    if isinstance(image, (str, Path)):
        name = str(image)
        try:
            if Path(image).stat().st_size > FILE_MAX_BYTES:
                raise DataError(f"{name}: larger than {FILE_MAX_BYTES >> 20} MiB")
            image = Path(image).read_bytes()
        except OSError as error:
            raise DataError(f"{name}: {error.strerror}") from None
    if not isinstance(image, bytes):
        file = io.BytesIO()
        try:
            opened = Pillow.fromarray(_flat(image)) if isinstance(image, np.ndarray) else image
            natural(ImageOps.exif_transpose(opened)).save(file, format="PNG")
        except (OSError, TypeError, ValueError) as error:
            raise DataError(f"{name}: {first_line(error)}") from None
        image = file.getvalue()
    # The same way as a picture to train on takes, with the same bounds on what strangers send.
    examined = examine(image, size=spec.size, fit=fit)
    if examined.picture is None:
        raise DataError(f"{name}: {'; '.join(f.message for f in examined.findings)}")
    small = Pillow.fromarray(_flat(examined.picture))
    if small.mode == "RGBA" and spec.channels != 4:
        small = Pillow.alpha_composite(Pillow.new("RGBA", small.size, "white"), small)
    return as_array(small.convert(MODES[spec.channels]))


class Perceptual:
    """Distance of the frozen features that training sees through."""

    def __init__(self, device: torch.device):
        self.network = features.load("efficientnet-lite0").to(device)

    def embed(self, images: Tensor) -> list[Tensor]:
        """Feature maps at four scales, each cell of unit length.

        Args:
            images: float (B, 3, H, W) in [-1, 1]; gradients flow to them.
        """
        view = features.view_hw(images.shape[2], images.shape[3])
        images = nn.functional.interpolate(images, view, mode="bilinear", antialias=False)
        return [nn.functional.normalize(stage, dim=1) for stage in self.network.stages(images)]

    @staticmethod
    def distance(a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Mean over scales and cells of the squared difference: float (B,), from 0 to 4."""
        return torch.stack([(x - y).square().sum(dim=1).mean(dim=(1, 2)) for x, y in zip(a, b)]).mean(dim=0)


def _descend(
    generator: Generator,
    perceptual: Perceptual,
    start: Tensor,
    wanted: list[Tensor],
    wanted_pixels: Tensor,
    steps: int,
    progress: Callable[[int, int | None], None] | None,
) -> tuple[Tensor, Tensor]:
    """Adam with a cosine decay from several latent vectors: the best of each way (N, latent), and its loss.

    The start counts too, so that what is found is never farther than the nearest seed.
    """
    length = start.norm(dim=1, keepdim=True).to(generator.device)
    z = nn.Parameter(start.to(generator.device))
    optimizer = torch.optim.Adam([z], lr=LEARNING_RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    best, losses = start.clone(), torch.full((len(start),), torch.inf)
    for step in range(steps + 1):
        on_sphere = nn.functional.normalize(z, dim=1) * length
        images = generator.network(on_sphere).clamp(-1, 1)
        near = perceptual.distance(perceptual.embed(_rgb(images)), wanted)
        each = near + PIXEL_WEIGHT * (images - wanted_pixels).square().mean(dim=(1, 2, 3))
        nearer = each.detach().cpu() < losses
        best[nearer], losses[nearer] = on_sphere.detach().cpu()[nearer], each.detach().cpu()[nearer]
        if progress is not None:
            progress(step, steps)
        if step < steps:
            optimizer.zero_grad()
            each.sum().backward()
            optimizer.step()
            schedule.step()
    return best, losses


def _pixel_distance(target: np.ndarray, near: np.ndarray, found: np.ndarray, drawn: np.ndarray) -> Distance:
    def apart(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(np.square(a.astype(np.float32) - b).mean(axis=(-3, -2, -1))).mean() / 255)

    return Distance(
        before=apart(target, near), after=apart(target, found), different=apart(drawn[1:], drawn[:-1])
    )


def _feature_distance(
    target: np.ndarray, near: np.ndarray, found: np.ndarray, drawn: np.ndarray, device: str
) -> Distance:
    rows = embed(np.stack([target, near, found, *drawn[:PAIRS]]), network=NETWORK, device=device)
    others = rows[3:]
    return Distance(
        before=float(np.linalg.norm(rows[0] - rows[1])),
        after=float(np.linalg.norm(rows[0] - rows[2])),
        different=float(np.linalg.norm(others - np.roll(others, 1, axis=0), axis=1).mean()),
    )


def _rgb(images: Tensor) -> Tensor:
    """float (B, 1, 3 or 4, H, W) → float (B, 3, H, W): grey repeated, transparency over white."""
    if images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1)
    if images.shape[1] == 4:
        opacity = (images[:, 3:] + 1) / 2
        return images[:, :3] * opacity + (1 - opacity)
    return images


def _flat(picture: np.ndarray) -> np.ndarray:
    return picture[:, :, 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture
