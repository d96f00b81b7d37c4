"""Networks. They know pictures and latents, and nothing of losses or training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bonsaigan.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from bonsaigan.config import NetworkConfig, Size

GENERATORS = ("article", "fastgan")
"""Families of generators that `build_generator` knows."""


def build_generator(family: str, *, network: NetworkConfig, size: Size, channels: int) -> nn.Module:
    """A generator with fresh weights: float (B, latent) → float (B, C, H, W) in [-1, 1].

    Raises:
        ConfigError: `family` is unknown.
    """
    if family == "article":
        from bonsaigan.models.article import ArticleGenerator

        return ArticleGenerator(latent=network.latent, width=network.width, size=size, channels=channels)
    if family == "fastgan":
        from bonsaigan.models.fastgan import FastGanGenerator

        return FastGanGenerator(latent=network.latent, width=network.width, size=size, channels=channels)
    raise ConfigError(f"generator family {family!r}: expected one of {', '.join(GENERATORS)}")
