"""The DCGAN generator in Keras' layers: batch norm disappears into the layer before it."""

from __future__ import annotations

from typing import Any

from torch import nn

from bonsaigan.export.keras import load_keras
from bonsaigan.export.keras_layers import batch_norm, doubling, grid_start
from bonsaigan.models.dcgan import DcganGenerator


def build_dcgan(network: DcganGenerator) -> Any:
    """The Keras model of a DCGAN generator, with its weights."""
    keras = load_keras()
    z = keras.Input((network.latent,), name="latent")
    scale, shift = batch_norm(network.start_norm)
    weight = network.start.weight.view(-1, len(scale), network.latent) * scale[:, None]
    x = grid_start(weight, shift, z, "start", grid=(network.rows, network.columns), activation="relu")
    for number, (up, norm) in enumerate(zip(network.ups, network.norms), start=1):
        assert isinstance(up, nn.ConvTranspose2d)
        assert isinstance(norm, nn.BatchNorm2d)
        scale, shift = batch_norm(norm)
        x = doubling(up.weight * scale[None, :, None, None], shift, x, f"up_{number}", activation="relu")
    last = network.to_picture
    return keras.Model(
        z, doubling(last.weight, last.bias, x, "to_picture", activation="tanh"), name="generator"
    )
