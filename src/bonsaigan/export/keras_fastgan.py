"""The FastGAN generator in Keras' layers.

Batch norm disappears into the convolution before it. A gated linear unit becomes two convolutions, one for
the values and one for their gates, so that no layer is needed that some Keras version lacks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bonsaigan.export.keras import load_keras
from bonsaigan.export.keras_layers import apply, batch_norm, convolution, grid_start
from bonsaigan.models.fastgan import EXCITE_LEVELS, Excitation, FastGanGenerator, Level

POOLED = 4
"""Excitation sees its coarse map as a grid of this side."""


def build_fastgan(network: FastGanGenerator) -> Any:
    """The Keras model of a FastGAN generator, with its weights."""
    keras = load_keras()
    z = keras.Input((network.latent,), name="latent")
    unit = keras.layers.UnitNormalization(name="unit_length")(z)
    fixed = keras.layers.Rescaling(network.latent**0.5, name="fixed_length")(unit)
    maps = [_start(network, fixed)]
    for number, level in enumerate(network.levels, start=1):
        assert isinstance(level, Level)
        x = _level(level, maps[-1], f"level_{number}")
        if number >= EXCITE_LEVELS:
            excitation = network.excitations[number - EXCITE_LEVELS]
            assert isinstance(excitation, Excitation)
            gates = _excitation(excitation, maps[number - EXCITE_LEVELS], f"excitation_{number}")
            x = keras.layers.Multiply(name=f"excited_{number}")([x, gates])
        maps.append(x)
    picture = convolution(network.to_picture, maps[-1], "to_picture", activation="tanh")
    return keras.Model(z, picture, name="generator")


def _start(network: FastGanGenerator, latent: Any) -> Any:
    scale, shift = batch_norm(network.start_norm)
    cells = network.rows * network.columns
    weight = network.start.weight.view(cells, len(scale), -1) * scale[:, None]
    halves = []
    for name, part in zip(("values", "gates"), _halves(len(scale))):
        grid = (network.rows, network.columns)
        halves.append(grid_start(weight[:, part], shift[part], latent, f"start_{name}", grid=grid))
    return _gated(halves[0], halves[1], "start")


def _level(level: Level, x: Any, name: str) -> Any:
    keras = load_keras()
    x = keras.layers.UpSampling2D(2, interpolation="nearest", name=f"{name}_double")(x)
    scale, shift = batch_norm(level.norm)
    weight = level.conv.weight * scale[:, None, None, None]
    values, gates = (
        apply(keras.layers.Conv2D, x, f"{name}_{what}", weight[part], shift[part], padding="same")
        for what, part in zip(("values", "gates"), _halves(len(scale)))
    )
    return _gated(values, gates, name)


def _excitation(excitation: Excitation, x: Any, name: str) -> Any:
    keras = load_keras()
    rows, columns = x.shape[1], x.shape[2]
    weight, bias = excitation.conv.weight, excitation.conv.bias
    assert bias is not None
    if rows % POOLED == 0 and columns % POOLED == 0:
        if (rows, columns) != (POOLED, POOLED):
            pool = (rows // POOLED, columns // POOLED)
            x = keras.layers.AveragePooling2D(pool, name=f"{name}_pool")(x)
    else:
        # Bins of unequal size: Keras has no such pooling, but pooling and convolution make one convolution.
        weight = torch.einsum("oiab,ah,bw->oihw", weight, _bins(rows), _bins(columns))
    x = apply(keras.layers.Conv2D, x, f"{name}_squeeze", weight, bias, activation="silu")
    return convolution(excitation.gate, x, f"{name}_gates", activation="sigmoid")


def _gated(values: Any, gates: Any, name: str) -> Any:
    layers = load_keras().layers
    opened = layers.Activation("sigmoid", name=f"{name}_open")(gates)
    return layers.Multiply(name=f"{name}_gated")([values, opened])


def _halves(channels: int) -> tuple[slice, slice]:
    return slice(0, channels // 2), slice(channels // 2, channels)


def _bins(side: int) -> Tensor:
    """Adaptive average pooling of `side` cells to four, as a matrix (4, side)."""
    return nn.functional.adaptive_avg_pool1d(torch.eye(side), POOLED).T.contiguous()
