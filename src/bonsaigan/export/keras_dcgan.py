"""The DCGAN generator, its batch norms folded, in Keras' layers."""

from __future__ import annotations

from typing import Any

from torch import nn

from bonsaigan.export.keras import load_keras
from bonsaigan.export.keras_layers import doubling, grid_start
from bonsaigan.export.layers import start_weight
from bonsaigan.models.dcgan import DcganGenerator
from bonsaigan.models.folding import shift_of


def build_dcgan(network: DcganGenerator) -> Any:
    """The Keras model of a DCGAN generator, with its weights."""
    keras = load_keras()
    z = keras.Input((network.latent,), name="latent")
    shift = shift_of(network.start_norm)
    weight = start_weight(network.start, len(shift))
    x = grid_start(weight, shift, z, "start", grid=(network.rows, network.columns), activation="relu")
    for number, (up, norm) in enumerate(zip(network.ups, network.norms), start=1):
        assert isinstance(up, nn.ConvTranspose2d)
        x = doubling(up.weight, shift_of(norm), x, f"up_{number}", activation="relu")
    last = network.to_picture
    return keras.Model(
        z, doubling(last.weight, last.bias, x, "to_picture", activation="tanh"), name="generator"
    )
