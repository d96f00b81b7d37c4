# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
"""Scores against independent references, their properties, and the order of real photos in KID."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonsaigan.data.prepare import to_rgb
from bonsaigan.errors import ConfigError, DataError
from bonsaigan.evaluation import metrics
from bonsaigan.evaluation.embedding import _inception, embed
from bonsaigan.evaluation.scores import Numbers, RealReference, Scores, evaluate, floors, score

ARCHIVE = Path(__file__).parents[2] / "shared" / "data" / "caltech-101.zip"


def features(n: int, d: int = 24, *, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(d, d)) / d**0.5
    return (rng.normal(size=(n, d)) @ mixing + shift).astype(np.float32)


def pictures(n: int, *, seed: int = 0, channels: int = 3, height: int = 32, width: int = 32) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 4, 4, channels))
    return np.repeat(np.repeat(coarse, height // 4, axis=1), width // 4, axis=2).astype(np.uint8)


# --- KID ----------------------------------------------------------------------------------------------------


def direct_kid(a: np.ndarray, b: np.ndarray) -> float:
    """Equation 4 of Bińkowski et al., summed term by term."""

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return (float(np.dot(x.astype(float), y.astype(float))) / len(x) + 1) ** 3

    m, n = len(a), len(b)
    within_a = sum(k(a[i], a[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    within_b = sum(k(b[i], b[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return within_a + within_b - 2 * sum(k(x, y) for x in a for y in b) / (m * n)


def test_kid_equals_the_direct_sum() -> None:
    a, b = features(17), features(11, seed=1, shift=0.3)
    assert metrics.kid_full(a, b) == pytest.approx(direct_kid(a, b), rel=1e-9)
    assert metrics.kid_full(a, b) == pytest.approx(metrics.kid_full(b, a), rel=1e-12)


def test_kid_equals_torch_fidelity() -> None:
    metric = pytest.importorskip("torch_fidelity.metric_kid")
    a, b = features(40), features(40, seed=1, shift=0.3)
    expected = metric.kernel_mmd(a.astype(np.float64), b.astype(np.float64))
    assert metrics.kid_full(a, b) == pytest.approx(expected, rel=1e-9)


def test_a_subset_of_kid_equals_the_direct_sum_on_the_same_pictures() -> None:
    a, b = features(12), features(12, seed=1, shift=0.3)
    found = metrics.kid(a, b, subsets=1, subset_size=5, seed=3)
    rng = np.random.default_rng((3, 0))
    i, j = rng.choice(12, 5, replace=False), rng.choice(12, 5, replace=False)
    assert found.mean == pytest.approx(direct_kid(a[i], b[j]), rel=1e-9)
    assert found.std == 0


def test_kid_over_subsets_agrees_with_kid_over_all_and_repeats() -> None:
    a, b = features(300), features(200, seed=1, shift=0.2)
    found = metrics.kid(a, b, seed=5)
    assert found == metrics.kid(a, b, seed=5)
    assert found != metrics.kid(a, b, seed=6)
    assert (found.subsets, found.subset_size) == (100, 100)
    assert abs(found.mean - metrics.kid_full(a, b)) < 3 * found.std / 100**0.5 + 1e-9


def test_kid_is_unbiased_where_the_frechet_distance_is_not() -> None:
    pairs = [(features(20, seed=2 * i), features(20, seed=2 * i + 1)) for i in range(200)]
    values = np.array([metrics.kid_full(a, b) for a, b in pairs])
    assert abs(values.mean()) < 3 * values.std() / len(values) ** 0.5
    assert min(metrics.frechet(a, b) for a, b in pairs[:20]) > 1


@pytest.mark.parametrize("size", [1, 8, 9])
def test_kid_refuses_subsets_that_are_not_smaller(size: int) -> None:
    with pytest.raises(ConfigError, match=f"subset size {size}: must be from 2 to 7"):
        metrics.kid(features(8), features(20), subset_size=size)


# --- Fréchet distance ---------------------------------------------------------------------------------------


def scipy_frechet(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.linalg import sqrtm

    a, b = a.astype(float), b.astype(float)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.real(np.asarray(sqrtm(cov_a @ cov_b)))
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * root))


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 24), (60, 500, 48)])
def test_frechet_equals_scipy_with_more_pictures_than_features(n: int, m: int, d: int) -> None:
    a, b = features(n, d), features(m, d, seed=1, shift=0.2)
    assert metrics.frechet(a, b) == pytest.approx(scipy_frechet(a, b), rel=1e-6)


@pytest.mark.parametrize(("n", "m", "d"), [(30, 20, 64), (100, 20, 64)])
@pytest.mark.filterwarnings("ignore:Matrix is singular")
def test_frechet_equals_scipy_with_fewer_pictures_than_features(n: int, m: int, d: int) -> None:
    a, b = features(n, d), features(m, d, seed=1, shift=0.2)
    # The matrix root of a singular product loses half its digits; that is why we do not use it.
    assert metrics.frechet(a, b) == pytest.approx(scipy_frechet(a, b), rel=1e-4)


def test_frechet_of_known_gaussians() -> None:
    base = features(50, 8)
    assert metrics.frechet(base, base) == pytest.approx(0, abs=1e-9)
    assert metrics.frechet(base, base + np.float32(2)) == pytest.approx(8 * 4, rel=1e-5)
    mean = base.mean(axis=0, dtype=np.float64)
    spread = np.square(base - mean).sum() / 49
    wider = (mean + 3 * (base - mean)).astype(np.float32)
    assert metrics.frechet(base, wider) == pytest.approx(4 * spread, rel=1e-5)


@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_distances_between_sets_are_symmetric_and_frechet_not_negative(
    n: int, m: int, d: int, seed: int
) -> None:
    a, b = features(n, d, seed=seed), features(m, d, seed=seed + 1)
    assert metrics.frechet(a, b) == pytest.approx(metrics.frechet(b, a), rel=1e-6, abs=1e-6)
    assert metrics.frechet(a, b) >= 0
    assert metrics.kid_full(a, b) == pytest.approx(metrics.kid_full(b, a), rel=1e-6, abs=1e-9)


# --- precision, recall, density, coverage, diversity --------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("n", "m"), [(60, 60), (40, 70)])
def test_neighbourhood_measures_equal_prdc(n: int, m: int, k: int) -> None:
    prdc = pytest.importorskip("prdc")
    real, generated = features(m), features(n, seed=1, shift=0.15)
    expected = prdc.compute_prdc(real_features=real, fake_features=generated, nearest_k=k)
    near = metrics.nearness(generated, real, neighbours=k)
    assert metrics.precision(near) == pytest.approx(expected["precision"])
    assert metrics.recall(near) == pytest.approx(expected["recall"])
    assert metrics.density(near) == pytest.approx(expected["density"])
    assert metrics.coverage(near) == pytest.approx(expected["coverage"])
    assert 0 < expected["precision"] < 1 or 0 < expected["coverage"] < 1


def test_diversity_sees_collapse() -> None:
    real = features(60)
    centre = real.mean(axis=0)
    assert metrics.diversity(real, real) == pytest.approx(1)
    assert metrics.diversity(centre + (real - centre) * 0.25, real) == pytest.approx(0.25, rel=1e-5)
    assert metrics.diversity(np.repeat(real[:1], 20, axis=0), real) == pytest.approx(0, abs=1e-6)
    with pytest.raises(DataError, match="all the same"):
        metrics.diversity(real, np.repeat(real[:1], 20, axis=0))


# --- scores -------------------------------------------------------------------------------------------------


def test_scores_say_all_that_is_needed_to_repeat_them() -> None:
    generated, real = features(50, seed=1, shift=0.1), features(20)
    scores = score(generated, real, holdout=features(10, seed=2), seed=4)
    assert scores == score(generated, real, holdout=features(10, seed=2), seed=4)
    found = json.loads(json.dumps(scores.to_dict()))
    assert (found["generated_count"], found["real_count"], found["holdout_count"]) == (50, 20, 10)
    assert (found["floor_count"], found["neighbour_count"], found["neighbours"]) == (10, 20, 5)
    assert (found["network"], found["seed"], found["kid_subsets"]["subset_size"]) == (
        "efficientnet-lite2",
        4,
        10,
    )
    assert "bicubic" in found["filter"]
    held_out = metrics.kid_full(generated, features(10, seed=2))
    diversity = metrics.diversity(generated, features(10, seed=2))
    assert found["holdout"] == {"kid": held_out, "diversity": diversity}
    assert found["verdict"].endswith(f"Against the 10 held-out pictures KID x1000 is {held_out * 1000:.3g}.")
    assert [row[0] for row in scores.rows()][:2] == ["KID x1000", "Fréchet distance"]
    assert all(isinstance(cell, str) for row in scores.rows() for cell in row)


def test_floors_compare_disjoint_halves_of_the_real_pictures() -> None:
    floor, spread = floors(features(400))
    assert abs(floor.kid) < 0.01
    assert floor.diversity == pytest.approx(1, abs=0.05)
    assert floor.coverage > 0.9
    assert 0 < spread.kid < 0.05
    assert 0 < spread.frechet < floor.frechet


def test_a_good_generator_scores_like_the_floor() -> None:
    scores = score(features(500, seed=1), features(100))
    assert scores.frechet_matched == pytest.approx(scores.floor.frechet, rel=0.1)
    few = score(features(12, seed=1), features(100))
    assert (few.floor_count, few.frechet_count) == (50, 12)
    assert few.frechet_matched == pytest.approx(few.floor.frechet, rel=0.3)
    assert few.floor.frechet > 1.5 * scores.floor.frechet  # the fewer there are, the larger it is
    assert any("of 12 pictures a side look better than those of 50" in note for note in few.notes)
    assert not any("a side" in note for note in scores.notes)
    assert abs(scores.numbers.kid) < 4 * scores.floor_std.kid
    assert scores.numbers.precision == pytest.approx(scores.floor.precision, abs=0.1)


def test_small_sets_are_scored_and_too_small_ones_refused() -> None:
    scores = score(features(8, seed=1), features(8), holdout=features(3, seed=2))
    assert (scores.neighbours, scores.floor_count, scores.holdout) == (3, 4, None)
    assert any("3 held-out pictures are too few" in note for note in scores.notes)
    assert "held-out" not in scores.verdict
    with pytest.raises(DataError, match="7 generated pictures: scores need at least 8"):
        score(features(7), features(8))
    with pytest.raises(DataError, match="7 real pictures"):
        score(features(8), features(7))


def test_evaluate_scores_pictures() -> None:
    generated, real = pictures(12, seed=1), pictures(10)
    scores = evaluate(generated, real)
    assert isinstance(scores, Scores)
    assert scores == evaluate(generated, real)
    assert scores == score(embed(generated), embed(real))
    assert any("rewards copying" in note for note in scores.notes)


def test_the_reference_gives_the_same_numbers_as_a_full_evaluation() -> None:
    generated, real = pictures(6, seed=1), pictures(8)
    reference = RealReference(real)
    quick = reference.score(reference.embed(generated))
    a, b = embed(generated), embed(real)
    assert quick.kid == pytest.approx(metrics.kid_full(a, b), rel=1e-9)
    assert quick.diversity == pytest.approx(metrics.diversity(a, b), rel=1e-9)
    with pytest.raises(DataError, match="7 real pictures"):
        RealReference(real[:7])


# --- pictures → features ------------------------------------------------------------------------------------


def test_embedding_has_one_row_a_picture_and_does_not_depend_on_the_batch() -> None:
    batch = pictures(5, height=48)
    found = embed(batch)
    assert found.dtype == np.float32
    assert found.shape == (5, 1280)
    np.testing.assert_array_equal(found, embed(batch))
    np.testing.assert_allclose(found, embed(batch, batch=1), atol=1e-3)
    np.testing.assert_allclose(found[3:], embed(batch[3:]), atol=1e-3)


def test_greyscale_is_repeated_and_transparency_goes_over_white() -> None:
    grey = pictures(2, channels=1)
    np.testing.assert_array_equal(embed(grey), embed(np.repeat(grey, 3, axis=3)))
    rgba = np.zeros((1, 8, 8, 4), np.uint8)
    rgba[0, :, :4] = (10, 20, 30, 255)
    rgba[0, :, 4:6] = (10, 20, 30, 0)
    rgba[0, :, 6:] = (10, 20, 30, 51)
    expected = np.array([[10, 20, 30], [255, 255, 255], [206, 208, 210]])
    np.testing.assert_array_equal(to_rgb(rgba)[0, 0, [0, 5, 7]], expected)


@given(st.sampled_from([1, 3, 4]), st.integers(1, 3), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_to_rgb_keeps_what_is_opaque(channels: int, n: int, side: int) -> None:
    original = np.random.default_rng(side).integers(0, 256, (n, side, side, channels), dtype=np.uint8)
    if channels == 4:
        original[..., 3] = 255
    found = to_rgb(original)
    assert found.shape == (n, side, side, 3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.broadcast_to(original[..., :3], found.shape))


def test_embedding_says_what_it_cannot_take() -> None:
    with pytest.raises(DataError, match=r"float32\(2, 8, 8, 3\): expected uint8"):
        embed(np.zeros((2, 8, 8, 3), np.float32))  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="expected uint8"):
        embed(np.zeros((2, 8, 8, 2), np.uint8))
    with pytest.raises(DataError, match="no pictures"):
        embed(np.zeros((0, 8, 8, 3), np.uint8))
    with pytest.raises(ConfigError, match="--features 'vgg': choose one of efficientnet-lite2"):
        embed(pictures(1), network="vgg")


def test_inception_without_torch_fidelity_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    _inception.cache_clear()
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(
        ConfigError, match=r"^--features inception needs torch-fidelity.*pip install"
    ) as caught:
        embed(pictures(1), network="inception")
    assert "\n" not in str(caught.value)


def test_inception_without_its_weights_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise URLError("no route\nto host")

    _inception.cache_clear()
    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = refuse  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)
    with pytest.raises(ConfigError, match="could not load its weights") as caught:
        embed(pictures(1), network="inception")
    assert "\n" not in str(caught.value)


def test_inception_features_come_from_torch_fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    class Extractor(torch.nn.Module):
        def __init__(self, name: str, wanted: list[str]) -> None:
            super().__init__()
            assert wanted == ["2048"]

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            assert x.dtype == torch.uint8
            return (x.float().mean(dim=(2, 3)).repeat(1, 683)[:, :2048],)

    _inception.cache_clear()
    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Extractor  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)
    real = pictures(9)
    scores = evaluate(pictures(9, seed=1), real, network="inception")
    assert embed(real, network="inception").shape == (9, 2048)
    assert (scores.network, scores.filter.split()[0]) == ("inception", "bilinear")
    _inception.cache_clear()


# --- real photos --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not ARCHIVE.exists(), reason="needs the Caltech-101 selection beside the project")
def test_kid_orders_real_photos_as_people_would(tmp_path: Path) -> None:
    from bonsaigan.config import DataConfig
    from bonsaigan.data.prepare import prepare
    from bonsaigan.data.sources import open_source

    embedded = {}
    for name in ("bonsai", "butterfly", "sunflower"):
        data = f"caltech101:{name}"
        source = open_source(data, archive=str(ARCHIVE))
        ready = prepare(source, DataConfig(source=data, archive=str(ARCHIVE)), cache_dir=tmp_path)
        embedded[name] = embed(np.asarray(ready.pictures))
    noise = embed(np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8))
    bonsai = embedded["bonsai"]
    itself = metrics.kid_full(bonsai, bonsai)
    floor: Numbers = floors(bonsai)[0]
    others = [metrics.kid_full(embedded[name], bonsai) for name in ("butterfly", "sunflower")]
    assert itself < floor.kid < min(others) < max(others) < metrics.kid_full(noise, bonsai)
    assert abs(floor.kid) < 0.01 * min(others)
