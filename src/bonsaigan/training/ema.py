"""The generator's exponential moving average, and batch statistics that fit it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

RAMP_SHARE = 0.05
"""The half-life is at most this share of the pictures seen (Karras et al. 2020, StyleGAN2-ADA)."""
CALIBRATION_BATCH, CALIBRATION_BATCHES = 64, 2


class GeneratorEma:
    """A second generator whose weights trail the trained one's.

    Karras et al., "Progressive Growing of GANs", 2018: w_ema ← w + (w_ema - w) β, β = ½^(batch / half-life).
    """

    def __init__(self, generator: nn.Module, *, half_life_kimg: float):
        """
        Args:
            generator: the network that is trained.
            half_life_kimg: thousands of pictures after which an old weight counts half; 0 follows at once.
        """
        self.module = copy.deepcopy(generator).eval().requires_grad_(False)
        self.half_life_nimg = half_life_kimg * 1000

    @torch.no_grad()
    def update(self, generator: nn.Module, *, batch: int, seen_nimg: int) -> None:
        """Take in the weights after a step of `batch` pictures, when `seen_nimg` were seen in all."""
        half_life_nimg = min(self.half_life_nimg, seen_nimg * RAMP_SHARE)
        beta = 0.5 ** (batch / half_life_nimg) if half_life_nimg > 0 else 0.0
        torch._foreach_lerp_(list(self.module.parameters()), list(generator.parameters()), 1 - beta)

    @torch.no_grad()
    def calibrated(self, *, latent: int) -> nn.Module:
        """A copy whose batch norms hold the statistics of its own weights, over 128 fixed latents.

        The statistics a small training batch leaves behind belong to other weights and are noisy.
        """
        module = copy.deepcopy(self.module)
        norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
        if norms:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None
                norm.train()
            z = fixed_latents(CALIBRATION_BATCH * CALIBRATION_BATCHES, latent=latent)
            device = next(module.parameters()).device
            for part in z.split(CALIBRATION_BATCH):
                module(part.to(device))
        return module.eval()


def fixed_latents(count: int, *, latent: int, seed: int = 0) -> Tensor:
    """The same latents whenever and wherever they are asked for, float32 (count, latent)."""
    return torch.randn(count, latent, generator=torch.Generator().manual_seed(seed))
