"""What health is read from: known pictures, known numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bonsaigan.data.bonsai import draw
from bonsaigan.data.prepare import to_float, to_uint8
from bonsaigan.training import vitals
from bonsaigan.training.augment import augment
from bonsaigan.training.vitals import Leak, LeakDetector

ALL = ("flip", "colour", "translation")


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    return np.stack([draw(seed, width_px=32, height_px=32) for seed in range(48)])


@pytest.fixture(scope="module")
def detector(photos: np.ndarray) -> LeakDetector:
    return LeakDetector(photos, ALL)


def augmented(pictures: np.ndarray, *names: str) -> np.ndarray:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return to_uint8(augment(to_float(pictures), names).clamp(-1, 1))


def blurred(pictures: np.ndarray) -> np.ndarray:
    around = [np.roll(pictures, shift, axis).astype(float) for axis in (1, 2) for shift in (-1, 0, 1)]
    return np.mean(around, axis=0).astype(np.uint8)


def noisy(pictures: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 20, pictures.shape)
    return np.clip(pictures + noise, 0, 255).astype(np.uint8)


def greyer(pictures: np.ndarray) -> np.ndarray:
    return (pictures * 0.6 + pictures.mean(axis=3, keepdims=True) * 0.4).astype(np.uint8)


def cropped(pictures: np.ndarray) -> np.ndarray:
    return pictures[:, 4:28, 8:32].repeat(2, axis=1).repeat(2, axis=2)[:, :32, :32]


@pytest.mark.parametrize("names", [ALL, ("colour",), ("translation",)])
def test_augmented_pictures_leak_what_they_were_augmented_by(
    photos: np.ndarray, detector: LeakDetector, names: tuple[str, ...]
) -> None:
    for name, leak in detector.leaks(augmented(photos, *names)).items():
        if name in names:
            assert 0.6 < leak.share < 1.4
            assert leak.likeness > 0.9
        else:
            assert abs(leak.share) < 0.2


@pytest.mark.parametrize("name", ["colour", "translation"])
def test_half_of_the_pictures_leak_half(photos: np.ndarray, detector: LeakDetector, name: str) -> None:
    mixed = np.concatenate((photos[::2], augmented(photos[1::2], name)))
    assert detector.leaks(mixed)[name].share == pytest.approx(0.5, abs=0.3)


@pytest.mark.parametrize(
    "change", [np.array, lambda p: p[:, :, ::-1], blurred, noisy, greyer, cropped, lambda p: p // 2]
)
def test_other_changes_do_not_leak(
    photos: np.ndarray, detector: LeakDetector, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    for leak in detector.leaks(change(photos)).values():
        assert leak.share < 0.4 or leak.likeness < 0.7


@pytest.mark.parametrize(
    "pictures",
    [
        np.full((16, 32, 32, 3), 127, np.uint8),
        np.zeros((16, 32, 32, 3), np.uint8),
        np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8),
    ],
)
def test_pictures_of_nothing_do_not_leak(detector: LeakDetector, pictures: np.ndarray) -> None:
    for leak in detector.leaks(pictures).values():
        assert leak.share < 0.4 or leak.likeness < 0.7


def test_a_leak_is_told_only_where_it_can_be(photos: np.ndarray) -> None:
    assert LeakDetector(photos, ("flip",)).leaks(photos) == {}
    assert LeakDetector(photos, ()).leaks(photos) == {}
    assert LeakDetector(photos[:8], ALL).leaks(photos) == {}
    black = np.zeros((32, 32, 32, 3), np.uint8)
    assert "translation" not in LeakDetector(black, ALL).leaks(black)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 32), (32, 96)])
def test_every_mode_and_size(channels: int, height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (32, height // 8, width // 8, channels), dtype=np.uint8)
    pictures = small.repeat(8, axis=1).repeat(8, axis=2)
    pictures[..., -1] |= 128
    leaks = LeakDetector(pictures, ALL).leaks(augmented(pictures, *ALL))
    assert leaks
    assert all(leak.share > 0.5 for leak in leaks.values())
    assert vitals.spread(pictures) > 0


def test_the_detector_draws_from_nobody_elses_random_numbers(photos: np.ndarray) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, other = (LeakDetector(photos, ALL).leaks(photos) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert one == other


@settings(max_examples=20)
@given(st.integers(2, 20), st.integers(0, 2**32 - 1))
def test_shares_are_numbers_and_cosines_are_cosines(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (24 + count, 32, 32, 3), dtype=np.uint8)
    pictures[::2] //= 1 + rng.integers(0, 4, dtype=np.uint8)
    for leak in LeakDetector(pictures[:24], ALL).leaks(pictures[24:]).values():
        assert np.isfinite(leak.share)
        assert -1.000001 <= leak.likeness <= 1.000001


def test_a_leak_holds_plain_numbers(photos: np.ndarray, detector: LeakDetector) -> None:
    leak = detector.leaks(photos)["colour"]
    assert leak == Leak(share=float(leak.share), likeness=float(leak.likeness))
    assert type(leak.share) is float


def test_spread_is_in_levels() -> None:
    black, white = np.zeros((1, 32, 32, 3), np.uint8), np.full((1, 32, 32, 3), 255, np.uint8)
    assert vitals.spread(np.concatenate((black, white))) == pytest.approx(255, rel=1e-3)
    assert vitals.spread(np.concatenate((white, white))) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["weight", "running_var"])
def test_a_value_that_is_not_finite_is_found_anywhere(value: float, where: str) -> None:
    good = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    assert vitals.all_finite(good, good)
    bad = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    with torch.no_grad():
        getattr(bad[1], where)[2] = value
    assert not vitals.all_finite(good, bad)
