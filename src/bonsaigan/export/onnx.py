"""Generators as `.onnx` files that ONNX Runtime draws with, on a desk or as WebAssembly in a browser.

The model takes `latent`, float32 (batch, latent) with any batch, and gives `picture`, float32
(batch, C, H, W) in [-1, 1]. Only operators of opset 17 are used that every build of the runtime has. Weights
stored as fp16 are widened once, when the file is loaded; the arithmetic is always float32.

The graph is written node by node: torch's own exporter takes a minute of loading and tracing for it, and
leaves the kernels' rearrangement, which is constant, to be done anew for every picture.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bonsaigan.errors import ConfigError, MissingExtraError
from bonsaigan.export.layers import squeeze
from bonsaigan.export.targets import Draw, Job
from bonsaigan.models.article import GENERATOR_HALVINGS, ArticleGenerator
from bonsaigan.models.dcgan import DcganGenerator
from bonsaigan.models.fastgan import EXCITE_LEVELS, Excitation, FastGanGenerator, Level
from bonsaigan.models.folding import shift_of
from bonsaigan.models.r3gan import SLOPE, Block, R3ganGenerator

OPSET, IR_VERSION = 17, 8
HALF_FROM = 64
"""Shorter vectors of weights stay float32: nothing would be saved."""


def write(job: Job, path: Path) -> None:
    """Write the model."""
    onnx = _library("onnx")
    if type(job.network) not in _BUILDERS:
        raise ConfigError(f"--to onnx: no way yet to express a {type(job.network).__name__} in ONNX")
    graph = Graph(half=job.half)
    graph.name(_BUILDERS[type(job.network)](graph, job.network, "latent"), "picture")
    size, spec = job.spec.size, job.spec
    float32, helper = onnx.TensorProto.FLOAT, onnx.helper
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "generator",
            [helper.make_tensor_value_info("latent", float32, ["batch", spec.network.latent])],
            [
                helper.make_tensor_value_info(
                    "picture", float32, ["batch", spec.channels, size.height_px, size.width_px]
                )
            ],
            initializer=graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="bonsaigan",
    )
    known = {"recipe": spec.recipe, "step": str(spec.step), "source": spec.source}
    helper.set_model_props(model, known | {"licence of the pictures": spec.licence or "unknown"})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def load(path: Path) -> Draw:
    """Load it in ONNX Runtime, on the CPU."""
    session = _library("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])

    def draw(z: np.ndarray) -> np.ndarray:
        return session.run(["picture"], {"latent": z})[0].transpose(0, 2, 3, 1)

    return draw


class Graph:
    """Nodes and weights in the order in which they are added; a value is its name."""

    def __init__(self, *, half: bool):
        self.half = half
        self.onnx = _library("onnx")
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; the name of its result, or the names of its results."""
        names = [f"{operator.lower()}_{len(self.nodes)}_{n}" for n in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def name(self, value: str, name: str) -> None:
        """Give the last node's result another name."""
        assert list(self.nodes[-1].output) == [value]
        self.nodes[-1].output[0] = name

    def constant(self, values: Tensor | np.ndarray) -> str:
        """Weights, float32, or int64 for shapes."""
        array = np.asarray(values.detach().numpy() if isinstance(values, Tensor) else values, order="C")
        narrow = self.half and array.dtype == np.float32 and array.size >= HALF_FROM
        name = f"weight_{len(self.weights)}"
        stored = array.astype(np.float16) if narrow else array
        self.weights.append(self.onnx.numpy_helper.from_array(stored, name))
        return self.add("Cast", name, to=self.onnx.TensorProto.FLOAT) if narrow else name

    def linear(self, operator: str, x: str, weight: Tensor, bias: Tensor | None, **attributes: Any) -> str:
        """A `Gemm`, `Conv` or `ConvTranspose`, with a bias or without."""
        terms = [self.constant(t) for t in (weight, bias) if t is not None]
        return self.add(operator, x, *terms, **attributes)

    def conv(self, layer: nn.Module, x: str, *, bias: Tensor | None = None) -> str:
        """A convolution that keeps the size; `bias` in place of its own."""
        assert isinstance(layer, nn.Conv2d)
        assert isinstance(layer.padding, tuple)
        bias = layer.bias if bias is None else bias
        pads = list(layer.padding) * 2
        return self.linear("Conv", x, layer.weight, bias, pads=pads)

    def doubling(self, layer: nn.Module, x: str, *, bias: Tensor | None = None) -> str:
        """A transposed convolution that doubles the side."""
        assert isinstance(layer, nn.ConvTranspose2d)
        assert isinstance(layer.padding, tuple)
        bias = layer.bias if bias is None else bias
        pads = list(layer.padding) * 2
        return self.linear("ConvTranspose", x, layer.weight, bias, strides=[2, 2], pads=pads)

    def resize(self, x: str, mode: str) -> str:
        """Twice the side, `nearest` or `linear`."""
        scales = self.constant(np.array([1, 1, 2, 2], np.float32))
        how = "asymmetric" if mode == "nearest" else "half_pixel"
        return self.add(
            "Resize", x, "", scales, mode=mode, coordinate_transformation_mode=how, nearest_mode="floor"
        )

    def grid(self, x: str, start: nn.Linear, bias: Tensor, *, rows: int, columns: int) -> str:
        """A dense layer whose results, in the order (row, column, channel), become maps."""
        flat = self.linear("Gemm", x, start.weight, bias, transB=1)
        shape = self.constant(np.array([-1, rows, columns, start.out_features // (rows * columns)]))
        return self.add("Transpose", self.add("Reshape", flat, shape), perm=[0, 3, 1, 2])

    def gated(self, x: str) -> str:
        """Gated linear unit over the channels."""
        values, gates = self.add("Split", x, outputs=2, axis=1)
        return self.add("Mul", values, self.add("Sigmoid", gates))


def _article(graph: Graph, network: ArticleGenerator, z: str) -> str:
    rows, columns = network.size.height_px >> GENERATOR_HALVINGS, network.size.width_px >> GENERATOR_HALVINGS
    dense = network.get_submodule("dense")
    assert isinstance(dense, nn.Linear)
    x = graph.grid(z, dense, dense.bias, rows=rows, columns=columns)
    for number in (1, 2, 3):
        x = graph.add("Relu", graph.doubling(network.get_submodule(f"up_{number}"), x))
    return graph.add("Tanh", graph.conv(network.get_submodule("to_picture"), x))


def _dcgan(graph: Graph, network: DcganGenerator, z: str) -> str:
    bias = shift_of(network.start_norm).repeat(network.rows * network.columns)
    x = graph.add("Relu", graph.grid(z, network.start, bias, rows=network.rows, columns=network.columns))
    for up, norm in zip(network.ups, network.norms):
        x = graph.add("Relu", graph.doubling(up, x, bias=shift_of(norm)))
    return graph.add("Tanh", graph.doubling(network.to_picture, x))


def _fastgan(graph: Graph, network: FastGanGenerator, z: str) -> str:
    length = graph.add("ReduceL2", z, axes=[1], keepdims=1)
    z = graph.add("Mul", graph.add("Div", z, length), graph.constant(torch.tensor([network.latent**0.5])))
    rows, columns = network.rows, network.columns
    bias = shift_of(network.start_norm).repeat(rows * columns)
    maps = [graph.gated(graph.grid(z, network.start, bias, rows=rows, columns=columns))]
    for number, level in enumerate(network.levels, start=1):
        assert isinstance(level, Level)
        x = graph.conv(level.conv, graph.resize(maps[-1], "nearest"), bias=shift_of(level.norm))
        x = graph.gated(x)
        if number >= EXCITE_LEVELS:
            coarse = number - EXCITE_LEVELS
            excitation = network.excitations[coarse]
            assert isinstance(excitation, Excitation)
            gates = _excitation(graph, excitation, maps[coarse], rows << coarse, columns << coarse)
            x = graph.add("Mul", x, gates)
        maps.append(x)
    last = network.to_picture
    return graph.add("Tanh", (graph.conv if isinstance(last, nn.Conv2d) else graph.doubling)(last, maps[-1]))


def _excitation(graph: Graph, excitation: Excitation, x: str, rows: int, columns: int) -> str:
    windows, weight = squeeze(excitation, rows, columns)
    if windows != (1, 1):
        x = graph.add("AveragePool", x, kernel_shape=list(windows), strides=list(windows))
    x = graph.linear("Conv", x, weight, excitation.conv.bias)
    x = graph.add("Mul", x, graph.add("Sigmoid", x))
    return graph.add("Sigmoid", graph.conv(excitation.gate, x))


def _r3gan(graph: Graph, network: R3ganGenerator, z: str) -> str:
    amounts = graph.linear("Gemm", z, network.start.weight, None, transB=1)
    shape = graph.constant(np.array([-1, network.start.out_features, 1, 1]))
    x = graph.add("Mul", graph.add("Reshape", amounts, shape), graph.constant(network.basis))
    x = _r3gan_level(graph, network.levels[0], x)
    for change, level in zip(network.changes, network.levels[1:]):
        if isinstance(change, nn.Conv2d):
            x = graph.conv(change, x)
        x = _r3gan_level(graph, level, graph.resize(x, "linear"))
    picture = graph.doubling(network.to_picture, x)
    return graph.add("Clip", picture, graph.constant(-torch.ones(())), graph.constant(torch.ones(())))


def _r3gan_level(graph: Graph, level: nn.Module, x: str) -> str:
    for block in level.children():
        assert isinstance(block, Block)
        y = graph.add("LeakyRelu", graph.conv(block.narrow, x), alpha=SLOPE)
        y = graph.add("LeakyRelu", graph.conv(block.mix, y), alpha=SLOPE)
        x = graph.add("Add", x, graph.conv(block.widen, y))
    return x


_BUILDERS: dict[type[nn.Module], Callable[[Graph, Any, str], str]] = {
    ArticleGenerator: _article,
    DcganGenerator: _dcgan,
    FastGanGenerator: _fastgan,
    R3ganGenerator: _r3gan,
}


def _library(name: str) -> Any:
    try:
        module = importlib.import_module(name)
        if name == "onnx":
            importlib.import_module("onnx.checker")
    except ImportError:
        raise MissingExtraError(feature="the export to ONNX", extra="onnx") from None
    return module
