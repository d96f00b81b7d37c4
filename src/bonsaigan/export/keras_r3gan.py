"""The R3GAN generator in Keras' layers: residual blocks, bilinear doublings."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bonsaigan.export.keras import load_keras
from bonsaigan.export.keras_layers import convolution, doubling, grid_start
from bonsaigan.models.r3gan import SLOPE, Block, R3ganGenerator


def build_r3gan(network: R3ganGenerator) -> Any:
    """The Keras model of an R3GAN generator, with its weights."""
    keras = load_keras()
    z = keras.Input((network.latent,), name="latent")
    channels, rows, columns = network.basis.shape
    weight = network.basis.flatten(1).T[:, :, None] * network.start.weight
    x = grid_start(weight, torch.zeros(channels), z, "start", grid=(rows, columns))
    x = _level(network.levels[0], x, "level_0")
    for number, (change, level) in enumerate(zip(network.changes, network.levels[1:]), start=1):
        if isinstance(change, nn.Conv2d):
            x = convolution(change, x, f"change_{number}")
        x = keras.layers.UpSampling2D(2, interpolation="bilinear", name=f"double_{number}")(x)
        x = _level(level, x, f"level_{number}")
    last = network.to_picture
    x = doubling(last.weight, last.bias, x, "to_picture")
    # Cut to [-1, 1] by layers that every Keras 3 knows.
    for layer in (
        keras.layers.Rescaling(1.0, offset=1.0, name="from_0"),
        keras.layers.ReLU(max_value=2.0, name="up_to_2"),
        keras.layers.Rescaling(1.0, offset=-1.0, name="from_minus_1"),
    ):
        x = layer(x)
    return keras.Model(z, x, name="generator")


def _level(level: nn.Module, x: Any, name: str) -> Any:
    layers = load_keras().layers
    for number, block in enumerate(level.children(), start=1):
        assert isinstance(block, Block)
        y = x
        for what, conv in (("narrow", block.narrow), ("mix", block.mix)):
            assert isinstance(conv, nn.Conv2d)
            y = convolution(conv, y, f"{name}_{what}_{number}")
            y = layers.LeakyReLU(negative_slope=SLOPE, name=f"{name}_{what}_{number}_relu")(y)
        assert isinstance(block.widen, nn.Conv2d)
        y = convolution(block.widen, y, f"{name}_widen_{number}")
        x = layers.Add(name=f"{name}_add_{number}")([x, y])
    return x
