"""What a network is made of: a table of its layers like Keras' summary, and Graphviz pictures.

Both come from running the network once on an example and watching its layers, so that they hold for any
module. Arrows come from the autograd graph: they also find their way through sums and other plain
functions between the layers.
"""

from __future__ import annotations

import html
import io
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import graphviz
    import torch
    from torch import Tensor, nn

INPUT = "input"
"""Name of the row that stands for the network's input."""
NO_DOT_HINT = (
    "the pictures need the Graphviz program `dot`: apt install graphviz, brew install graphviz, "
    "or https://graphviz.org/download"
)
"""What to tell people when `dot_found()` is false."""
DOTS_PER_INCH = "110"
COLOURS = {
    "Linear": "#cfe3f7",
    "ConvTranspose2d": "#f9d5b5",
    "Conv2d": "#f7eab0",
    "Norm": "#dcd3ef",
    "": "#eef0f2",
}
"""Fill of a node by a word in its kind or that of a parent class; the last is for everything else."""


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer, as the network was run."""

    name: str
    """Path of the layer in the network, like `layers.dense`."""
    kind: str
    """Class of the layer."""
    detail: str
    """What sets it apart, like `4x4, stride 2`; may be empty."""
    shape: tuple[int, ...]
    """Shape of its output without the batch dimension; empty for merged layers."""
    parameters: int
    """How many numbers it has learnt or will learn."""
    trainable: int
    """How many of them are not frozen."""
    inputs: tuple[str, ...]
    """Names of the rows whose outputs it takes; `input` is the network's own."""
    colour: str
    """Fill of its node."""


def layer_table(module: nn.Module, *inputs: Tensor, merge: Sequence[str] = ()) -> list[LayerRow]:
    """Run a network once and list its layers in the order they were called.

    Args:
        module: any network. It is run in evaluation mode and left as it was.
        inputs: an example for each argument of its `forward`, float (B, ...).
        merge: parts shown as one row each, such as `features` or `discriminator.features` for a large frozen
            network.

    Returns:
        The input's row, then one row a layer. Layers that were never called are left out unless they have
        parameters, so that the counts add up to the network's.
    """
    watch = _Watch(module)
    with watch.running():
        arguments = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs]
        watch.place_inputs(arguments)
        module(*arguments)
    shape = tuple(inputs[0].shape[1:])
    first = LayerRow(
        name=INPUT,
        kind="Input",
        detail="",
        shape=shape,
        parameters=0,
        trainable=0,
        inputs=(),
        colour=COLOURS[""],
    )
    rows = [first, *watch.rows.values(), *watch.never_called()]
    for part in merge:
        rows = _merge(rows, part)
    return rows


def to_text(rows: list[LayerRow], title: str) -> str:
    """The table as text, with totals below, like Keras' summary."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    table.add_column("Layer", overflow="fold")
    table.add_column("Kind", overflow="fold")
    table.add_column("Output shape", no_wrap=True)
    table.add_column("Parameters", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row.name, row.kind, _shape_text(row.shape), f"{row.parameters:,}")
    total, trainable = sum(r.parameters for r in rows), sum(r.trainable for r in rows)
    console = Console(file=io.StringIO(), width=100, color_system=None, markup=False)
    console.print(table)
    console.print(f"  Parameters {total:,}: {trainable:,} trained, {total - trainable:,} frozen")
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def dot_found() -> bool:
    """Whether the Graphviz program that makes pictures of .dot files is installed."""
    return shutil.which("dot") is not None


def write_diagrams(
    networks: Mapping[str, tuple[nn.Module, Sequence[Tensor]]], folder: Path, *, merge: Sequence[str] = ()
) -> list[Path]:
    """Write NAME.dot, NAME.svg and NAME.png for each network; only the .dot files without Graphviz.

    Args:
        networks: name → (network, example inputs); the name is the picture's title and the files' name.
        folder: where to write; made if missing.
        merge: see `layer_table`.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (module, inputs) in networks.items():
        picture = draw(layer_table(module, *inputs, merge=merge), title=name)
        path = folder / f"{name}.dot"
        path.write_text(picture.source, encoding="utf-8")
        written.append(path)
        if dot_found():
            for kind in ("svg", "png"):
                path = folder / f"{name}.{kind}"
                with suppress(subprocess.CalledProcessError):  # some lack a plugin for png
                    path.write_bytes(picture.pipe(format=kind))
                    written.append(path)
    return written


