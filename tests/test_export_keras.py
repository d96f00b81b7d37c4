"""Keras files: what we write, Keras loads and draws the same; what Keras writes, we read; nothing else."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bonsaigan.config import NetworkConfig, Size
from bonsaigan.errors import BonsaiganError, ConfigError, MissingExtraError, RunError
from bonsaigan.models import build_generator
from bonsaigan.models.article import ArticleGenerator

os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras", reason="the extra `keras` is not installed")
h5py = pytest.importorskip("h5py", reason="the extra `keras` is not installed")
if keras.backend.backend() != "torch":
    pytest.skip("Keras was imported before with another backend", allow_module_level=True)

from bonsaigan.export import keras_file  # noqa: E402
from bonsaigan.export.keras_file import import_keras, read_keras  # noqa: E402
from bonsaigan.export.targets import export  # noqa: E402
from bonsaigan.generator import Generator, GeneratorSpec  # noqa: E402

# Keras 3.15 calls numpy in a way that numpy 2 will stop to accept.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

LOAD_ALONE = """
import sys
sys.modules["bonsaigan"] = None  # as if it were not installed
import keras, numpy
model = keras.saving.load_model("tree.keras")
z = numpy.load("z.npy")
numpy.save("pictures.npy", model.predict(z, verbose=0))
"""


def export_keras(network: Any, path: Path, *, family: str = "article") -> Path:
    """Write a network alone, without a run around it."""
    shape = NetworkConfig(latent=network.latent, width=8, discriminator_width=8)
    spec = GeneratorSpec(
        family=family, network=shape, size=network.size, channels=network.channels, recipe=family, step=0
    )
    return export(Generator(network, spec), to="keras", out=path).path


def unlike_new(network: nn.Module) -> nn.Module:
    """Random biases and batch statistics, as after training."""
    torch.manual_seed(3)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
        elif value.ndim == 1:
            value.normal_(0.2, 0.3)
        elif value.ndim and not value.any():  # layers that start at zero
            value.normal_(0.0, 0.1)
    return network.eval()


def article(size: str = "32", *, channels: int = 3) -> ArticleGenerator:
    network = ArticleGenerator(latent=10, width=8, size=Size.parse(size), channels=channels)
    unlike_new(network)
    return network


def draw(network: nn.Module, z: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(z)).permute(0, 2, 3, 1).numpy()


def latents(length: int = 10) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((3, length), dtype=np.float32)


@pytest.mark.parametrize(("size", "channels"), [("32", 3), ("48x64", 1), ("64", 4)])
def test_article_there_and_back(tmp_path: Path, size: str, channels: int) -> None:
    network = article(size, channels=channels)
    path = export_keras(network, tmp_path / "new" / "tree.keras")
    assert [p.name for p in path.parent.iterdir()] == ["tree.keras"]
    back = read_keras(path)
    assert (back.latent, back.width, back.size, back.channels) == (10, 8, Size.parse(size), channels)
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), back.state_dict().values()))


# At 96x48 the start grid is 6x12 or so: pooling to 4x4 has bins of unequal size there.
@pytest.mark.parametrize(
    ("family", "size"),
    [
        ("fastgan", "64"),
        ("fastgan", "96x48"),
        ("fastgan", "32x160"),
        ("fastgan+subpixel", "96x48"),
        ("fastgan+soft_colour", "64"),
        ("fastgan+subpixel+soft_colour", "96x48"),
        ("dcgan", "96x48"),
        ("r3gan", "96x48"),
    ],
)
def test_a_generator_in_keras_layers(tmp_path: Path, family: str, size: str) -> None:
    family, *more = family.split("+")
    shape = NetworkConfig(latent=16, width=64, discriminator_width=64, **dict.fromkeys(more, True))
    network = unlike_new(build_generator(family, network=shape, size=Size.parse(size), channels=3))
    path = export_keras(network, tmp_path / "tree.keras")
    model: Any = keras.saving.load_model(path)
    theirs = np.asarray(model.predict(latents(16), verbose=0))
    ours = draw(network, latents(16))
    assert ours.std() > 0.05
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    standard = {"keras.layers", "keras.src.models.functional", "keras"}
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    assert {layer["module"] for layer in config["config"]["layers"]} <= standard


def test_keras_loads_it_without_this_package(tmp_path: Path) -> None:
    network = article()
    export_keras(network, tmp_path / "tree.keras")
    np.save(tmp_path / "z.npy", latents())
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"KERAS_BACKEND": "torch"}
    subprocess.run([sys.executable, "-c", LOAD_ALONE], cwd=tmp_path, env=environment, check=True, timeout=120)
    np.testing.assert_allclose(np.load(tmp_path / "pictures.npy"), draw(network, latents()), atol=1e-4)


def test_export_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"must end in \.keras"):
        export_keras(article(), tmp_path / "tree.h5")

    class Other(ArticleGenerator):
        pass

    with pytest.raises(ConfigError, match="no way yet to express a Other"):
        export_keras(Other(latent=10, width=8, size=Size.parse("32")), tmp_path / "tree.keras")
    broken = article()
    with torch.no_grad():
        broken.get_parameter("dense.bias")[0] = float("nan")
    with pytest.raises(BonsaiganError, match="not written: Keras draws pictures that differ"):
        export_keras(broken, tmp_path / "tree.keras")
    (tmp_path / "file").write_text("")
    with pytest.raises(BonsaiganError, match="cannot be written"):
        export_keras(article(), tmp_path / "file" / "tree.keras")
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"bonsaigan\[keras\]"):
        export_keras(article(), tmp_path / "tree.keras")
    with pytest.raises(MissingExtraError, match=r"bonsaigan\[keras\]"):
        read_keras(tmp_path / "tree.keras")
    assert not list(tmp_path.glob("*.keras"))


# ---------------------------------------------------------------------------------------------------------
# Files that Keras made


def keras_generator(**changes: Any) -> Any:
    """The article's generator as its reader would write it, or one that strays from it."""
    given = {"activation": "relu", "ups": 3, "kernel": 4, "filters": (8, 16, 32), "grid": 4, "last": "tanh"}
    given |= changes
    layers = keras.layers
    model = keras.Sequential(name="Generator")
    model.add(keras.Input((10,)))
    model.add(layers.Dense(given["grid"] ** 2 * 8, name="Generator-Hidden-Layer-1"))
    model.add(layers.Reshape((given["grid"], given["grid"], 8)))
    for filters in given["filters"][: given["ups"]]:
        model.add(layers.Conv2DTranspose(filters, given["kernel"], strides=2, padding="same"))
        model.add(layers.Activation(given["activation"]) if changes else layers.ReLU())
    model.add(layers.Conv2D(3, 5, activation=given["last"], padding="same"))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.1, w.shape).astype(np.float32) for w in model.get_weights()])
    return model


