"""The FastGAN generator, its batch norms folded, in Keras' layers.

A gated linear unit becomes two convolutions, one for the values and one for their gates, so that no layer is
needed that some Keras version lacks.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from bonsaigan.export.keras import load_keras
from bonsaigan.export.keras_layers import apply, convolution, doubling, grid_start
from bonsaigan.export.layers import squeeze, start_weight
from bonsaigan.models.fastgan import EXCITE_LEVELS, Excitation, FastGanGenerator, Level
from bonsaigan.models.folding import shift_of


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
    last = network.to_picture
    if isinstance(last, nn.Conv2d):
        picture = convolution(last, maps[-1], "to_picture", activation="tanh")
    else:
        picture = doubling(last.weight, last.bias, maps[-1], "to_picture", activation="tanh")
    return keras.Model(z, picture, name="generator")


def _start(network: FastGanGenerator, latent: Any) -> Any:
    shift = shift_of(network.start_norm)
    weight = start_weight(network.start, len(shift))
    halves = []
    for name, part in zip(("values", "gates"), _halves(len(shift))):
        grid = (network.rows, network.columns)
        halves.append(grid_start(weight[:, part], shift[part], latent, f"start_{name}", grid=grid))
    return _gated(halves[0], halves[1], "start")


def _level(level: Level, x: Any, name: str) -> Any:
    keras = load_keras()
    x = keras.layers.UpSampling2D(2, interpolation="nearest", name=f"{name}_double")(x)
    shift, weight = shift_of(level.norm), level.conv.weight
    values, gates = (
        apply(keras.layers.Conv2D, x, f"{name}_{what}", weight[part], shift[part], padding="same")
        for what, part in zip(("values", "gates"), _halves(len(shift)))
    )
    return _gated(values, gates, name)


def _excitation(excitation: Excitation, x: Any, name: str) -> Any:
    keras = load_keras()
    windows, weight = squeeze(excitation, x.shape[1], x.shape[2])
    if windows != (1, 1):
        x = keras.layers.AveragePooling2D(windows, name=f"{name}_pool")(x)
    x = apply(keras.layers.Conv2D, x, f"{name}_squeeze", weight, excitation.conv.bias, activation="silu")
    return convolution(excitation.gate, x, f"{name}_gates", activation="sigmoid")


def _gated(values: Any, gates: Any, name: str) -> Any:
    layers = load_keras().layers
    opened = layers.Activation("sigmoid", name=f"{name}_open")(gates)
    return layers.Multiply(name=f"{name}_gated")([values, opened])


def _halves(channels: int) -> tuple[slice, slice]:
    return slice(0, channels // 2), slice(channels // 2, channels)
