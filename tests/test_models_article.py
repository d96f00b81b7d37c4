"""The article's networks: shapes, counts, initial values, and that the quick forms equal the plain ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bonsaigan.config import Size
from bonsaigan.models.article import ArticleDiscriminator, ArticleGenerator, Doubling, ToPicture


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_article_s_parameter_counts() -> None:
    size = Size.parse("64")
    assert count(ArticleGenerator(size=size)) == 3_750_275
    assert count(ArticleDiscriminator(size=size)) == 660_929


@pytest.mark.parametrize("size", ["32", "64", "48x96", "256x32"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_size_and_channels(size: str, channels: int) -> None:
    parsed = Size.parse(size)
    generator = ArticleGenerator(latent=7, width=4, size=parsed, channels=channels)
    discriminator = ArticleDiscriminator(width=4, size=parsed, channels=channels)
    images = generator(torch.randn(2, 7))
    assert images.shape == (2, channels, parsed.height_px, parsed.width_px)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    assert discriminator(images).shape == (2,)


def test_initial_values_are_keras() -> None:
    torch.manual_seed(0)
    generator = ArticleGenerator(size=Size.parse("64"))
    for layer, fans in (("dense", 100 + 8192), ("up_3", 16 * (256 + 512)), ("to_picture", 25 * (512 + 3))):
        weight: Tensor = generator.get_submodule(layer).weight.detach()  # pyright: ignore
        limit = (6 / fans) ** 0.5
        assert 0.99 * limit < weight.abs().max() <= limit * 1.000001
        assert abs(weight.std() - limit / 3**0.5) < 0.01 * limit
    assert all(not p.any() for name, p in generator.named_parameters() if name.endswith("bias"))


def with_gradients(layer: nn.Module, x: Tensor, forward: object) -> list[Tensor]:
    x = x.clone().requires_grad_()
    y = forward(x)  # pyright: ignore
    upstream = torch.linspace(-1, 1, y.numel()).view(y.shape)
    return [y.detach(), *torch.autograd.grad(y, [x, *layer.parameters()], upstream)]


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_quick_layers_equal_plain_ones(memory_format: torch.memory_format) -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 6, 5, 7).contiguous(memory_format=memory_format)
    doubling, to_picture = Doubling(6, 4), ToPicture(6, 3)
    for layer in (doubling, to_picture):
        nn.init.normal_(layer.bias)  # pyright: ignore
    for layer, plain in (
        (doubling, lambda v: F.conv_transpose2d(v, doubling.weight, doubling.bias, 2, 1)),
        (to_picture, lambda v: F.conv2d(v, to_picture.weight, to_picture.bias, padding=2)),
    ):
        for ours, theirs in zip(with_gradients(layer, x, layer), with_gradients(layer, x, plain)):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_lower_precision_stays_close_and_pictures_float32() -> None:
    torch.manual_seed(2)
    generator = ArticleGenerator(width=8, size=Size.parse("32"))
    z = torch.randn(3, 100)
    with torch.autocast("cpu", torch.bfloat16):
        low = generator(z)
        low.sum().backward()
    assert low.dtype == torch.float32
    assert (low - generator(z)).abs().max() < 0.02
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in generator.parameters())


def test_a_frozen_discriminator_passes_gradients_on() -> None:
    size = Size.parse("32")
    generator, discriminator = ArticleGenerator(width=4, size=size), ArticleDiscriminator(width=4, size=size)
    discriminator.requires_grad_(False)
    discriminator(generator(torch.randn(2, 100))).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in generator.parameters())
    assert all(p.grad is None for p in discriminator.parameters())


def test_dropout_only_in_training() -> None:
    discriminator = ArticleDiscriminator(width=4, size=Size.parse("32"), dropout=0.5)
    images = torch.rand(4, 3, 32, 32)
    assert not torch.equal(discriminator(images), discriminator(images))
    discriminator.eval()
    assert torch.equal(discriminator(images), discriminator(images))
