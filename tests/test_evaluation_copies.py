# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
"""Copies of training pictures are found whatever small change they had; new pictures are left alone."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from bonsaigan.errors import DataError
from bonsaigan.evaluation import copies
from bonsaigan.evaluation.copies import CopyDetector, CopyReport, Limit
from bonsaigan.evaluation.embedding import embed
from bonsaigan.evaluation.pixels import pixel_distances, reduce

ARCHIVE = Path(__file__).parents[2] / "shared" / "data" / "caltech-101.zip"
SAME_PHOTO = {"bonsai": {11, 12, 15, 25, 91, 112, 113, 114}, "butterfly": {0, 30}, "sunflower": set()}
"""Photos these sets hold twice, recropped or recoloured, by place; found by looking."""


def scenes(n: int, *, seed: int = 0, side: int = 64) -> np.ndarray:
    """Smooth coloured pictures with something at every scale, as photos have; uint8 (n, side, side, 3)."""
    rng = np.random.default_rng(seed)
    total = np.zeros((n, side, side, 3))
    for cells, weight in ((2, 70), (4, 45), (8, 30), (16, 20), (32, 12)):
        for i, coarse in enumerate(rng.normal(size=(n, cells, cells, 3))):
            for c in range(3):
                layer = Image.fromarray(coarse[..., c].astype(np.float32)).resize((side, side), Image.BICUBIC)
                total[i, ..., c] += weight * np.asarray(layer)
    return np.clip(total + 128, 0, 255).astype(np.uint8)


def each(change: Callable[[Image.Image], Image.Image]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda batch: np.stack([np.asarray(change(Image.fromarray(p))) for p in batch])


def shift(x: int, y: int) -> Callable[[np.ndarray], np.ndarray]:
    def move(batch: np.ndarray) -> np.ndarray:
        padded = np.pad(batch, ((0, 0), (8, 8), (8, 8), (0, 0)), mode="edge")
        return padded[:, 8 + y : 8 + y + batch.shape[1], 8 + x : 8 + x + batch.shape[2]]

    return move


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer)


def zoom(image: Image.Image) -> Image.Image:
    side, edge = image.width, image.width / 22
    return image.resize((side, side), Image.BICUBIC, box=(edge, edge, side - edge, side - edge))


def recolour(batch: np.ndarray) -> np.ndarray:
    return np.clip(batch * np.array([1.1, 0.9, 1.05]) + 10, 0, 255).astype(np.uint8)


def noisy(batch: np.ndarray) -> np.ndarray:
    return np.clip(batch + np.random.default_rng(0).normal(0, 10, batch.shape), 0, 255).astype(np.uint8)


REPLAYS = {
    "itself": lambda batch: batch,
    "shifted right and up": shift(-3, 3),
    "shifted left": shift(2, 0),
    "mirrored": lambda batch: batch[:, :, ::-1],
    "recoloured": recolour,
    "blurred": each(lambda image: image.filter(ImageFilter.GaussianBlur(1.0))),
    "jpeg": each(jpeg),
    "noise": noisy,
    "zoomed": each(zoom),
    "all at once": lambda batch: each(jpeg)(recolour(shift(-2, 1)(batch[:, :, ::-1]))),
}


@pytest.fixture(scope="module")
def training() -> np.ndarray:
    return scenes(24)


@pytest.fixture(scope="module")
def detector(training: np.ndarray) -> CopyDetector:
    return CopyDetector(training, holdout=scenes(8, seed=7))


def check_by_pixels(detector: CopyDetector, pictures: np.ndarray) -> CopyReport:
    """`check` without the network's time: features that are far from everything."""
    return detector.check(pictures, features=np.full((len(pictures), 1280), 9, np.float32))


# --- what is found ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", REPLAYS)
def test_replayed_training_pictures_are_found(
    detector: CopyDetector, training: np.ndarray, change: str
) -> None:
    report = check_by_pixels(detector, np.ascontiguousarray(REPLAYS[change](training)))
    assert report.flagged.mean() > 0.9
    assert (report.nearest == np.arange(24))[report.flagged].all()
    assert (report.mirrored == (change in ("mirrored", "all at once")))[report.flagged].all()


def test_new_pictures_are_left_alone(detector: CopyDetector) -> None:
    report = detector.check(scenes(12, seed=5))
    assert not report.flagged.any()
    assert report.verdict == "None of 12 looks like a copy of a training picture."
    assert report.closeness.min() > 1.5


def test_flat_blurry_and_noisy_pictures_are_left_alone(detector: CopyDetector) -> None:
    flat = np.full((4, 64, 64, 3), 90, np.uint8)
    blurry = each(lambda image: image.filter(ImageFilter.GaussianBlur(6)))(scenes(8, seed=5))
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    assert not check_by_pixels(detector, np.concatenate([flat, blurry, noise])).flagged.any()


