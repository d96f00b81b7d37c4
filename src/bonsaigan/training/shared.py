"""Scores while training: pictures and features that every process makes its part of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from bonsaigan import processes
from bonsaigan.data.prepare import to_uint8
from bonsaigan.data.selection import PictureArray, spread_out
from bonsaigan.training.ema import fixed_latents

if TYPE_CHECKING:
    from bonsaigan.evaluation.scores import RealReference

EVALUATE_COUNT, DRAW_BATCH = 256, 32
REAL_MAX = 1000
"""Real pictures that a score while training is held against; of more, so many, spread over the set."""


def all_score(first_wants: bool) -> bool:
    """Whether a score is made now: the first process's word, for all."""
    return processes.total([float(first_wants and processes.is_first())])[0] > 0


def real_reference(pictures: PictureArray, device: torch.device) -> RealReference:
    """The real side of the scores, from uint8 (N, H, W, C)."""
    from bonsaigan.evaluation.scores import RealReference

    return RealReference(spread_out(pictures, REAL_MAX), device=str(device))


def draw_and_embed(
    network: nn.Module, reference: RealReference, *, latent: int
) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """`EVALUATE_COUNT` fixed latents, their pictures uint8 (N, H, W, C), and features float32 (N, D)."""
    count = processes.count()
    z = fixed_latents(-(-EVALUATE_COUNT // count) * count, latent=latent, seed=1)
    pictures = draw(network, z.chunk(count)[processes.rank()])
    parts = torch.from_numpy(pictures), torch.from_numpy(reference.embed(pictures))
    whole = [processes.gathered(part)[:EVALUATE_COUNT].numpy() for part in parts]
    return z[:EVALUATE_COUNT], whole[0], whole[1]


def draw(network: nn.Module, z: Tensor) -> np.ndarray:
    """Pictures uint8 (N, H, W, C) of latents (N, latent)."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        return np.concatenate([to_uint8(network(part.to(device)).cpu()) for part in z.split(DRAW_BATCH)])