def as_functional(model: Any) -> Any:
    x = inputs = keras.Input((10,))
    for layer in model.layers:
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("form", ["keras", "h5"])
@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize("inline", [False, True])
def test_reads_what_keras_saves(tmp_path: Path, form: str, functional: bool, inline: bool) -> None:
    model = keras_generator(activation="relu") if inline else keras_generator()
    if functional:
        model = as_functional(model)
    model.save(tmp_path / f"generator.{form}")
    network = read_keras(tmp_path / f"generator.{form}")
    np.testing.assert_allclose(
        draw(network, latents()), np.asarray(model.predict(latents(), verbose=0)), atol=1e-5
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "leaky_relu"}, "leaky_relu' where the article's generator has relu"),
        ({"ups": 2}, "'Conv2D' where the article's generator has Conv2DTranspose"),
        ({"kernel": 5}, r"kernel_size \[5, 5\] where the article has \[4, 4\]"),
        ({"filters": (8, 8, 8)}, r"\[8, 8, 8\] channels: expected 1, 2 and 4 times"),
        ({"grid": 7}, "56x56 pixels: sides must be multiples of 16"),
        ({"last": "sigmoid"}, "'sigmoid' where the article's generator has tanh"),
    ],
)
def test_other_generators_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    keras_generator(**changes).save(tmp_path / "generator.keras")
    with pytest.raises(RunError, match=message):
        read_keras(tmp_path / "generator.keras")


# ---------------------------------------------------------------------------------------------------------
# Files from strangers