def draw(rows: list[LayerRow], *, title: str) -> graphviz.Digraph:
    """The diagram of a table: a node a layer, an arrow a tensor with its shape."""
    import graphviz

    picture = graphviz.Digraph(title)
    picture.attr(
        rankdir="TB", label=title, labelloc="t", fontname="Helvetica", fontsize="18", dpi=DOTS_PER_INCH
    )
    picture.attr("node", shape="box", style="rounded,filled", color="#b8c0c8", fontname="Helvetica")
    picture.attr("node", fontsize="11", margin="0.14,0.07", height="0.3")
    picture.attr("edge", fontname="Helvetica", fontsize="10", color="#607080", fontcolor="#405060")
    nodes = {row.name: f"n{index}" for index, row in enumerate(rows)}
    joined = all("." in row.name for row in rows[1:])  # made by `composite`: its parts become frames
    parts = dict.fromkeys(row.name.split(".")[0] for row in rows[1:]) if joined else {}
    for part in parts if len(parts) > 1 else ():
        inside = [nodes[row.name] for row in rows if row.name.startswith(f"{part}.")]
        picture.subgraph(_frame(part, inside))
    for row in rows:
        name = row.name.split(".", 1)[-1] if joined else row.name
        picture.node(nodes[row.name], label=_node_label(name, row), fillcolor=row.colour)
        for source in row.inputs:
            shape = next(r.shape for r in rows if r.name == source)
            picture.edge(nodes[source], nodes[row.name], label=_edge_label(shape))
    for row in rows:
        if not any(row.name in other.inputs for other in rows) and row.shape:
            picture.node(f"{nodes[row.name]}_out", label="output", shape="plaintext", style="")
            picture.edge(nodes[row.name], f"{nodes[row.name]}_out", label=_edge_label(row.shape))
    return picture


def composite(forward: Callable[..., Any], **parts: nn.Module) -> nn.Module:
    """A network out of parts and a function that says how they are joined, for tables and diagrams.

    >>> composite(lambda z: discriminator(generator(z)), generator=generator, discriminator=discriminator)
    """
    from torch import nn

    class Composite(nn.Module):
        def forward(self, *inputs: Tensor) -> Any:
            return forward(*inputs)

    whole = Composite()
    for name, part in parts.items():
        whole.add_module(name, part)
    return whole


