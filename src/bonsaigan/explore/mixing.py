"""The shape of one picture with the colours and surfaces of another, level by level."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from bonsaigan.errors import ConfigError
from bonsaigan.models.fastgan import Excitation

if TYPE_CHECKING:
    from bonsaigan.generator import Generator


def mix_levels(generator: Generator) -> int:
    """How many levels of a generator can be mixed; 0 for families that draw every level from one place."""
    return len(_gates(generator))


def mix(
    generator: Generator, shape: Tensor, style: Tensor, *, levels: Collection[int] | None = None
) -> np.ndarray:
    """Draw with the maps of one latent vector and the channel gates of another.

    FastGAN's skip-layer excitation weighs the channels of fine maps by a coarse one. Taking those weights
    from another picture leaves the layout and changes the look (Liu et al. 2021, section 3.1).

    Args:
        shape: float32 (N, latent), whose layout is drawn.
        style: float32 (N, latent), whose gates are taken.
        levels: which gates, 0 the coarsest; all of them by default.

    Returns:
        uint8 (N, H, W, C).

    Raises:
        ConfigError: the generator has no such gates, or not that level.
    """
    gates = _gates(generator)
    if not gates:
        raise ConfigError(
            f"a {generator.spec.family} generator has no levels to mix; blend the seeds instead"
        )
    chosen = range(len(gates)) if levels is None else levels
    for level in chosen:
        if not 0 <= level < len(gates):
            raise ConfigError(f"--levels {level}: this generator has levels 0 to {len(gates) - 1}")
    taken: dict[int, list[Tensor]] = {level: [] for level in chosen}

    def take(level: int):
        return lambda _module, _inputs, output: taken[level].append(output)

    def give(level: int):
        return lambda _module, _inputs, _output: taken[level].pop(0)

    _with_hooks(generator, style, {gates[level]: take(level) for level in chosen})
    return _with_hooks(generator, shape, {gates[level]: give(level) for level in chosen})


def _with_hooks(generator: Generator, z: Tensor, hooks: dict[nn.Module, object]) -> np.ndarray:
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]  # pyright: ignore
    try:
        return generator.images(z)
    finally:
        for handle in handles:
            handle.remove()


def _gates(generator: Generator) -> list[nn.Module]:
    return [module for module in generator.network.modules() if isinstance(module, Excitation)]