def rewritten(path: Path, *, config: Any = None, weights: bytes | None = None) -> Path:
    """A copy of a `.keras` file with another description or other weights."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    if config is not None:
        parts["config.json"] = config if isinstance(config, bytes) else json.dumps(config).encode()
    if weights is not None:
        parts["model.weights.h5"] = weights
    changed = path.with_name("changed.keras")
    with zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return changed


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_keras(article(), tmp_path_factory.mktemp("saved") / "tree.keras")


def config_of(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def test_code_in_a_file_is_refused_and_not_run(saved: Path) -> None:
    config = config_of(saved)
    trap = {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {"name": "trap", "function": "4wEAAA"},
    }
    config["config"]["layers"].insert(2, trap)
    with pytest.raises(RunError, match="'trap': 'Lambda' where the article's generator has Reshape"):
        read_keras(rewritten(saved, config=config))


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 100_000,
        b'{"class_name": "Sequential"}',
        b'{"class_name": "Sequential", "config": {"layers": [1]}}',
        b'{"class_name": "Sequential", "config": {"layers": []}}',
        b'{"class_name": "Evil", "config": {"layers": []}}',
    ],
)
def test_damaged_descriptions(saved: Path, config: bytes) -> None:
    with pytest.raises(RunError, match=r"changed\.keras: "):
        read_keras(rewritten(saved, config=config))


@pytest.mark.parametrize("value", [-1, 0, 4097, 10**9, True, 1.5, "8", None, [8, 8]])
def test_senseless_sizes(saved: Path, value: Any) -> None:
    config = config_of(saved)
    for layer in config["config"]["layers"]:
        if layer["class_name"] == "Conv2DTranspose":
            layer["config"]["filters"] = value
    with pytest.raises(RunError, match=r"changed\.keras: "):
        read_keras(rewritten(saved, config=config))


def weights_with(saved: Path, change: Any) -> bytes:
    with zipfile.ZipFile(saved) as archive:
        data = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(data, "r+") as file:
        change(file)
    return data.getvalue()


def test_weights_in_other_files_are_not_read(saved: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["bias"] = np.zeros(3, np.float32)
    (tmp_path / "raw").write_bytes(bytes(12))
    place = "layers/conv2d/vars/1"

    def external_link(file: Any) -> None:
        del file[place]
        file[place] = h5py.ExternalLink(str(secret), "/bias")

    def external_storage(file: Any) -> None:
        del file[place]
        file.create_dataset(place, (3,), np.float32, external=[(str(tmp_path / "raw"), 0, 12)])

    def virtual(file: Any) -> None:
        del file[place]
        layout = h5py.VirtualLayout((3,), np.float32)
        layout[:] = h5py.VirtualSource(str(secret), "bias", (3,))
        file.create_virtual_dataset(place, layout)

    for change in (external_link, external_storage, virtual):
        with pytest.raises(RunError, match=r"no weights at|in another file"):
            read_keras(rewritten(saved, weights=weights_with(saved, change)))


def test_wrong_weights(saved: Path) -> None:
    place = "layers/conv2d/vars/1"

    def replaced(value: np.ndarray) -> bytes:
        def change(file: Any) -> None:
            del file[place]
            file.create_dataset(place, data=value)

        return weights_with(saved, change)

    huge = np.zeros(5_000_000, np.float32)
    for value in (np.zeros(4, np.float32), np.zeros(3, np.int32), huge):
        with pytest.raises(RunError, match="expected an array"):
            read_keras(rewritten(saved, weights=replaced(value)))
    with pytest.raises(RunError, match="not a finite number"):
        read_keras(rewritten(saved, weights=replaced(np.array([1, np.inf, 0], np.float32))))
    with pytest.raises(RunError, match="no weights at"):
        read_keras(rewritten(saved, weights=weights_with(saved, lambda file: file.pop("layers/dense"))))
    with pytest.raises(RunError, match="damaged"):
        read_keras(rewritten(saved, weights=b"nothing"))


def test_what_is_no_keras_file(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such file"):
        read_keras(tmp_path / "missing.keras")
    with pytest.raises(RunError):
        read_keras(tmp_path)
    (tmp_path / "text.keras").write_text("hello")
    with pytest.raises(RunError, match=r"neither a \.keras nor an \.h5 file"):
        read_keras(tmp_path / "text.keras")
    (tmp_path / "short.keras").write_bytes(saved.read_bytes()[:2000])
    with pytest.raises(RunError):
        read_keras(tmp_path / "short.keras")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as archive:
        archive.writestr("other", "")
    with pytest.raises(RunError, match="damaged, or not a Keras file"):
        read_keras(tmp_path / "empty.keras")
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(RunError, match="holds weights alone"):
        read_keras(tmp_path / "weights.h5")


def test_a_file_that_unpacks_without_end_is_refused(saved: Path) -> None:
    bomb = b'{"class_name": "' + b" " * (8 << 20) + b'"}'
    with pytest.raises(RunError, match="larger than 4 MiB"):
        read_keras(rewritten(saved, config=bomb))


def test_it_is_read_in_a_process_of_its_own(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart, here = import_keras(saved).network, read_keras(saved)
    assert all(torch.equal(a, b) for a, b in zip(apart.state_dict().values(), here.state_dict().values()))
    (tmp_path / "no\x1bne.keras").write_bytes(b"nothing")
    with pytest.raises(RunError, match=r"neither a \.keras nor"):
        import_keras(tmp_path / "no\x1bne.keras")
    poisoned = tmp_path / "poisoned"
    poisoned.mkdir()
    for name in ("zipfile", "random", "h5py"):  # such as come with a stranger's model
        (poisoned / f"{name}.py").write_text("open('ran', 'w'); raise SystemExit(9)")
    with monkeypatch.context() as patch:
        patch.chdir(poisoned)
        import_keras(saved)
        assert not Path("ran").exists()
    monkeypatch.setattr(keras_file, "READER", "import os; os.abort()")
    with pytest.raises(RunError, match="broke down"):
        import_keras(saved)
    monkeypatch.setattr(keras_file, "READER", "import time; time.sleep(60)")
    monkeypatch.setattr(keras_file, "READ_SEC", 0.1)
    with pytest.raises(RunError, match=r"more than 0\.1 seconds"):
        import_keras(saved)
