"""Networks. They know pictures and latents, and nothing of losses or training."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from bonsaigan.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from bonsaigan.config import NetworkConfig, Size

GENERATORS = {
    "article": ("article", "ArticleGenerator"),
    "dcgan": ("dcgan", "DcganGenerator"),
    "fastgan": ("fastgan", "FastGanGenerator"),
    "r3gan": ("r3gan", "R3ganGenerator"),
}
"""Families of generators that `build_generator` knows: module and class of each."""


def build_generator(family: str, *, network: NetworkConfig, size: Size, channels: int) -> nn.Module:
    """A generator with fresh weights: float (B, latent) → float (B, C, H, W) in [-1, 1].

    Raises:
        ConfigError: `family` is unknown.
    """
    if family not in GENERATORS:
        raise ConfigError(f"generator family {family!r}: expected one of {', '.join(GENERATORS)}")
    module, name = GENERATORS[family]
    kind = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    return kind(latent=network.latent, width=network.width, size=size, channels=channels)
