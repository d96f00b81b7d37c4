"""Exports: whatever the recipe and the shape, each program draws the same pictures from the same latents."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bonsaigan
from bonsaigan.config import NetworkConfig, Size
from bonsaigan.errors import BonsaiganError, ConfigError, MissingExtraError, RunError
from bonsaigan.export import targets
from bonsaigan.export.targets import TARGETS, export
from bonsaigan.generator import Generator, GeneratorSpec, read_generator
from bonsaigan.models import build_generator
from bonsaigan.models.folding import fold
from bonsaigan.training.recipes import RECIPES, default_config

SHAPES = ["64", "96x48", "32x160"]
"""Of the last two the start grids are such that pooling to 4x4 has bins of unequal size, or is oblong."""


def generator_of(family: str, size: str = "64", *, channels: int = 3) -> Generator:
    """One with biases and batch statistics as after training, whose pictures use the whole range.

    `fastgan+subpixel` is the family `fastgan` with a sub-pixel convolution, `+soft_colour` with soft colours.
    """
    family, *more = family.split("+")
    width = 16 if family == "article" else 64
    network = NetworkConfig(latent=24, width=width, discriminator_width=8, **dict.fromkeys(more, True))
    spec = GeneratorSpec(
        family=family, network=network, size=Size.parse(size), channels=channels, recipe=family, step=5
    )
    torch.manual_seed(3)
    built = build_generator(family, network=network, size=spec.size, channels=channels)
    for name, value in built.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
        elif value.ndim == 1:
            value.normal_(0.2, 0.3)
        elif family == "r3gan" and value.ndim and not value.any():  # layers that start at zero
            value.normal_(0.0, 0.3 / value[0].numel() ** 0.5)
        elif family != "r3gan" and value.ndim > 1:
            fan_in = value.shape[0] * 4 if "up" in name else value[0].numel()
            value.normal_(0.0, 1.5 / fan_in**0.5)
    return Generator(built, spec)


def cases() -> Iterator[Any]:
    for family in (
        "fastgan+soft_colour",
        "fastgan+subpixel+soft_colour",
        "fastgan",
        "dcgan",
        "r3gan",
        "article",
    ):
        for size in SHAPES:
            for to, target in TARGETS.items():
                for half in {"fp32": (False,), "fp16": (True,), "either": (False, True)}[target.weights]:
                    quick = to in ("safetensors", "onnx") and size == "96x48"
                    marks = () if quick else pytest.mark.slow
                    if to == "web":
                        continue  # in test_export_web.py
                    yield pytest.param(family, size, to, half, marks=marks)


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize(("family", "size", "to", "half"), list(cases()))
def test_same_latents_same_picture(tmp_path: Path, family: str, size: str, to: str, half: bool) -> None:
    pytest.importorskip(
        {"torch": "torch", "safetensors": "torch"}.get(to, to), reason=f"needs the extra {to}"
    )
    generator = generator_of(family, size)
    drawn = generator.images(generator.latents(range(8)))
    assert drawn.std() > 12  # not plain grey
    written = export(generator, to=to, out=tmp_path / "out" / TARGETS[to].name, half=half)
    assert written.difference_levels <= (2.0 if half else 0.5)
    assert [p.name for p in (tmp_path / "out").iterdir()] == [TARGETS[to].name]
    # Not through the exporter's own comparison: other seeds, another batch, rounded as pictures are.
    form: Any = __import__(f"bonsaigan.export.{TARGETS[to].module}", fromlist=["load"])
    z = generator.latents(range(100, 105))
    theirs = (form.load(written.path)(z.numpy()).clip(-1, 1) + 1) * 127.5
    ours = generator.images(z).astype(np.float64)
    assert np.abs(theirs - ours).max() <= (2.5 if half else 1.0)


@pytest.mark.parametrize("family", ["fastgan", "dcgan", "r3gan", "article"])
@pytest.mark.parametrize("channels", [1, 4])
def test_folding_changes_nothing_but_the_number_of_weights(family: str, channels: int) -> None:
    generator = generator_of(family, "48x32", channels=channels)
    folded = fold(generator.network)
    z = generator.latents(range(3))
    with torch.no_grad():
        torch.testing.assert_close(folded(z), generator.network(z), atol=1e-5, rtol=1e-5)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    normed = any(isinstance(m, torch.nn.BatchNorm2d) for m in generator.network.modules())
    assert normed == (family in ("fastgan", "dcgan"))
    assert (len(folded.state_dict()) < len(generator.network.state_dict())) == normed


def test_safetensors_come_back_as_a_generator(tmp_path: Path) -> None:
    generator = generator_of("fastgan", "48x32")
    folder = export(generator, to="safetensors", out=tmp_path / "trees", half=True, card="# Trees\n").path
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", "generator.json", "generator.safetensors"
    ]  # fmt: skip
    again = bonsaigan.load(folder)
    assert again.spec.folded
    assert next(again.network.parameters()).dtype == torch.float32
    z = generator.latents(range(4))
    difference = again.images(z).astype(int) - generator.images(z)
    assert np.abs(difference).max() <= 2
    # And what came back can be exported again.
    assert export(again, to="safetensors", out=tmp_path / "again").difference_levels <= 0.5


def test_weights_from_strangers_are_bounded_by_their_file(tmp_path: Path) -> None:
    folder = export(generator_of("fastgan", "48x32"), to="safetensors", out=tmp_path / "trees").path
    good = json.loads((folder / "generator.json").read_text())
    # Rebuilding this in memory would take 9 GB; it is refused for what lies in the other file.
    good["network"]["width"] = good["network"]["latent"] = 4096
    (folder / "generator.json").write_text(json.dumps(good))
    with pytest.raises(RunError, match="does not fit"):
        read_generator(folder)
    good["network"]["width"] = 1
    (folder / "generator.json").write_text(json.dumps({**good, "family": "r3gan"}))
    with pytest.raises(RunError, match="does not fit"):
        read_generator(folder)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = export(generator_of("article", "32"), to="safetensors", out=tmp_path / "trees").path
    tensors = load_file(folder / "generator.safetensors")
    for bad in (tensors["up_1.bias"].to(torch.int32), torch.full_like(tensors["up_1.bias"], torch.nan)):
        save_file({**tensors, "up_1.bias": bad}, folder / "generator.safetensors")
        with pytest.raises(RunError, match=r"up_1\.bias|does not fit"):
            read_generator(folder)


def test_what_draws_other_pictures_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bonsaigan.export import weights

    right = weights.load
    monkeypatch.setattr(weights, "load", lambda path: lambda z: right(path)(z) + 0.01)
    with pytest.raises(BonsaiganError, match=r"not written: bonsaigan draws pictures that differ by 1\.2"):
        export(generator_of("dcgan", "32"), to="safetensors", out=tmp_path / "trees")
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_named_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = generator_of("article", "32")
    for wrong, said in (
        ({"to": "tflite"}, "--to 'tflite': choose one of safetensors, onnx, keras, torch, web"),
        ({"to": "keras", "half": True}, "--half"),
        ({"to": "onnx", "bundle": tmp_path}, "--bundle"),
    ):
        with pytest.raises(ConfigError, match=said):
            export(generator, out=tmp_path / "x", **wrong)  # pyright: ignore[reportArgumentType]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("my own")
    with pytest.raises(ConfigError, match="has other files in it"):
        export(generator, to="safetensors", out=mine)
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        export(generator, to="safetensors", out=mine / "README.md")
    with pytest.raises(BonsaiganError, match="cannot be written"):
        export(generator, to="safetensors", out=mine / "README.md" / "deeper")
    monkeypatch.chdir(mine)
    for nameless in ("..", ".", "sub/.."):
        with pytest.raises(ConfigError, match="a name of its own"):
            export(generator, to="safetensors", out=Path(nameless))
    assert [(p.name, p.read_text()) for p in mine.iterdir()] == [("README.md", "my own")]
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"bonsaigan\[onnx\]"):
        export(generator, to="onnx", out=tmp_path / "x.onnx")


def test_an_earlier_export_stays_if_the_new_one_cannot_be_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, out = generator_of("article", "32"), tmp_path / "trees"
    export(generator, to="safetensors", out=out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}

    replace = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if target == out:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(BonsaiganError, match="No space"):
        export(generator, to="safetensors", out=out, half=True)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    first = export(generator_of("article", "32"), to="safetensors", out=tmp_path / "trees")
    (tmp_path / "trees" / ".DS_Store").touch()  # a file browser looked in
    again = export(generator_of("article", "32"), to="safetensors", out=tmp_path / "trees", half=True)
    assert again.size_bytes < first.size_bytes
    assert [p.name for p in tmp_path.iterdir()] == ["trees"]
    pytest.importorskip("onnx", reason="needs the extra onnx")
    with pytest.raises(ConfigError, match="is a folder; name a file"):
        export(generator_of("article", "32"), to="onnx", out=tmp_path / "trees")


def test_the_commands_know_every_target() -> None:
    from bonsaigan import cli_run

    assert tuple(targets.TARGETS) == cli_run.EXPORTS


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_fp16_weights_of_a_recipe_are_small_enough_for_a_page(name: str) -> None:
    config = default_config(RECIPES[name], Size.parse("64"))
    with torch.device("meta"):
        network = RECIPES[name].generator(config)
    assert 2 * sum(p.numel() for p in network.parameters()) < 12e6
