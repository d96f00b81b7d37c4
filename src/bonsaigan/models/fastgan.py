"""The generator of FastGAN (Liu et al., "Towards Faster and Stabilized GAN Training", ICLR 2021), made small.

Kept: nearest upsampling, 3x3 convolutions, batch norm, gated linear units, skip-layer excitation.
differs: channels halve with every doubling of the side, down to 32, so that the levels until there cost the
same; one convolution a level; no noise injection, so that a picture is a function of its latent vector alone;
no spectral norm in the generator; for large pictures a sub-pixel convolution in place of the last level;
once trained, colour drawn softly.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from bonsaigan.config import Size

SHORTEST_START = 4
"""The start grid's shorter side is this or the next size up that the picture's size allows."""
SMALL_MAP = 16
"""Below so many pixels a map is so small that making another kernel costs more than it saves."""
NARROWEST = 32
"""Fewest channels of any level."""
POOLED = 4
"""Excitation sees its coarse map as a grid of this side."""
EXCITE_LEVELS = 2
"""Skip-layer excitation reaches over this many doublings."""
LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in a pixel's lightness (ITU-R BT.601)."""
SOFT = (1 / 6, 4 / 6, 1 / 6)
"""How far a pixel's colour reaches, along a side: the cubic B-spline at whole pixels."""


class FastGanGenerator(nn.Module):
    """Latent vectors to pictures."""

    def __init__(
        self,
        *,
        latent: int,
        width: int,
        size: Size,
        channels: int = 3,
        subpixel: bool = False,
        soft_colour: bool = False,
    ):
        """
        Args:
            latent: length of a latent vector.
            width: channels of the start grid; they halve with every doubling of the side, down to 32.
            size: size of the pictures.
            channels: channels of the pictures.
            subpixel: double the side for the last time by one convolution that makes all four pixels of a
                cell (Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient
                Sub-Pixel Convolutional Neural Network", CVPR 2016), not by a level, of whose cost it is a
                fraction.
            soft_colour: once trained, draw colours softly (`SoftColour`); nothing changes for grey pictures.
        """
        super().__init__()
        self.latent, self.size, self.channels = latent, size, channels
        doublings = count_doublings(size)
        self.rows, self.columns = size.height_px >> doublings, size.width_px >> doublings
        count = doublings - subpixel
        widths = [max(width >> level, NARROWEST) for level in range(count + 1)]
        self.start = nn.Linear(latent, self.rows * self.columns * widths[0] * 2, bias=False)
        self.start_norm = nn.BatchNorm2d(widths[0] * 2)
        self.levels = nn.ModuleList(Level(a, b) for a, b in pairwise(widths))
        self.excitations = nn.ModuleList(
            Excitation(widths[level], widths[level + EXCITE_LEVELS])
            for level in range(count - EXCITE_LEVELS + 1)
        )
        self.to_picture = nn.Conv2d(widths[-1], channels, kernel_size=3, padding=1)
        self.apply(initial_values)
        if subpixel:
            self.to_picture = doubled(self.to_picture)
        if soft_colour and channels >= len(LUMA):
            self.to_picture = SoftColour(self.to_picture)

    def forward(self, z: Tensor) -> Tensor:
        """Draw one picture for each latent vector.

        Args:
            z: float (B, latent), drawn from a standard normal distribution.

        Returns:
            Pictures, float (B, C, H, W) in [-1, 1].
        """
        # differs: the latent is brought to a fixed length, as StyleGAN does; only its direction matters.
        z = functional.normalize(z, dim=1) * self.latent**0.5
        grid = self.start(z).view(z.shape[0], self.rows, self.columns, -1).permute(0, 3, 1, 2)
        maps = [gated(self.start_norm(grid))]
        for number, level in enumerate(self.levels, start=1):
            x = level(maps[-1])
            if number >= EXCITE_LEVELS:
                x = x * self.excitations[number - EXCITE_LEVELS](maps[number - EXCITE_LEVELS])
            maps.append(x)
        return torch.tanh(self.to_picture(maps[-1]).float())

    def normed_layers(self) -> Iterator[tuple[str, str]]:
        """Names of each batch norm and of the linear layer before it."""
        yield "start_norm", "start"
        for level in range(len(self.levels)):
            yield f"levels.{level}.norm", f"levels.{level}.conv"


