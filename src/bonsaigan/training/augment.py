"""Differentiable augmentation (Zhao et al., "Differentiable Augmentation for Data-Efficient GAN
Training", 2020).

Real and generated pictures pass through the same random changes before the discriminator sees them, and
gradients flow through. Each picture has its own draw from torch's default generator, the same one however
many processes share the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from bonsaigan.processes import own_share

TRANSLATION_SHARE = 1 / 8
"""Largest shift as a share of the side (Zhao et al. 2020, section 3.2)."""


def augment(images: Tensor, names: Sequence[str]) -> Tensor:
    """Apply augmentations in order.

    Args:
        images: float (B, C, H, W) in [-1, 1].
        names: keys of `AUGMENTATIONS`.

    Returns:
        Pictures of the same shape; colours may leave [-1, 1].
    """
    for name in names:
        images = AUGMENTATIONS[name](images)
    return images


def flip(images: Tensor) -> Tensor:
    """Mirror half of the pictures. Generated ones need not be mirrored, but it does no harm."""
    mirrored = own_share(lambda n: torch.rand(n, 1, 1, 1), len(images)) < 0.5
    return torch.where(mirrored.to(images.device), images.flip(3), images)


def colour(images: Tensor) -> Tensor:
    """Brightness ± 0.5, saturation x 0 to 2, contrast x 0.5 to 1.5 (Zhao et al. 2020); alpha stays."""
    rgb, alpha = images[:, :3], images[:, 3:]
    draws = own_share(lambda n: torch.rand(n, 3, 1, 1, 1), len(images)).to(images)
    brightness, saturation, contrast = draws.unbind(1)
    rgb = rgb + (brightness - 0.5)
    grey = rgb.mean(dim=1, keepdim=True)
    rgb = (rgb - grey) * (saturation * 2) + grey
    mean = rgb.mean(dim=(1, 2, 3), keepdim=True)
    rgb = (rgb - mean) * (contrast + 0.5) + mean
    return torch.cat((rgb, alpha), dim=1) if alpha.shape[1] else rgb


def translation(images: Tensor) -> Tensor:
    """Shift by up to an eighth of each side.

    differs: the border repeats instead of turning black, so that no dark edge can leak into the pictures.
    """
    batch, _, height, width = images.shape
    reach_y, reach_x = round(height * TRANSLATION_SHARE), round(width * TRANSLATION_SHARE)
    shift_y = own_share(lambda n: torch.randint(-reach_y, reach_y + 1, (n, 1)), batch)
    shift_x = own_share(lambda n: torch.randint(-reach_x, reach_x + 1, (n, 1)), batch)
    # With the border laid on first no pixel is taken twice: gradients of one taken twice are added up in an
    # order that depends on the threads.
    wide = functional.pad(images, (reach_x, reach_x, reach_y, reach_y), mode="replicate")
    rows, columns = torch.arange(height) + shift_y + reach_y, torch.arange(width) + shift_x + reach_x
    which = torch.arange(batch)[:, None, None]
    moved = wide.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "flip": flip,
    "colour": colour,
    "translation": translation,
}
