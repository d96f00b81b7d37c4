"""Article-shaped generators out of files that Keras saved: `.keras`, and the older `.h5`.

The file may come from a stranger. Nothing in it is executed and Keras itself is not used: the layers'
settings are compared, one by one, with the article's, and the weights are read as plain arrays whose sizes
are known beforehand. The HDF5 library may hang or break down over a damaged file, so it reads in a process of
its own, whose time and memory are limited.
"""

from __future__ import annotations

import importlib.util
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from bonsaigan.config import NetworkConfig, Size
from bonsaigan.data.archives import open_zip
from bonsaigan.data.sources import slug
from bonsaigan.errors import BonsaiganError, ConfigError, MissingExtraError, RunError
from bonsaigan.generator import Generator, GeneratorSpec, read_generator, save_generator
from bonsaigan.models.article import ArticleGenerator

if TYPE_CHECKING:
    from collections.abc import Iterator

    import h5py

FILE_MAX_BYTES = 512 << 20
READ_SEC, READ_BYTES = 120, 16 << 30
"""Limits of the process that reads; its address space, of which the libraries alone take several GiB."""
REFUSED = 3
READER = """
import sys
sys.path = [place for place in sys.path if place]  # nothing is imported from the current folder
from bonsaigan.export.keras_file import read_apart
read_apart(*sys.argv[1:])
"""
CONFIG_MAX_BYTES = 4 << 20
WEIGHTS_MAX = 100_000_000
"""Most numbers a generator may have; the article's has under four million."""
SIDE_MAX = 4096
"""Longest latent vector, and most channels."""
UPS = 3
STEPS = ("Dense", "Reshape", *("Conv2DTranspose", "relu") * UPS, "Conv2D", "tanh")
"""What the article's generator does, in order: layers by class, activations by name."""
SETTINGS: dict[str, dict[str, Any]] = {
    "Dense": {"use_bias": True},
    "Conv2DTranspose": {"kernel_size": [4, 4], "strides": [2, 2]},
    "Conv2D": {"kernel_size": [5, 5], "strides": [1, 1]},
}
CONVOLUTION = {
    "padding": "same",
    "data_format": "channels_last",
    "dilation_rate": [1, 1],
    "groups": 1,
    "use_bias": True,
    "output_padding": None,
}
IN_ARCHIVE = {"Dense": "dense", "Conv2DTranspose": "conv2d_transpose", "Conv2D": "conv2d"}
"""Names that a `.keras` file gives to layers' weights; further ones of a class are numbered `_1`, `_2`."""


def import_keras(path: Path) -> Generator:
    """Read a generator of the article's shape that Keras saved, in a process of its own; see `read_keras`.

    Raises:
        RunError: also when reading takes too long or breaks down.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", READER, str(path), folder]
        try:
            done = subprocess.run(command, capture_output=True, timeout=READ_SEC, check=False)
        except subprocess.TimeoutExpired:
            said = f"reading it takes more than {READ_SEC} seconds"
            raise RunError(f"{path}: {said}: damaged, or made to do harm") from None
        if done.returncode == REFUSED:
            if importlib.util.find_spec("h5py") is None:
                raise MissingExtraError(feature="reading Keras files", extra="keras")
            raise RunError(done.stdout.decode("utf-8"))
        if done.returncode:
            raise RunError(f"{path}: damaged: the HDF5 library broke down over it")
        return read_generator(Path(folder))


def read_apart(path: str, folder: str) -> None:
    """What the process of its own does: leave a generator in `folder`, or print why not and end."""
    if sys.platform == "linux":  # elsewhere the limit counts other things, or is not there
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = READ_BYTES if hard == resource.RLIM_INFINITY else min(READ_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        network = read_keras(Path(path))
        shape = NetworkConfig(latent=network.latent, width=network.width, discriminator_width=1)
        spec = GeneratorSpec(
            family="article",
            network=shape,
            size=network.size,
            channels=network.channels,
            recipe="article",
            step=0,
            source=f"imported from {slug(Path(path).name)}",
        )
        save_generator(Path(folder), network, spec)
    except BonsaiganError as error:
        sys.stdout.buffer.write(str(error).encode("utf-8", "backslashreplace"))
        sys.stdout.flush()
        os._exit(REFUSED)


def read_keras(path: Path) -> ArticleGenerator:
    """Read a generator of the article's shape that Keras saved.

    Args:
        path: a `.keras` file, or an `.h5` file of a whole model.

    Returns:
        The generator; `latent`, `width`, `size` and `channels` are its attributes.

    Raises:
        RunError: the file is missing, damaged, not a generator of this shape, or beyond the limits.
        MissingExtraError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise MissingExtraError(feature="reading Keras files", extra="keras") from None
    with _readable(path):
        if path.stat().st_size > FILE_MAX_BYTES:
            raise _Refused(f"larger than {FILE_MAX_BYTES >> 20} MiB")
        if not path.is_file():
            raise _Refused("not a file")
        if zipfile.is_zipfile(path):
            with open_zip(path) as archive:
                config = _member(archive, "config.json", CONFIG_MAX_BYTES)
                weights: Any = io.BytesIO(_member(archive, "model.weights.h5", FILE_MAX_BYTES))
            with h5py.File(weights, "r") as file:
                return _read(json.loads(config), _Weights(file, in_archive=True))
        if not h5py.is_hdf5(path):
            raise _Refused("neither a .keras nor an .h5 file")
        with h5py.File(path, "r") as file:
            config = file.attrs.get("model_config")
            if not isinstance(config, (str, bytes)):
                raise _Refused("holds weights alone; save the whole model, with model.save(...)")
            return _read(json.loads(config), _Weights(file, in_archive=False))