class Level(nn.Module):
    """Doubles the side: nearest upsampling, convolution, batch norm, gated linear unit."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, out * 2, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out * 2)

    def forward(self, x: Tensor) -> Tensor:
        return gated(self.norm(upsampled_conv(x, self.conv.weight)))


class Excitation(nn.Module):
    """Skip-layer excitation (FastGAN, equation 1): channel gates of a fine map from a coarse one."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel_size=POOLED)
        self.gate = nn.Conv2d(out, out, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.silu(self.conv(pooled(x, POOLED, POOLED)))
        return torch.sigmoid(self.gate(x))


def pooled(x: Tensor, rows: int, columns: int) -> Tensor:
    """A map (B, C, H, W) averaged to `rows` x `columns` cells, which overlap where they do not divide it."""
    even = x.shape[-2] % rows == 0 and x.shape[-1] % columns == 0
    if even or x.device.type != "mps":  # Apple's GPUs have it for even cells alone
        return functional.adaptive_avg_pool2d(x, (rows, columns))
    return pooled_by_products(x, rows, columns)


def pooled_by_products(x: Tensor, rows: int, columns: int) -> Tensor:
    """The same from two products."""
    return bins(x.shape[-2], rows).to(x) @ x @ bins(x.shape[-1], columns).to(x).T


def bins(side: int, cells: int) -> Tensor:
    """Adaptive average pooling of a side to so many cells, as a matrix (cells, side)."""
    return functional.adaptive_avg_pool1d(torch.eye(side), cells).T.contiguous()


def gated(x: Tensor) -> Tensor:
    """Gated linear unit over the channels: the first half, weighed by the sigmoid of the second.

    Written out, since the gradient of torch's own makes the batch norm before it three times slower on a CPU.
    """
    values, gates = x.chunk(2, dim=1)
    return values * torch.sigmoid(gates)


def upsampled_conv(x: Tensor, weight: Tensor) -> Tensor:
    """Nearest upsampling to twice the side, then a 3x3 convolution with zeros around.

    Of the nine pixels under the kernel, those that come from one small pixel meet the sum of their weights.
    That is a transposed convolution of stride 2 with a 4x4 kernel: the same numbers at 4/9 of the work.

    Args:
        x: float (B, C, H, W).
        weight: float (D, C, 3, 3).

    Returns:
        float (B, D, 2H, 2W).
    """
    if x.shape[2] * x.shape[3] <= SMALL_MAP:
        x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return functional.conv2d(x, weight, padding=1)
    flipped = weight.flip(2, 3).transpose(0, 1)
    corners = ((left, 1 - left, top, 1 - top) for left in (0, 1) for top in (0, 1))
    spread = sum(functional.pad(flipped, corner) for corner in corners)
    assert isinstance(spread, Tensor)
    return functional.conv_transpose2d(x, spread, stride=2, padding=1)


def doubled(conv: nn.Conv2d) -> nn.ConvTranspose2d:
    """A sub-pixel convolution that draws what a convolution of kernel 3 draws, each pixel four times.

    Written as the transposed convolution it equals. Four pixels that begin alike leave no grid in the
    pictures (Aitken et al., "Checkerboard artifact free sub-pixel convolution", 2017).
    """
    channels, out = conv.in_channels, conv.out_channels
    layer = nn.ConvTranspose2d(channels, out, kernel_size=6, stride=2, padding=2, bias=conv.bias is not None)
    flipped = conv.weight.detach().flip(2, 3).transpose(0, 1)
    layer.weight.data.copy_(flipped.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
    if conv.bias is not None and layer.bias is not None:
        layer.bias.data.copy_(conv.bias.detach())
    return layer


class SoftColour(nn.Module):
    """The layer that makes a picture; when it does not train, chroma is blurred a little, luma is not.

    A generator learns how much its colours should change from pixel to pixel, but not where: it draws noise.
    Blurred in training, it only draws more (benchmarks/LOG.md). Blurring the picture is the same as blurring
    the kernel, so this is one convolution, of a kernel larger by two.
    """

    def __init__(self, layer: nn.Conv2d | nn.ConvTranspose2d):
        """
        Args:
            layer: makes pictures of 3 channels, or 4 with transparency; its parameters are taken over.
        """
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.transposed = isinstance(layer, nn.ConvTranspose2d)
        self.kernel_size, self.stride = layer.kernel_size, layer.stride[0]
        self.padding = (self.kernel_size[0] - self.stride) // 2

    def forward(self, x: Tensor) -> Tensor:
        convolve = functional.conv_transpose2d if self.transposed else functional.conv2d
        weight, blur = (self.weight, 0) if self.training else (self.softened(), 1)
        return convolve(x, weight, self.bias, stride=self.stride, padding=self.padding + blur)

    def softened(self) -> Tensor:
        """The weight that draws so, of the layer's shape but for a kernel larger by two."""
        weight = self.weight.transpose(0, 1) if self.transposed else self.weight
        rgb, alpha = weight[: len(LUMA)], weight[len(LUMA) :]
        grey = torch.einsum("d,dchw->chw", rgb.new_tensor(LUMA), rgb)
        colour = (rgb - grey).flatten(0, 1)[:, None]
        tap = rgb.new_tensor(SOFT)
        blurred = functional.conv2d(colour, torch.outer(tap, tap)[None, None], padding=2)
        soft = blurred.view(*rgb.shape[:2], *blurred.shape[2:]) + functional.pad(grey, (1, 1, 1, 1))
        if len(alpha):
            soft = torch.cat((soft, functional.pad(alpha, (1, 1, 1, 1))))
        return soft.transpose(0, 1) if self.transposed else soft

    def plain(self) -> nn.Conv2d | nn.ConvTranspose2d:
        """An ordinary layer that draws what this one does when it does not train."""
        weight = self.softened().detach()
        out, channels = weight.shape[:2]
        if self.transposed:
            out, channels = channels, out
        kind = nn.ConvTranspose2d if self.transposed else nn.Conv2d
        layer = kind(channels, out, weight.shape[2], stride=self.stride, padding=self.padding + 1)
        layer.weight.data, layer.bias = weight, self.bias
        return layer


def count_doublings(size: Size) -> int:
    """How often the start grid doubles: as often as both sides allow while the shorter stays at least 4."""
    doublings = 0
    width, height = size.width_px, size.height_px
    while width % 2 == 0 and height % 2 == 0 and min(width, height) >= 2 * SHORTEST_START:
        width, height, doublings = width // 2, height // 2, doublings + 1
    return doublings


def initial_values(layer: nn.Module) -> None:
    """N(0, 0.02) for weights, N(1, 0.02) for the scales of batch norm, as DCGAN has them."""
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.normal_(layer.weight, 0.0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
        nn.init.zeros_(layer.bias)
