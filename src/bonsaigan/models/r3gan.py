"""The two networks of R3GAN (Huang et al., "The GAN is dead; long live the GAN! A Modern GAN Baseline",
NeurIPS 2024), scaled for small sets and small machines.

Residual networks without any normalisation. A block is a 1x1 convolution that narrows, a 3x3 convolution and
a 1x1 convolution that widens again; the last starts at zero, so that a block begins as the identity (Zhang et
al., "Fixup Initialization", ICLR 2019). Both networks have a grid of 4 cells a side at their ends: the
generator learns it as a basis, the discriminator reads it with one weight a cell.

differs: the finest blocks work at half the pictures' size, and a 4x4 convolution of stride 2 leads there and
back. The paper's last step, wide blocks around a grouped convolution, is not taken: on a CPU that convolution
runs at a tenth of the rate of others, and its second derivative slower still. Both for the sake of pictures
per minute (benchmarks/LOG.md).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from bonsaigan.config import Size
from bonsaigan.models.fastgan import count_doublings

NARROWEST = 32
"""Fewest channels of any level."""
NARROWING = 2
"""How many times fewer channels the 3x3 convolution of a block has."""
SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))
"""Keeps the variance through a LeakyReLU of that slope (He et al. 2015)."""
BLOCKS = 1
"""Residual blocks a level."""
Linear = TypeVar("Linear", nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


class R3ganGenerator(nn.Module):
    """Latent vectors to pictures."""

    def __init__(self, *, latent: int, width: int, size: Size, channels: int = 3):
        """
        Args:
            latent: length of a latent vector.
            width: channels of the start grid; they halve with every doubling of the side, from the second on.
            size: size of the pictures.
            channels: channels of the pictures.
        """
        super().__init__()
        self.latent, self.size, self.channels = latent, size, channels
        doublings = count_doublings(size)
        grid = (size.height_px >> doublings, size.width_px >> doublings)
        widths = _widths(width, doublings - 1)
        self.basis = nn.Parameter(torch.randn(widths[0], *grid))
        self.start = _linear(nn.Linear(latent, widths[0], bias=False), gain=1.0)
        self.levels = nn.ModuleList(_blocks(w) for w in widths)
        self.changes = nn.ModuleList(_change(a, b) for a, b in pairwise(widths))
        self.to_picture = _linear(nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1), gain=1.0)

    def forward(self, z: Tensor) -> Tensor:
        """Draw one picture for each latent vector.

        Args:
            z: float (B, latent), drawn from a standard normal distribution.

        Returns:
            Pictures, float (B, C, H, W): in [-1, 1] when drawing, not bounded in training.
        """
        x = self.levels[0](self.start(z)[:, :, None, None] * self.basis)
        for change, level in zip(self.changes, self.levels[1:]):
            # differs: bilinear, [1, 3, 3, 1]; the paper's [1, 2, 1] shifts pictures by half a pixel a level.
            x = functional.interpolate(change(x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = level(x)
        pictures = self.to_picture(x).float()
        return pictures if self.training else pictures.clamp(-1, 1)


class R3ganDiscriminator(nn.Module):
    """Pictures to logits: the generator's mirror image."""

    def __init__(self, *, width: int, size: Size, channels: int = 3):
        """
        Args:
            width: channels of the last grid; the finer levels have as many as the generator's.
            size: size of the pictures.
            channels: channels of the pictures.
        """
        super().__init__()
        halvings = count_doublings(size)
        grid = (size.height_px >> halvings, size.width_px >> halvings)
        widths = _widths(width, halvings - 1)[::-1]
        self.from_picture = _linear(nn.Conv2d(channels, widths[0], 4, stride=2, padding=1), gain=1.0)
        self.levels = nn.ModuleList(_blocks(w) for w in widths)
        self.changes = nn.ModuleList(_change(a, b) for a, b in pairwise(widths))
        last = widths[-1]
        self.basis = _linear(nn.Conv2d(last, last, grid, groups=last, bias=False), gain=1.0)
        self.logit = _linear(nn.Linear(last, 1, bias=False), gain=1.0)

    def forward(self, images: Tensor) -> Tensor:
        """Score pictures, float (B, C, H, W) in [-1, 1]: logits, float32 (B, 1)."""
        x = self.levels[0](self.from_picture(images))
        for change, level in zip(self.changes, self.levels[1:]):
            x = level(change(halved(x)))
        return self.logit(self.basis(x).flatten(1)).float()


class Block(nn.Module):
    """Narrow, mix neighbours, widen, and add to what came in."""

    def __init__(self, channels: int):
        super().__init__()
        inner = channels // NARROWING
        self.narrow = _linear(nn.Conv2d(channels, inner, 1), gain=GAIN)
        self.mix = _linear(nn.Conv2d(inner, inner, 3, padding=1), gain=GAIN)
        self.widen = _linear(nn.Conv2d(inner, channels, 1, bias=False), gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.leaky_relu(self.narrow(x), SLOPE)
        y = functional.leaky_relu(self.mix(y), SLOPE)
        return x + self.widen(y)


def halved(x: Tensor) -> Tensor:
    """Blur with [1, 2, 1] both ways and keep every second pixel: float (B, C, H, W) → (B, C, H/2, W/2)."""
    # Two means of neighbours: with one step of two pixels and one of one, they are the filter and the stride.
    padded = functional.pad(x, (1, 0, 1, 0), mode="replicate")
    return functional.avg_pool2d(functional.avg_pool2d(padded, 2, stride=1), 2)


def _widths(width: int, doublings: int) -> list[int]:
    return [max(width >> max(0, level - 1), NARROWEST) for level in range(doublings + 1)]


def _blocks(channels: int) -> nn.Sequential:
    return nn.Sequential(*(Block(channels) for _ in range(BLOCKS)))


def _change(channels: int, out: int) -> nn.Module:
    return nn.Identity() if channels == out else _linear(nn.Conv2d(channels, out, 1, bias=False), gain=1.0)


def _linear(layer: Linear, *, gain: float) -> Linear:
    """Initial values: N(0, gain² / fan-in) (He et al. 2015), bias 0."""
    fan_in = layer.weight[0].numel()
    if isinstance(layer, nn.ConvTranspose2d):  # a pixel sees every second cell of the kernel each way
        fan_in = layer.weight[:, 0, ::2, ::2].numel()
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(fan_in))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
