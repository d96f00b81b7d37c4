"""Generators as `.keras` files of standard layers, which Keras loads without this package.

The model takes latent vectors, float32 (B, latent), and gives pictures, float32 (B, H, W, C) in [-1, 1].
There is one builder for each family of generators; each uses only layers that every Keras 3 has.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from bonsaigan.errors import ConfigError, MissingExtraError
from bonsaigan.export.targets import Draw, Job

if TYPE_CHECKING:
    from bonsaigan.models.article import ArticleGenerator

SUFFIX = ".keras"


def write(job: Job, path: Path) -> None:
    """Write the model.

    Raises:
        ConfigError: the name does not end in `.keras`, or there is no builder for this family.
        MissingExtraError: Keras is not installed.
    """
    if path.suffix != SUFFIX:
        raise ConfigError(f"--out {path.name!r}: the name must end in {SUFFIX}")
    load_keras()
    _builder(job.network)(job.network).save(path)


def load(path: Path) -> Draw:
    """Load it with Keras alone."""
    keras = load_keras()
    model = keras.saving.load_model(path, compile=False, safe_mode=True)

    def draw(z: np.ndarray) -> np.ndarray:
        return np.asarray(keras.ops.convert_to_numpy(model(z, training=False)))

    return draw


def load_keras() -> Any:
    """Import Keras, on its PyTorch backend unless the environment says otherwise.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import keras
    except ImportError:
        raise MissingExtraError(feature="the export to Keras", extra="keras") from None
    return keras


def kernel(weight: Tensor) -> np.ndarray:
    """A weight in Keras' axes: dense (in, out); convolution (h, w, in, out); transposed (h, w, out, in)."""
    value = weight.detach().float().cpu()
    return (value.permute(2, 3, 1, 0) if value.ndim == 4 else value.T).contiguous().numpy()


def vector(values: Tensor) -> np.ndarray:
    """A bias as Keras holds it."""
    return values.detach().float().cpu().numpy()


def _builder(network: nn.Module) -> Callable[[Any], Any]:
    from bonsaigan.export.keras_dcgan import build_dcgan
    from bonsaigan.export.keras_fastgan import build_fastgan
    from bonsaigan.export.keras_r3gan import build_r3gan
    from bonsaigan.models.article import ArticleGenerator
    from bonsaigan.models.dcgan import DcganGenerator
    from bonsaigan.models.fastgan import FastGanGenerator
    from bonsaigan.models.r3gan import R3ganGenerator

    builders: dict[type[nn.Module], Callable[[Any], Any]] = {
        ArticleGenerator: _build_article,
        DcganGenerator: build_dcgan,
        FastGanGenerator: build_fastgan,
        R3ganGenerator: build_r3gan,
    }
    if type(network) not in builders:
        raise ConfigError(f"--to keras: no way yet to express a {type(network).__name__} in Keras' layers")
    return builders[type(network)]


def _build_article(network: ArticleGenerator) -> Any:
    from bonsaigan.models.article import GENERATOR_HALVINGS

    keras = load_keras()
    layers = keras.layers
    rows, columns = network.size.height_px >> GENERATOR_HALVINGS, network.size.width_px >> GENERATOR_HALVINGS
    model = keras.Sequential(name="generator")
    model.add(keras.Input((network.latent,)))
    model.add(layers.Dense(rows * columns * network.width, name="dense"))
    model.add(layers.Reshape((rows, columns, network.width), name="reshape"))
    for n in (1, 2, 3):
        filters = network.width << (n - 1)
        model.add(layers.Conv2DTranspose(filters, 4, strides=2, padding="same", name=f"up_{n}"))
        model.add(layers.ReLU(name=f"relu_{n}"))
    model.add(layers.Conv2D(network.channels, 5, padding="same", activation="tanh", name="to_picture"))
    for name in ("dense", "up_1", "up_2", "up_3", "to_picture"):
        ours = network.get_submodule(name)
        model.get_layer(name).set_weights([kernel(ours.weight), vector(ours.bias)])  # pyright: ignore
    return model