class _Watch:
    """Hooks on every layer of a network, and what they saw."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.layers = {
            m: name or type(m).__name__ for name, m in module.named_modules() if _is_layer(name, m)
        }
        self.rows: dict[str, LayerRow] = {}
        # Which row made the tensor that an autograd node made. A layer without a node of its own, such as
        # dropout in evaluation mode, takes over that of its input.
        self.made_by: dict[Any, str] = {}
        self.sources: dict[str, tuple[str, ...]] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        import torch

        modes = {m: m.training for m in self.module.modules()}
        hooks = []
        for layer in self.layers:
            hooks += [layer.register_forward_pre_hook(self._before), layer.register_forward_hook(self._after)]
        self.module.eval()
        try:
            with torch.enable_grad():
                yield
        finally:
            for hook in hooks:
                hook.remove()
            for module, mode in modes.items():
                module.training = mode

    def place_inputs(self, arguments: Sequence[Tensor]) -> None:
        for argument in arguments:
            node = _node(argument)
            if node is not None:
                self.made_by[node] = INPUT

    def never_called(self) -> Iterator[LayerRow]:
        for layer, name in self.layers.items():
            if name not in self.rows and any(True for _ in layer.parameters()):
                yield self._row(layer, shape=(), inputs=())

    def _before(self, layer: nn.Module, inputs: Any) -> None:
        self.sources[self.layers[layer]] = self._makers(_tensors(inputs))

    def _after(self, layer: nn.Module, _inputs: Any, output: Any) -> None:
        name, tensors = self.layers[layer], list(_tensors(output))
        sources = self.sources.pop(name)
        if not sources:  # no gradient flows here: most likely the layer before
            sources = (next(reversed(self.rows), INPUT),)
        if name in self.rows:  # called again
            sources = tuple(dict.fromkeys((*self.rows[name].inputs, *sources)))
        shape = tuple(tensors[0].shape[1:]) if tensors else ()
        self.rows[name] = self._row(layer, shape=shape, inputs=sources)
        for tensor in tensors:
            node = _node(tensor)
            if node is not None:
                self.made_by[node] = name

    def _row(self, layer: nn.Module, *, shape: tuple[int, ...], inputs: tuple[str, ...]) -> LayerRow:
        counts = [(p.numel(), p.requires_grad) for p in layer.parameters()]
        return LayerRow(
            name=self.layers[layer],
            kind=_kind(layer),
            detail=_detail(layer),
            shape=shape,
            parameters=sum(n for n, _ in counts),
            trainable=sum(n for n, trained in counts if trained),
            inputs=inputs,
            colour=_colour(layer),
        )

    def _makers(self, tensors: Iterator[Tensor]) -> tuple[str, ...]:
        """Walk the autograd graph up from tensors to the nearest layers."""
        found: dict[str, None] = {}
        todo = [node for node in map(_node, tensors) if node is not None]
        seen = set(todo)
        while todo:
            node = todo.pop()
            if node in self.made_by:
                found[self.made_by[node]] = None
                continue
            above = [n for n, _ in node.next_functions if n is not None and n not in seen]
            seen.update(above)
            todo += above
        order = [INPUT, *self.rows]
        return tuple(sorted(found, key=order.index))


def _is_layer(name: str, module: nn.Module) -> bool:
    children = {child.split(".")[0] for child, _ in module.named_children()}
    return not (children - {"parametrizations"}) and "parametrizations" not in name.split(".")


def _node(tensor: Tensor) -> torch.autograd.graph.Node | None:
    from torch.autograd.graph import get_gradient_edge

    return get_gradient_edge(tensor).node if tensor.requires_grad else None


def _tensors(value: Any) -> Iterator[Tensor]:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def _kind(layer: nn.Module) -> str:
    for parent in type(layer).__mro__:
        if parent.__module__.startswith("torch.nn.modules") and parent.__name__ != "Module":
            return parent.__name__  # ours are named after what they do, theirs after what they are
    return type(layer).__name__


def _detail(layer: nn.Module) -> str:
    parts = []
    kernel, stride = getattr(layer, "kernel_size", None), getattr(layer, "stride", None)
    if isinstance(kernel, tuple):
        parts.append("×".join(map(str, kernel)))
    if isinstance(stride, tuple) and set(stride) != {1}:
        parts.append(f"stride {stride[0]}")
    if hasattr(layer, "negative_slope"):
        parts.append(f"slope {layer.negative_slope:g}")  # pyright: ignore
    if type(layer).__name__.startswith("Dropout"):
        parts.append(f"{layer.p:.0%}")  # pyright: ignore
    return ", ".join(parts)


def _colour(layer: nn.Module) -> str:
    kinds = " ".join(parent.__name__ for parent in type(layer).__mro__)
    return next(colour for word, colour in COLOURS.items() if word in kinds)


def _merge(rows: list[LayerRow], part: str) -> list[LayerRow]:
    """Replace the rows under each module called `part` by one."""
    merged: dict[str, LayerRow] = {}
    starts = {row.name: f".{row.name}".find(f".{part}.") for row in rows}
    renamed = {name: name[: at + len(part)] if at >= 0 else name for name, at in starts.items()}
    for row in rows:
        name = renamed[row.name]
        inputs = tuple(dict.fromkeys(n for n in (renamed[i] for i in row.inputs) if n != name))
        before = merged.get(name)
        if before is None:
            merged[name] = replace(row, name=name, inputs=inputs)
        else:
            merged[name] = replace(
                before,
                kind="Network",
                detail="",
                shape=(),
                colour=COLOURS[""],
                parameters=before.parameters + row.parameters,
                trainable=before.trainable + row.trainable,
                inputs=tuple(dict.fromkeys((*before.inputs, *inputs))),
            )
    return list(merged.values())


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"({', '.join(['B', *map(str, shape)])})" if shape else "several"


def _node_label(name: str, row: LayerRow) -> str:
    lines = [f"<B>{html.escape(name)}</B>", html.escape(f"{row.kind} {row.detail}".strip())]
    if row.parameters:
        frozen = "" if row.trainable else ", frozen"
        lines.append(f'<FONT POINT-SIZE="9">{row.parameters:,} parameters{frozen}</FONT>')
    return f"<{'<BR/>'.join(lines)}>"


def _edge_label(shape: tuple[int, ...]) -> str:
    return "  " + " × ".join(map(str, shape))


def _frame(part: str, inside: list[str]) -> graphviz.Digraph:
    import graphviz

    frame = graphviz.Digraph(f"cluster_{part}")
    frame.attr(label=part, style="rounded", color="#a0acb8", fontsize="14")
    for node in inside:
        frame.node(node)
    return frame
