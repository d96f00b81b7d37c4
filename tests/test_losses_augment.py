from __future__ import annotations

import math

import pytest
import torch

from bonsaigan.models.projected import as_rgb
from bonsaigan.training.augment import AUGMENTATIONS, augment, translation
from bonsaigan.training.ema import GeneratorEma
from bonsaigan.training.losses import CROSS_ENTROPY, HINGE, RELATIVISTIC, shares_right, zero_centred_penalty


def test_hinge_by_hand_over_two_scales() -> None:
    real, fake = (
        [torch.tensor([[2.0], [0.0]]), torch.tensor([[0.5]])],
        [torch.tensor([[-2.0]]), torch.tensor([[1.0]])],
    )
    assert HINGE.discriminator(real, fake).item() == pytest.approx(0.5 + 0.0 + 0.5 + 2.0)
    assert HINGE.generator([], fake).item() == pytest.approx(2.0 - 1.0)


def test_cross_entropy_by_hand() -> None:
    logits = [torch.tensor([[0.0]])]
    assert CROSS_ENTROPY.discriminator(logits, logits).item() == pytest.approx(math.log(2))
    assert CROSS_ENTROPY.generator([], [torch.tensor([[-3.0]])]).item() == pytest.approx(
        math.log(1 + math.exp(3))
    )


def test_relativistic_by_hand() -> None:
    real, fake = [torch.tensor([[1.0], [0.0]])], [torch.tensor([[0.0], [3.0]])]
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(3))) / 2
    assert RELATIVISTIC.discriminator(real, fake).item() == pytest.approx(expected)
    swapped = (math.log(1 + math.exp(1)) + math.log(1 + math.exp(-3))) / 2
    assert RELATIVISTIC.generator(real, fake).item() == pytest.approx(swapped)


@pytest.mark.parametrize("offset", [0.0, 100.0, -100.0])
def test_a_paired_loss_is_right_wherever_its_logits_lie(offset: float) -> None:
    real = [torch.tensor([[3.0, 5.0], [1.0, 1.0]]) + offset, torch.tensor([[2.0], [1.0]]) + offset]
    fake = [torch.tensor([[-3.0, -1.0], [4.0, 4.0]]) + offset, torch.tensor([[0.0], [4.0]]) + offset]
    assert shares_right(real, fake, paired=True) == (0.5, 0.5)  # 3 and 1 against -1 and 4
    by_zero = {0.0: (1.0, 0.5), 100.0: (1.0, 0.0), -100.0: (0.0, 1.0)}
    assert shares_right(real, fake, paired=False) == by_zero[offset]


def test_the_penalty_is_the_mean_squared_gradient_and_can_be_differentiated() -> None:
    weight = torch.tensor([[3.0, -4.0]], requires_grad=True)
    seen = torch.randn(5, 2, requires_grad=True)
    penalty = zero_centred_penalty([seen @ weight.T], [seen])
    assert penalty.item() == pytest.approx(25.0)
    penalty.backward()
    torch.testing.assert_close(weight.grad, 2 * weight.detach())


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_augmentations_change_pictures_and_let_gradients_through(name: str, channels: int) -> None:
    torch.manual_seed(0)
    images = torch.rand(8, channels, 32, 48).requires_grad_()
    changed = augment(images, [name])
    assert changed.shape == images.shape
    assert not torch.equal(changed, images)
    changed.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_translation_moves_at_most_an_eighth_and_repeats_the_border() -> None:
    torch.manual_seed(0)
    rows = torch.arange(32.0)[:, None].expand(32, 32)
    moved = translation(rows.expand(200, 1, 32, 32))
    shift = moved[:, 0, 16, 0] - 16
    assert shift.abs().max() == 4
    assert moved.min() == 0
    assert moved.max() == 31


def test_transparent_pictures_show_their_transparency_to_the_discriminator() -> None:
    torch.manual_seed(0)
    clear = torch.full((4, 4, 8, 8), -1.0)
    solid = clear.clone()
    solid[:, 3] = 1.0
    assert (as_rgb(solid) == -1).all()
    assert as_rgb(clear).std() > 0.1


def test_the_average_follows_with_its_half_life() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(layer.weight)
    ema = GeneratorEma(layer, half_life_kimg=0.008)
    torch.nn.init.ones_(layer.weight)
    ema.update(layer, batch=8, seen_nimg=10**6)
    assert ema.module.weight.item() == pytest.approx(0.5)  # pyright: ignore