class _Refused(Exception):
    """A reason not to take the file; `_readable` puts its name in front."""


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except _Refused as error:
        raise RunError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise RunError(f"{path}: no such file") from None
    except BonsaiganError:
        raise
    except Exception as error:  # a damaged file makes h5py and zipfile raise nearly anything
        raise RunError(f"{path}: damaged, or not a Keras file ({error!s:.200})") from None


@dataclass(frozen=True, kw_only=True)
class _Layer:
    kind: str
    """Class of the layer."""
    name: str
    """The layer's own name."""
    stored: str
    """Name of its weights in a `.keras` file."""
    config: dict[str, Any]
    """Its settings."""


class _Weights:
    """Kernel and bias of each layer of a file."""

    def __init__(self, file: h5py.File, *, in_archive: bool) -> None:
        self.file, self.in_archive = file, in_archive

    def kernel_and_bias(self, layer: _Layer) -> tuple[h5py.Dataset, h5py.Dataset]:
        """The two arrays of a layer, not yet read."""
        if self.in_archive:
            paths = [f"layers/{layer.stored}/vars/{n}" for n in (0, 1)]
        else:
            group = self._find(f"model_weights/{layer.name}")
            names = [n.decode() if isinstance(n, bytes) else str(n) for n in group.attrs["weight_names"]]
            paths = [f"model_weights/{layer.name}/{name}" for name in names]
        if len(paths) != 2:
            raise _Refused(f"layer {layer.name!r} has {len(paths)} arrays where a kernel and a bias belong")
        kernel, bias = (self._find(path) for path in paths)
        return kernel, bias

    def _find(self, path: str) -> Any:
        """Walk down without following links, which could lead into other files."""
        import h5py

        node: Any = self.file
        for part in path.split("/"):
            link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
            if not isinstance(link, h5py.HardLink):
                raise _Refused(f"has no weights at {path!r:.200}")
            node = node[part]
        return node


def _read(model: Any, weights: _Weights) -> ArticleGenerator:
    layers = _layers(model)
    _check_steps(layers)
    dense, reshape, *ups, last = [layer for layer in layers if layer.kind in (*SETTINGS, "Reshape")]
    for layer in (dense, *ups, last):
        _check_settings(layer)
    rows, columns, width = _whole_numbers(reshape, "target_shape", 3)
    channels = _whole_numbers(last, "filters", 1)[0]
    filters = [_whole_numbers(up, "filters", 1)[0] for up in ups]
    if filters != [width, 2 * width, 4 * width]:
        raise _Refused(
            f"doublings with {filters} channels: expected 1, 2 and 4 times the {width} before them"
        )
    arrays = [weights.kernel_and_bias(layer) for layer in (dense, *ups, last)]
    latent = arrays[0][0].shape[0] if arrays[0][0].ndim == 2 else 0
    if not 1 <= latent <= SIDE_MAX or not 1 <= width <= SIDE_MAX or channels not in (1, 3, 4):
        raise _Refused(f"latent length {latent}, width {width}, channels {channels}: out of the limits")
    try:
        size = Size(width_px=columns << UPS, height_px=rows << UPS)
    except ConfigError:
        raise _Refused(
            f"pictures of {columns << UPS}x{rows << UPS} pixels: sides must be multiples of 16, 32 to 256"
        ) from None
    total = (latent + 1) * rows * columns * width + 16 * 11 * width * width + 25 * 4 * width * channels
    if total > WEIGHTS_MAX:
        raise _Refused(f"{total:,} weights, more than {WEIGHTS_MAX:,}")
    network = ArticleGenerator(latent=latent, width=width, size=size, channels=channels)
    names = ("dense", "up_1", "up_2", "up_3", "to_picture")
    for name, layer, (kernel, bias) in zip(names, (dense, *ups, last), arrays):
        _load(network.get_submodule(name), layer, kernel, bias)
    return network.eval()


