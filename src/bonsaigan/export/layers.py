"""What the builders of several programs' layers need to know of ours."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bonsaigan.models.fastgan import POOLED, Excitation, bins


def squeeze(excitation: Excitation, rows: int, columns: int) -> tuple[tuple[int, int], Tensor]:
    """How an excitation sees a map of `rows` x `columns`.

    Returns:
        The windows of average pooling before its convolution, and that convolution's weight. Where the bins
        would be of unequal size, which other programs do not have, pooling and convolution make one.
    """
    weight = excitation.conv.weight
    if rows % POOLED == 0 and columns % POOLED == 0:
        return (rows // POOLED, columns // POOLED), weight
    return (1, 1), torch.einsum("oiab,ah,bw->oihw", weight, bins(rows, POOLED), bins(columns, POOLED))


def start_weight(start: nn.Linear, channels: int) -> Tensor:
    """The weight of a dense layer that makes a grid, (rows · columns, channels, in)."""
    return start.weight.view(-1, channels, start.in_features)