def test_features_find_what_turned_too_far_for_the_pixels(
    detector: CopyDetector, training: np.ndarray
) -> None:
    turned = each(lambda image: image.rotate(16, Image.BICUBIC))(training)
    alone = check_by_pixels(detector, turned)
    with_features = detector.check(turned, features=embed(training))
    assert not alone.flagged.any()
    assert with_features.flagged.mean() > 0.7
    assert (with_features.nearest == np.arange(24))[with_features.flagged].all()


def test_features_alone_do_not_make_a_copy(detector: CopyDetector, training: np.ndarray) -> None:
    report = detector.check(scenes(24, seed=5), features=embed(training))
    assert (report.features.ratio < 0.01).all()
    assert not report.flagged.any()


def test_blends_count_by_their_larger_part(detector: CopyDetector, training: np.ndarray) -> None:
    def blend(share: float) -> float:
        mixed = share * training + (1 - share) * training[::-1]
        return check_by_pixels(detector, mixed.round().astype(np.uint8)).flagged.mean()

    assert blend(0.85) > 0.9
    assert blend(0.5) < 0.1


# --- what is said -------------------------------------------------------------------------------------------


def test_the_verdict_names_the_seeds(detector: CopyDetector, training: np.ndarray) -> None:
    mixed = scenes(6, seed=5)
    mixed[[1, 4]] = training[[3, 8]]
    report = detector.check(mixed, seeds=[10, 17, 12, 13, 90, 15])
    assert report.verdict == "2 of 6 look like copies of training pictures: seeds 17, 90."
    assert detector.check(mixed[:2]).verdict == "1 of 2 looks like a copy of a training picture: picture 1."
    pairs = report.closest(3)
    assert {(p.generated, p.training, p.mirrored, p.flagged) for p in pairs[:2]} == {
        (1, 3, False, True),
        (4, 8, False, True),
    }
    assert not pairs[2].flagged
    assert [p.closeness for p in pairs] == sorted(p.closeness for p in pairs)


def test_a_long_verdict_is_cut_short(detector: CopyDetector, training: np.ndarray) -> None:
    verdict = check_by_pixels(detector, training).verdict
    assert verdict.startswith("24 of 24 look like copies of training pictures: pictures 0, 1,")
    assert verdict.endswith("18, 19 and 4 more.")


def test_the_comparison_sets_distances_beside_real_ones(detector: CopyDetector, training: np.ndarray) -> None:
    new, replayed = detector.check(scenes(6, seed=5)), detector.check(training[:6])
    assert [b.name for b in new.baselines] == ["training pictures", "held-out pictures"]
    assert [b.count for b in new.baselines] == [24, 8]
    assert [b.flagged for b in new.baselines] == [0, 0]
    for sentence in (new.comparison, replayed.comparison):
        assert sentence.startswith("Median distance to the nearest other training picture: generated ")
        assert "; held-out pictures " in sentence
    real = new.baselines[0].pixel_distance
    assert np.median(replayed.pixels.distance) < 0.1 * real < real < 1.5 * np.median(new.pixels.distance)


def test_the_report_is_plain_json(detector: CopyDetector, training: np.ndarray) -> None:
    report = detector.check(training[:3], seeds=range(3))
    found = json.loads(json.dumps(report.to_dict()))
    assert (found["generated_count"], found["flagged_count"]) == (3, 3)
    assert found["closest"][0].keys() >= {"seed", "training", "mirrored", "closeness", "flagged"}
    assert found["pixel_limit"]["value"] == pytest.approx(1 / 3)
    assert found["baselines"][1]["name"] == "held-out pictures"


# --- calibration --------------------------------------------------------------------------------------------


def test_pictures_repeated_in_the_set_do_not_hide_their_copies(training: np.ndarray) -> None:
    repeated = np.concatenate([training[:12], training[:12], training[:12, :, ::-1]])
    report = check_by_pixels(CopyDetector(repeated), training[:12])
    assert report.flagged.all()
    assert (report.nearest == np.arange(12)).all()


def test_near_duplicates_in_the_set_are_told_and_do_not_spoil_the_limit(training: np.ndarray) -> None:
    pairs = np.concatenate([training, recolour(training[:3])])
    report = check_by_pixels(CopyDetector(pairs), shift(2, 2)(training))
    assert report.flagged.all()
    assert report.baselines[0].flagged == 6
    assert "The same rule marks 6 of 27 training pictures." in report.comparison


def test_a_set_of_pictures_all_alike_lowers_the_limit() -> None:
    base = scenes(1)[0].astype(float)
    film = np.stack([np.roll(base, (2 * i, 5 * i), (0, 1)) for i in range(24)])
    limit = CopyDetector(film.astype(np.uint8)).pixel_limit
    assert limit.typical < 0.5
    assert limit.value < 1 / 3
    assert limit.value < limit.halfway < limit.typical


def test_a_set_full_of_twins_is_told_of_in_the_verdict(training: np.ndarray) -> None:
    report = check_by_pixels(CopyDetector(np.concatenate([training, recolour(training)])), scenes(3, seed=9))
    assert report.verdict.startswith("None of 3 looks like a copy of a training picture. So many training")
    assert report.to_dict()["bluntness"] == report.bluntness
    assert not check_by_pixels(CopyDetector(training), scenes(3, seed=9)).bluntness


