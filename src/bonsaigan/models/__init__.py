"""Networks. They know pictures and latents, and nothing of losses or training."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import torch

from bonsaigan.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from bonsaigan.config import NetworkConfig, Size

# Intel's vector functions (tanh, exp, sqrt and others in torch on x86) choose their code on the first call in
# a process. When threads make that call together, now and then one of them still takes another path, whose
# last bits differ: one training in ten then takes another course from its first step (benchmarks/LOG.md).
# One call from a single thread settles it.
torch.tanh(torch.zeros(1))

GENERATORS = {
    "article": ("article", "ArticleGenerator"),
    "dcgan": ("dcgan", "DcganGenerator"),
    "fastgan": ("fastgan", "FastGanGenerator"),
    "r3gan": ("r3gan", "R3ganGenerator"),
}
"""Families of generators that `build_generator` knows: module and class of each."""
DISCRIMINATORS = {
    "article": ("article", "ArticleDiscriminator"),
    "dcgan": ("dcgan", "DcganDiscriminator"),
    "projected": ("projected", "ProjectedDiscriminator"),
    "r3gan": ("r3gan", "R3ganDiscriminator"),
}
"""Families of discriminators that `build_discriminator` knows: module and class of each."""


def build_generator(family: str, *, network: NetworkConfig, size: Size, channels: int) -> nn.Module:
    """A generator with fresh weights: float (B, latent) → float (B, C, H, W) in [-1, 1].

    Raises:
        ConfigError: `family` is unknown, or has not what `network` asks for.
    """
    if family not in GENERATORS:
        raise ConfigError(f"generator family {family!r:.40}: expected one of {', '.join(GENERATORS)}")
    more = {name: True for name in ("subpixel", "soft_colour") if getattr(network, name)}
    if more and family != "fastgan":
        raise ConfigError(f"generator family {family!r}: has no network.{next(iter(more))}")
    kind = _class(*GENERATORS[family])
    return kind(latent=network.latent, width=network.width, size=size, channels=channels, **more)


def build_discriminator(family: str, *, network: NetworkConfig, size: Size, channels: int) -> nn.Module:
    """A discriminator with fresh weights, for pictures float (B, C, H, W) in [-1, 1].

    Raises:
        KeyError: `family` is unknown; recipes name it, users do not.
        ConfigError: it cannot be told anything and `network` asks for it.
    """
    more = {"told": network.told} if network.told else {}
    if more and family != "projected":
        raise ConfigError(f"discriminator family {family!r}: cannot be told anything (network.told)")
    kind = _class(*DISCRIMINATORS[family])
    return kind(width=network.discriminator_width, size=size, channels=channels, **more)


def _class(module: str, name: str) -> type[nn.Module]:
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
