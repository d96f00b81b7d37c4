"""Do the scores order real photos, does the check catch copies and nothing else, and how long does it take?

    python benchmarks/evaluation.py --archive caltech-101.zip

Real photos stand in for generated ones, so that the right answer is known. Writes results/evaluation.json.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _result
import numpy as np
import torch
from PIL import Image, ImageFilter

from bonsaigan.config import DataConfig
from bonsaigan.data.prepare import prepare
from bonsaigan.data.sources import open_source
from bonsaigan.errors import ConfigError
from bonsaigan.evaluation import metrics
from bonsaigan.evaluation.copies import CopyDetector
from bonsaigan.evaluation.embedding import embed
from bonsaigan.evaluation.scores import RealReference, evaluate, floors, score

CATEGORIES = ("bonsai", "butterfly", "sunflower", "watch")
THREADS = 2
SPLITS = 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archive", required=True, help="the Caltech-101 archive, or a part of it")
    archive = parser.parse_args().archive
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as cache:
        photos = {name: load(name, archive, Path(cache)) for name in CATEGORIES}
    features = {name: embed(pictures) for name, pictures in photos.items()}
    _result.write(
        "evaluation",
        {
            "kid_x1000_against_bonsai": kid_order(features),
            "neighbour_measures_against_bonsai": measures(features),
            "copies": {name: copies(photos[name], features[name]) for name in CATEGORIES},
            "memoriser": memoriser(photos["bonsai"], features["bonsai"]),
            "time": times(photos),
            "inception": inception(photos["bonsai"]),
        },
    )


def load(name: str, archive: str, cache: Path) -> np.ndarray:
    data = f"caltech101:{name}"
    source = open_source(data, archive=archive)
    return np.array(prepare(source, DataConfig(source=data, archive=archive), cache_dir=cache).pictures)


# --- scores -------------------------------------------------------------------------------------------------


def kid_order(features: dict[str, np.ndarray]) -> dict[str, Any]:
    """What must come out: itself < another half of itself < another category < noise."""
    bonsai = features["bonsai"]
    floor, spread = floors(bonsai)
    noise = embed(np.random.default_rng(0).integers(0, 256, (128, 64, 64, 3), dtype=np.uint8))
    found: dict[str, Any] = {"itself": 1000 * metrics.kid_full(bonsai, bonsai)}
    found["halves of itself"] = {"mean": 1000 * floor.kid, "std": 1000 * spread.kid}
    for name in CATEGORIES[1:]:
        found[name] = 1000 * metrics.kid_full(features[name], bonsai)
    return found | {"noise": 1000 * metrics.kid_full(noise, bonsai)}


def measures(features: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: score(features[name], features["bonsai"]).to_dict()["numbers"] for name in CATEGORIES[1:]}


# --- copies -------------------------------------------------------------------------------------------------


def copies(photos: np.ndarray, features: np.ndarray) -> dict[str, Any]:
    """Share of changed training photos that are caught, and of other photos that are marked wrongly."""
    detector = CopyDetector(photos, features=features)
    caught = {}
    for name, change in CHANGES.items():
        changed = np.ascontiguousarray(change(photos, np.random.default_rng(0)))
        report = detector.check(changed)
        right = (report.nearest == np.arange(len(photos)))[report.flagged]
        caught[name] = {"flagged": float(report.flagged.mean()), "right source": float(right.mean())}
    marked, total, pairs = 0, 0, set()
    for split in range(SPLITS):
        half, other = np.array_split(np.random.default_rng(split).permutation(len(photos)), 2)
        report = CopyDetector(photos[half], features=features[half]).check(
            photos[other], features=features[other]
        )
        marked, total = marked + int(report.flagged.sum()), total + len(other)
        found = np.flatnonzero(report.flagged)
        pairs |= {tuple(sorted((int(other[i]), int(half[report.nearest[i]])))) for i in found}
    return {
        "pixel limit": detector.pixel_limit.value,
        "feature limit": detector.feature_limit.value,
        "changed training photos": caught,
        "one half against the other": {
            "share marked": marked / total,
            "pairs marked, by place": sorted(pairs),
        },
    }


def memoriser(photos: np.ndarray, features: np.ndarray) -> dict[str, Any]:
    """500 shifted, half of them mirrored, training photos; and the same with photos of the other half."""
    half, other = np.array_split(np.random.default_rng(1).permutation(len(photos)), 2)
    detector = CopyDetector(photos[half], features=features[half])
    found = {}
    for name, places in (("replays training photos", half), ("draws other photos", other)):
        rng = np.random.default_rng(2)
        drawn = photos[rng.choice(places, 500)]
        drawn[::2] = drawn[::2, :, ::-1]
        report = detector.check(_shift(drawn, rng, reach=2))
        found[name] = {"flagged of 500": int(report.flagged.sum()), "comparison": report.comparison}
    return found


def _each(change: Callable[[Image.Image], Image.Image]) -> Callable[..., np.ndarray]:
    return lambda photos, _: np.stack([np.asarray(change(Image.fromarray(p))) for p in photos])


def _shift(photos: np.ndarray, rng: np.random.Generator, *, reach: int) -> np.ndarray:
    side = photos.shape[1]
    padded = np.pad(photos, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    corners = rng.choice([0, 2 * reach], (len(photos), 2))
    return np.stack([p[y : y + side, x : x + side] for p, (y, x) in zip(padded, corners)])


def _recolour(photos: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    gains = rng.uniform(0.9, 1.1, (len(photos), 1, 1, 3))
    offsets = rng.choice([-12.8, 12.8], (len(photos), 1, 1, 1))
    return np.clip(photos * gains + offsets, 0, 255).astype(np.uint8)


def _jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer)


def _zoom(by: float) -> Callable[..., np.ndarray]:
    def zoom(image: Image.Image) -> Image.Image:
        side, edge = image.width, image.width * (1 - 1 / by) / 2
        return image.resize(
            (side, side), Image.Resampling.BICUBIC, box=(edge, edge, side - edge, side - edge)
        )

    return _each(zoom)


def _blend(share: float) -> Callable[..., np.ndarray]:
    def blend(photos: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        mixed = share * photos + (1 - share) * np.roll(photos, 1 + int(rng.integers(40)), axis=0)
        return mixed.round().astype(np.uint8)

    return blend


def _all_at_once(photos: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    changed = _recolour(_shift(photos[:, :, ::-1], rng, reach=2), rng)
    return CHANGES["blur, radius 1 px"](CHANGES["JPEG, quality 40"](changed, rng), rng)


CHANGES: dict[str, Callable[..., np.ndarray]] = {
    "none": lambda photos, _: photos,
    "shift by 3 px both ways": lambda photos, rng: _shift(photos, rng, reach=3),
    "shift by 6 px both ways": lambda photos, rng: _shift(photos, rng, reach=6),
    "shift by 8 px both ways": lambda photos, rng: _shift(photos, rng, reach=8),
    "mirrored": lambda photos, _: photos[:, :, ::-1],
    "colour and brightness by 10%": _recolour,
    "blur, radius 1 px": _each(lambda image: image.filter(ImageFilter.GaussianBlur(1))),
    "blur, radius 3 px": _each(lambda image: image.filter(ImageFilter.GaussianBlur(3))),
    "JPEG, quality 40": _each(_jpeg),
    "noise, s.d. 12 of 255": lambda photos, rng: np.clip(
        photos + rng.normal(0, 12, photos.shape), 0, 255
    ).astype(np.uint8),
    "zoom 1.1": _zoom(1.1),
    "zoom 1.25": _zoom(1.25),
    "zoom 1.5": _zoom(1.5),
    "turned by 5 degrees": _each(lambda image: image.rotate(5, Image.Resampling.BICUBIC)),
    "mirrored, shifted 2 px, recoloured, JPEG, blurred": _all_at_once,
    "blend of two, 85 : 15": _blend(0.85),
    "blend of two, 70 : 30": _blend(0.7),
    "blend of two, 50 : 50": _blend(0.5),
}


# --- time ---------------------------------------------------------------------------------------------------


def times(photos: dict[str, np.ndarray]) -> dict[str, Any]:
    """Wall and processor seconds on two threads; the load says how much else was running."""
    real = photos["bonsai"]
    generated = np.concatenate([photos[name] for name in CATEGORIES])[:500]
    reference = RealReference(real)
    jobs: dict[str, Callable[[], Any]] = {
        "scores, 500 against 128": lambda: evaluate(generated, real),
        "copies, 500 against 128": lambda: CopyDetector(real).check(generated),
        "while training, 256 against 128": lambda: reference.score(reference.embed(generated[:256])),
        "KID from features, 500 against 128": _kid_alone(generated[:500], real),
    }
    found: dict[str, Any] = {"threads": THREADS, "load before": os.getloadavg()[0]}
    for name, job in jobs.items():
        wall, processor = time.perf_counter(), time.process_time()
        job()
        found[name] = {
            "wall sec": round(time.perf_counter() - wall, 2),
            "processor sec": round(time.process_time() - processor, 2),
        }
    return found


def _kid_alone(generated: np.ndarray, real: np.ndarray) -> Callable[[], Any]:
    a, b = embed(generated), embed(real)
    return lambda: (metrics.kid(a, b), metrics.kid_full(a, b))


def inception(photos: np.ndarray) -> str:
    try:
        embed(photos[:1], network="inception")
    except ConfigError as error:
        return str(error)
    return "available"


if __name__ == "__main__":
    main()
