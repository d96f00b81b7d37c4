"""Layers of ours as Keras' layers with the same weights: what the builders of the families share."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bonsaigan.export.keras import kernel, load_keras, vector


def convolution(conv: nn.Conv2d, x: Any, name: str, *, activation: str | None = None) -> Any:
    """A convolution that keeps the size, with its bias if it has one, and an activation after it."""
    return apply(
        load_keras().layers.Conv2D,
        x,
        name,
        conv.weight,
        conv.bias,
        padding="same",
        activation=activation,
    )


def doubling(weight: Tensor, bias: Tensor | None, x: Any, name: str, *, activation: str | None = None) -> Any:
    """A transposed convolution that doubles the side; the weight in torch's axes (in, out, h, w)."""
    layer = load_keras().layers.Conv2DTranspose(
        weight.shape[1],
        tuple(weight.shape[2:]),
        strides=2,
        padding="same",
        use_bias=bias is not None,
        activation=activation,
        name=name,
    )
    return _filled(layer, x, weight, bias)


def apply(kind: Any, x: Any, name: str, weight: Tensor, bias: Tensor | None, **settings: Any) -> Any:
    """A convolution layer of that Keras class with our weight (out, in, h, w) in it."""
    layer = kind(weight.shape[0], tuple(weight.shape[2:]), name=name, use_bias=bias is not None, **settings)
    return _filled(layer, x, weight, bias)


def grid_start(
    weight: Tensor, bias: Tensor, x: Any, name: str, *, grid: tuple[int, int], activation: str | None = None
) -> Any:
    """A dense layer whose result is read as a grid of maps.

    Args:
        weight: (rows · columns, channels, in).
        bias: (channels,), the same in every cell.
        x: the layer before.
        name: of the dense layer.
        grid: rows and columns.
        activation: after it.
    """
    layers = load_keras().layers
    cells, channels, _ = weight.shape
    layer = layers.Dense(cells * channels, name=name, activation=activation)
    flat = layer(x)
    layer.set_weights([kernel(weight.flatten(0, 1)), vector(bias.repeat(cells))])
    return layers.Reshape((*grid, channels), name=f"{name}_grid")(flat)


def _filled(layer: Any, x: Any, weight: Tensor, bias: Tensor | None) -> Any:
    y = layer(x)
    layer.set_weights([kernel(weight)] + ([] if bias is None else [vector(bias)]))
    return y
