"""The two networks of DCGAN (Radford et al., "Unsupervised Representation Learning with Deep Convolutional
Generative Adversarial Networks", ICLR 2016), for any picture size.

Strided convolutions instead of pooling, batch norm in both networks except at their ends, ReLU in the
generator, LeakyReLU 0.2 in the discriminator, initial values N(0, 0.02).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from bonsaigan.config import Size
from bonsaigan.models.fastgan import count_doublings, initial_values

NARROWEST = 32
"""Fewest channels of any level."""


class DcganGenerator(nn.Module):
    """Latent vectors to pictures."""

    def __init__(self, *, latent: int, width: int, size: Size, channels: int = 3):
        """
        Args:
            latent: length of a latent vector.
            width: channels of the start grid; they halve with every doubling of the side.
            size: size of the pictures.
            channels: channels of the pictures.
        """
        super().__init__()
        self.latent, self.size, self.channels = latent, size, channels
        doublings = count_doublings(size)
        self.rows, self.columns = size.height_px >> doublings, size.width_px >> doublings
        widths = [max(width >> level, NARROWEST) for level in range(doublings)]
        self.start = nn.Linear(latent, self.rows * self.columns * widths[0], bias=False)
        self.start_norm = nn.BatchNorm2d(widths[0])
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False) for a, b in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in widths[1:])
        self.to_picture = nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1)
        self.apply(initial_values)

    def forward(self, z: Tensor) -> Tensor:
        """Draw one picture for each latent vector.

        Args:
            z: float (B, latent), drawn from a standard normal distribution.

        Returns:
            Pictures, float (B, C, H, W) in [-1, 1].
        """
        grid = self.start(z).view(z.shape[0], self.rows, self.columns, -1).permute(0, 3, 1, 2)
        x = torch.relu(self.start_norm(grid))
        for up, norm in zip(self.ups, self.norms):
            x = torch.relu(norm(up(x)))
        return torch.tanh(self.to_picture(x).float())

    def normed_layers(self) -> Iterator[tuple[str, str]]:
        """Names of each batch norm and of the linear layer before it."""
        yield "start_norm", "start"
        for level in range(len(self.ups)):
            yield f"norms.{level}", f"ups.{level}"


class DcganDiscriminator(nn.Sequential):
    """Pictures to logits."""

    def __init__(self, *, width: int, size: Size, channels: int = 3):
        """
        Args:
            width: channels after the first convolution; they double with every halving of the side.
            size: size of the pictures.
            channels: channels of the pictures.
        """
        halvings = count_doublings(size)
        widths = [width << level for level in range(halvings)]
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for a, b in pairwise(widths):
            down = nn.Conv2d(a, b, 4, stride=2, padding=1, bias=False)
            layers += [down, nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
        rest = (size.height_px >> halvings, size.width_px >> halvings)
        super().__init__(*layers, nn.Conv2d(widths[-1], 1, rest), nn.Flatten())
        self.apply(initial_values)

    def forward(self, images: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Score pictures, float (B, C, H, W) in [-1, 1]: logits, float32 (B, 1)."""
        return super().forward(images).float()
