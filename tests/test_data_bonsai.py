"""The drawn set: the same from the same seed, different from another, sound at any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bonsaigan.data import bonsai
from bonsaigan.data.bonsai import draw
from bonsaigan.data.bonsai_backdrops import BACKDROPS, paint
from bonsaigan.data.bonsai_parts import Noise
from bonsaigan.data.bonsai_species import GLAZES, POTS, SPECIES, STYLES
from bonsaigan.data.bonsai_tree import LEAVES_MOST, TWIGS, grow

SIDES = st.integers(2, 9).map(lambda k: 16 * k)


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    return np.stack([draw(seed, width_px=32, height_px=32) for seed in range(96)])


@pytest.mark.parametrize("seed", [0, 7, 12345, 2**63 - 1])
def test_same_seed_same_bytes(seed: int) -> None:
    first = draw(seed, width_px=48, height_px=48)
    draw(seed + 1, width_px=32, height_px=64)
    assert first.tobytes() == draw(seed, width_px=48, height_px=48).tobytes()


def test_seeds_differ(batch: np.ndarray) -> None:
    flat = batch.reshape(len(batch), -1).astype(np.float64)
    distance = np.abs(flat[:, None, ::7] - flat[None, :, ::7]).mean(-1)
    np.fill_diagonal(distance, np.inf)
    assert distance.min() > 8.0


def test_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        draw(-1, width_px=32, height_px=32)


@pytest.mark.parametrize(
    ("width", "height"),
    [(32, 32), (64, 64), (96, 64), (64, 96), (256, 32), (32, 256), (256, 256), (250, 131)],
)
def test_any_size(width: int, height: int) -> None:
    picture = draw(3, width_px=width, height_px=height)
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous


@pytest.mark.parametrize("seed", range(6))
def test_a_seed_is_the_same_tree_at_any_size(seed: int) -> None:
    small = draw(seed, width_px=64, height_px=64).astype(np.float64)
    large = draw(seed, width_px=192, height_px=192)
    reduced = np.asarray(Image.fromarray(large).reduce(3), np.float64)
    other = draw(seed + 1, width_px=64, height_px=64).astype(np.float64)
    assert np.abs(small - reduced).mean() < 12.0
    assert np.abs(small - reduced).mean() < 0.5 * np.abs(small - other).mean()


def test_brightness_and_contrast(batch: np.ndarray) -> None:
    assert 80 < batch.mean() < 170
    assert 45 < batch.std() < 90
    per_picture = batch.reshape(len(batch), -1)
    assert per_picture.mean(1).min() > 15
    assert per_picture.mean(1).max() < 235
    assert per_picture.std(1).min() > 15
    assert (batch == 255).mean() < 0.08
    assert batch.std(0).min() > 15, "every pixel must vary over the set"
    assert np.abs(batch.astype(np.float64).mean((0, 1, 2)).std()) < 40, "no colour may dominate"


def test_the_tree_fills_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a magenta backdrop, all that is not magenta is tree, pot or stand: a shadow keeps the hue."""

    def magenta(
        kind: object, rng: object, noise: object, width: int, height: int, horizon: float
    ) -> np.ndarray:
        return np.full((height, width, 3), [250.0, 0.0, 250.0])

    monkeypatch.setattr(bonsai, "paint", magenta)
    for seed in range(60):
        picture = draw(seed, width_px=64, height_px=64).astype(int)
        tree = picture[..., 1] * 4 > np.minimum(picture[..., 0], picture[..., 2])
        rows, columns = np.nonzero(tree)
        assert 0.12 < tree.mean() < 0.85, seed
        assert max(np.ptp(rows), np.ptp(columns)) > 46, seed
        assert np.ptp(rows) > 26, seed
        assert abs(columns.mean() - 31.5) < 16, seed
        assert abs(rows.mean() - 31.5) < 16, seed


def test_tables_agree() -> None:
    assert {name for species in SPECIES.values() for name in species.styles} == set(STYLES)
    assert {style.pot for style in STYLES.values()} <= set(POTS)
    for species in SPECIES.values():
        assert species.weight > 0
        for look in species.looks:
            assert 0 <= look.blooming <= 1
            assert (look.bloom is None) == (look.blooming == 0)
            assert all(0 <= value <= 255 for stop in look.ramp for value in stop)
    assert all(0 <= gloss <= 1 for _, gloss in GLAZES)


@pytest.mark.parametrize("name", SPECIES)
def test_every_species_grows_in_all_its_styles_and_seasons(name: str) -> None:
    species = SPECIES[name]
    for style in sorted(set(species.styles)):
        for look in species.looks:
            tree = grow(generator(5), STYLES[style], species, look)
            assert len(tree.limbs) == TWIGS + 3
            assert all(np.isfinite(limbs.path).all() and (limbs.radius > 0).all() for limbs in tree.limbs)
            assert (tree.reach > 0).all()
            assert (len(tree.leaves.at) == 0) == (look.leaves == 0)
            assert len(tree.leaves.at) <= LEAVES_MOST
            np.testing.assert_allclose(np.square(tree.leaves.normal).sum(-1), 1.0, atol=1e-5)
            crown = tree.pads[:, 1].max()
            assert 0.3 < crown < 2.0, (style, crown)


@pytest.mark.parametrize("name", BACKDROPS)
def test_every_backdrop(name: str) -> None:
    rng = generator(1)
    scene = paint(BACKDROPS[name], rng, Noise(rng), 48, 32, 24.0)
    assert scene.shape == (32, 48, 3)
    assert np.isfinite(scene).all()
    assert scene.std() > 1.0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), width=SIDES, height=SIDES)
def test_any_seed_at_any_size(seed: int, width: int, height: int) -> None:
    picture = draw(seed, width_px=width, height_px=height)
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 8.0