def _layers(model: Any) -> list[_Layer]:
    """The layers of a chain, in order, without those that only mark the input."""
    kind = _take(model, "class_name", str)
    if kind not in ("Sequential", "Functional", "Model"):
        raise _Refused(f"holds a {kind!r:.80}, not a plain model of layers")
    config = model.get("config")
    raw = config if isinstance(config, list) else _take(config, "layers", list)  # a list before Keras 2.2.3
    layers: list[_Layer] = []
    used: Counter[str] = Counter()
    before = None
    for item in raw:
        kind, settings = _take(item, "class_name", str), _take(item, "config", dict)
        layer = _Layer(
            kind=kind,
            name=_take(settings, "name", str),
            stored=_numbered(IN_ARCHIVE.get(kind, ""), used[kind]),
            config=settings,
        )
        used[kind] += 1
        came_from = list(_history(item.get("inbound_nodes", [])))
        if before is not None and came_from not in ([], [before]):
            raise _Refused(f"layer {layer.name!r:.80} does not simply follow {before!r:.80}: not one chain")
        before = layer.name
        if kind != "InputLayer":
            layers.append(layer)
    return layers


def _history(nodes: Any) -> Iterator[str]:
    """Names of the layers that a layer takes its input from, in Keras 2's form or Keras 3's."""
    if isinstance(nodes, dict):
        for value in nodes.values():
            yield from _history(value)
    elif isinstance(nodes, list):
        if len(nodes) >= 3 and isinstance(nodes[0], str) and nodes[1:3] == [0, 0]:
            yield nodes[0]
        else:
            for value in nodes:
                yield from _history(value)


def _check_steps(layers: list[_Layer]) -> None:
    steps = [(step, layer) for layer in layers for step in _steps(layer)]
    for number, expected in enumerate(STEPS):
        if number >= len(steps):
            raise _Refused(f"ends where the article's generator goes on with {expected}")
        found, layer = steps[number]
        if found != expected:
            raise _Refused(
                f"layer {layer.name!r:.80}: {found!r:.80} where the article's generator has {expected}"
            )
    if len(steps) > len(STEPS):
        raise _Refused(
            f"layer {steps[len(STEPS)][1].name!r:.80} comes after the article's generator has ended"
        )


def _steps(layer: _Layer) -> list[str]:
    if layer.kind == "ReLU":
        plain = {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}
        return [
            "relu" if all(layer.config.get(k, v) == v for k, v in plain.items()) else "ReLU with settings"
        ]
    activation = layer.config.get("activation", "linear")
    if isinstance(activation, dict):  # how some versions write a function's name
        activation = activation.get("config")
    own = [] if activation in ("linear", None) else [str(activation)]
    return own if layer.kind == "Activation" else [layer.kind, *own]


def _check_settings(layer: _Layer) -> None:
    settings = SETTINGS[layer.kind] if layer.kind == "Dense" else CONVOLUTION | SETTINGS[layer.kind]
    for key, expected in settings.items():
        found = layer.config.get(key, expected)
        if isinstance(found, int) and isinstance(expected, list):
            found = [found] * len(expected)
        if found != expected:
            raise _Refused(f"layer {layer.name!r:.80}: {key} {found!r:.80} where the article has {expected}")


def _whole_numbers(layer: _Layer, key: str, count: int) -> list[int]:
    value = layer.config.get(key)
    values: list[Any] = value if isinstance(value, list) else [value]
    if len(values) != count or any(type(v) is not int or not 1 <= v <= SIDE_MAX for v in values):
        raise _Refused(
            f"layer {layer.name!r:.80}: {key} {value!r:.80} is not what the article's generator has"
        )
    return values


def _load(module: nn.Module, layer: _Layer, kernel: h5py.Dataset, bias: h5py.Dataset) -> None:
    weight = module.get_parameter("weight")
    axes = (3, 2, 0, 1) if weight.ndim == 4 else (1, 0)
    expected = tuple(weight.shape[axes.index(axis)] for axis in range(weight.ndim))
    with torch.no_grad():
        weight.copy_(torch.from_numpy(_array(kernel, expected, layer)).permute(axes))
        bias_ours = module.get_parameter("bias")
        bias_ours.copy_(torch.from_numpy(_array(bias, tuple(bias_ours.shape), layer)))


def _array(data: Any, shape: tuple[int, ...], layer: _Layer) -> np.ndarray:
    import h5py

    if not isinstance(data, h5py.Dataset) or data.shape != shape or data.dtype.kind != "f":
        raise _Refused(f"layer {layer.name!r:.80}: expected an array {shape} of fractions")
    if data.is_virtual or data.external is not None:
        raise _Refused(f"layer {layer.name!r:.80}: its weights lie in another file")
    if data.chunks is not None and math.prod(data.chunks) > WEIGHTS_MAX:
        raise _Refused(f"layer {layer.name!r:.80}: stored in pieces of {math.prod(data.chunks):,} numbers")
    array = np.asarray(data[()], dtype=np.float32)
    if not np.isfinite(array).all():
        raise _Refused(f"layer {layer.name!r:.80}: a weight is not a finite number")
    return array


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    with archive.open(name) as member:
        data = member.read(limit + 1)
    if len(data) > limit:
        raise _Refused(f"{name} in it is larger than {limit >> 20} MiB")
    return data


def _numbered(name: str, count: int) -> str:
    return f"{name}_{count}" if count else name


def _take(holder: Any, key: str, kind: type[Any]) -> Any:
    value = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(value, kind):
        raise _Refused(f"its description of layers has no proper {key!r}")
    return value