def test_the_limit_never_rises_above_its_constant() -> None:
    assert copies._limit(np.full(9, 0.8), 1 / 3) == Limit(value=1 / 3, typical=pytest.approx(0.8), spread=0)
    assert copies._limit(np.array([0.1, 0.2, 0.4, 0.8]), 1 / 3).value < 0.1


def test_small_sets_work_and_hopeless_ones_are_refused(training: np.ndarray) -> None:
    report = CopyDetector(training[:4]).check(training[:2])
    assert report.nearest.tolist() == [0, 1]
    with pytest.raises(DataError, match="3 different training pictures: finding copies needs 4"):
        CopyDetector(np.repeat(training[:3], 4, axis=0))
    with pytest.raises(DataError, match="3 seeds for 2 pictures"):
        CopyDetector(training[:4]).check(training[:2], seeds=[1, 2, 3])


def test_other_sizes_shapes_and_colour_modes(training: np.ndarray) -> None:
    wide = training[:8, 16:48]
    opaque = np.concatenate([wide, np.full((8, 32, 64, 1), 255, np.uint8)], axis=3)
    assert CopyDetector(wide).check(opaque).flagged.all()
    grey = training[:8, ..., :1]
    assert CopyDetector(grey).check(np.ascontiguousarray(grey[:, :, ::-1])).mirrored.all()


# --- pixel distances ----------------------------------------------------------------------------------------


def test_pixel_distance_is_nothing_for_the_same_picture_and_large_for_another(training: np.ndarray) -> None:
    distance, mirrored = pixel_distances(training, training)
    assert distance.shape == mirrored.shape == (24, 24)
    assert np.diag(distance).max() < 2e-3
    assert distance[~np.eye(24, dtype=bool)].min() > 0.4
    flipped, mirrored = pixel_distances(np.ascontiguousarray(training[:, :, ::-1]), training)
    np.testing.assert_allclose(np.diag(flipped), np.diag(distance), atol=2e-3)
    assert np.diag(mirrored).all()


def test_flat_pictures_are_not_alike(training: np.ndarray) -> None:
    flat = np.stack([np.full((64, 64, 3), level, np.uint8) for level in (0, 90, 255)])
    distance, _ = pixel_distances(flat, np.concatenate((training, flat)))
    assert distance.min() > 0.5


def test_pixel_distance_ignores_brightness_and_contrast(training: np.ndarray) -> None:
    darker = (training // 2 + 20).astype(np.uint8)
    assert np.diag(pixel_distances(darker, training)[0]).max() < 0.1


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 80), (32, 256), (100, 33)])
def test_pictures_are_reduced_by_exact_areas_and_blurred_twice(height: int, width: int) -> None:
    picture = scenes(1, side=256)[0, :height, :width] / 255
    # Each pixel repeated 32 times, so that every area is whole pixels.
    fine = np.repeat(np.repeat(picture, 32, axis=0), 32, axis=1)
    expected = fine.reshape(32, height, 32, width, 3).mean(axis=(1, 3))
    for _ in range(2):
        for axis in (0, 1):
            padded = np.pad(expected, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
            near, middle, far = (np.take(padded, range(i, 32 + i), axis=axis) for i in range(3))
            expected = near / 4 + middle / 2 + far / 4
    found = reduce(scenes(1, side=256)[:, :height, :width])[0]
    np.testing.assert_allclose(found.transpose(1, 2, 0), expected, atol=1e-5)
    assert reduce(np.full((1, height, width, 1), 51, np.uint8)) == pytest.approx(0.2, abs=1e-6)


# --- real photos --------------------------------------------------------------------------------------------


def photos(category: str, cache: Path) -> np.ndarray:
    from bonsaigan.config import DataConfig
    from bonsaigan.data.prepare import prepare
    from bonsaigan.data.sources import open_source

    data = f"caltech101:{category}"
    source = open_source(data, archive=str(ARCHIVE))
    return np.asarray(
        prepare(source, DataConfig(source=data, archive=str(ARCHIVE)), cache_dir=cache).pictures
    )


@pytest.mark.slow
@pytest.mark.skipif(not ARCHIVE.exists(), reason="needs the Caltech-101 selection beside the project")
@pytest.mark.parametrize("category", SAME_PHOTO)
def test_real_photos_replayed_are_caught_and_other_halves_are_not(category: str, tmp_path: Path) -> None:
    real = photos(category, tmp_path)
    features = embed(real)
    detector = CopyDetector(real, features=features)
    for name, change in REPLAYS.items():
        report = check_by_pixels(detector, np.ascontiguousarray(change(real)))
        assert report.flagged.mean() > 0.95, name
    order = np.random.default_rng(0).permutation(len(real))
    half, other = np.array_split(order, 2)
    report = CopyDetector(real[half], features=features[half]).check(real[other], features=features[other])
    assert {int(i) for i in other[report.flagged]} <= SAME_PHOTO[category]
