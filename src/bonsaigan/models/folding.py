"""What a trained generator can do with fewer and plainer layers: the same pictures.

In evaluation batch norm is a factor and a summand for each channel. The layer before it is linear, so the
factor goes into its weights and only the summand is left. Soft colours go into the last layer's kernel. Exact
but for rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bonsaigan.models.fastgan import SoftColour


@runtime_checkable
class HasNorms(Protocol):
    """A generator with batch norms."""

    def normed_layers(self) -> Iterator[tuple[str, str]]:
        """Names of each batch norm and of the linear layer before it."""
        ...


class Shift(nn.Module):
    """What is left of a batch norm: a summand for each channel."""

    def __init__(self, bias: Tensor):
        """
        Args:
            bias: float (C,).
        """
        super().__init__()
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Add it to maps, float (B, C, H, W)."""
        return x + self.bias[:, None, None]


def shift_of(norm: nn.Module) -> Tensor:
    """What is left of a batch norm in a folded network, float (C,)."""
    assert isinstance(norm, Shift)
    return norm.bias


@torch.no_grad()
def fold(network: nn.Module) -> nn.Module:
    """A copy of a generator for evaluation, in which each batch norm is a `Shift` and the last layer an
    ordinary one; itself unchanged."""
    folded = copy.deepcopy(network).eval()
    for name, layer in list(folded.named_children()):
        if isinstance(layer, SoftColour):
            setattr(folded, name, layer.plain())
    if isinstance(folded, HasNorms):
        for name, before in folded.normed_layers():
            norm = folded.get_submodule(name)
            if isinstance(norm, Shift):
                continue
            assert isinstance(norm, nn.BatchNorm2d)
            scale, shift = _factor_and_summand(norm)
            layer = folded.get_submodule(before)
            layer.weight = nn.Parameter(_scaled(layer, scale))
            parent, _, child = name.rpartition(".")
            setattr(folded.get_submodule(parent), child, Shift(shift))
    return folded.requires_grad_(False)


def _scaled(layer: nn.Module, scale: Tensor) -> Tensor:
    weight = layer.get_parameter("weight")
    if isinstance(layer, nn.ConvTranspose2d):
        return weight * scale[:, None, None]
    if isinstance(layer, nn.Conv2d):
        return weight * scale[:, None, None, None]
    # A dense layer that makes a grid: its results are in the order (row, column, channel).
    return (weight.view(-1, len(scale), weight.shape[1]) * scale[:, None]).view_as(weight)


def _factor_and_summand(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale
