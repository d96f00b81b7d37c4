"""What the builders of several programs' layers need to know of ours."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bonsaigan.models.fastgan import Excitation

POOLED = 4
"""Excitation sees its coarse map as a grid of this side."""


def squeeze(excitation: Excitation, rows: int, columns: int) -> tuple[tuple[int, int], Tensor]:
    """How an excitation sees a map of `rows` x `columns`.

    Returns:
        The windows of average pooling before its convolution, and that convolution's weight. Where the bins
        would be of unequal size, which other programs do not have, pooling and convolution make one.
    """
    weight = excitation.conv.weight
    if rows % POOLED == 0 and columns % POOLED == 0:
        return (rows // POOLED, columns // POOLED), weight
    return (1, 1), torch.einsum("oiab,ah,bw->oihw", weight, _bins(rows), _bins(columns))


def start_weight(start: nn.Linear, channels: int) -> Tensor:
    """The weight of a dense layer that makes a grid, (rows · columns, channels, in)."""
    return start.weight.view(-1, channels, start.in_features)


def _bins(side: int) -> Tensor:
    """Adaptive average pooling of `side` cells to four, as a matrix (4, side)."""
    return functional.adaptive_avg_pool1d(torch.eye(side), POOLED).T.contiguous()
