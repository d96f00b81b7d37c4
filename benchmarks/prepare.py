"""How fast, and in how much memory, 10,000 JPEGs of 500x375 are prepared; and how fast found again.

    python benchmarks/prepare.py [--count 10000]

Writes benchmarks/results/prepare.json.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from _result import write
from PIL import Image

from bonsaigan.config import DataConfig, Size
from bonsaigan.data.doctor import doctor
from bonsaigan.data.prepare import prepare
from bonsaigan.data.sources import open_source

WIDTH_PX, HEIGHT_PX = 500, 375


def main() -> None:
    """Make the pictures, prepare them, find them again, and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory() as work:
        folder, cache = Path(work, "pictures"), Path(work, "cache")
        bytes_in_all = make_pictures(folder, count)
        config = DataConfig(source=str(folder), size=Size(width_px=64, height_px=64))
        source = open_source(config.source)
        before_mib = peak_mib()
        first_sec, first_cpu_sec = timed(lambda: prepare(source, config, cache_dir=cache))
        first_mib = peak_mib()
        second_sec, second_cpu_sec = timed(lambda: prepare(source, config, cache_dir=cache))
        doctor_sec, doctor_cpu_sec = timed(lambda: doctor(source, config))
    write(
        "prepare",
        {
            "what": f"{count:,} JPEGs of {WIDTH_PX}x{HEIGHT_PX} to 64x64",
            "pictures_mb": round(bytes_in_all / 1e6),
            "first_sec": round(first_sec, 2),
            "first_cpu_sec": round(first_cpu_sec, 2),
            "first_pictures_per_sec": round(count / first_sec),
            "second_sec": round(second_sec, 2),
            "second_cpu_sec": round(second_cpu_sec, 2),
            "doctor_sec": round(doctor_sec, 2),
            "doctor_cpu_sec": round(doctor_cpu_sec, 2),
            "peak_rss_mib": round(first_mib),
            "rss_before_mib": round(before_mib),
        },
    )


def make_pictures(folder: Path, count: int) -> int:
    """Fill `folder` with gradients under smooth noise, no two alike; returns their bytes in all."""
    folder.mkdir()
    with ThreadPoolExecutor() as pool:
        return sum(pool.map(lambda seed: _make_picture(folder, seed), range(count)))


def _make_picture(folder: Path, seed: int) -> int:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    fine = Image.fromarray(rng.integers(0, 256, (HEIGHT_PX // 3, WIDTH_PX // 3, 3), dtype=np.uint8))
    size = (WIDTH_PX, HEIGHT_PX)
    picture = Image.blend(coarse.resize(size, Image.Resampling.BICUBIC), fine.resize(size), 0.2)
    path = folder / f"{seed:05d}.jpg"
    picture.save(path, quality=85)
    return path.stat().st_size


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that `work()` takes: of the clock, and of all cores together (the fairer on a busy machine)."""
    start, start_cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - start_cpu


def peak_mib() -> float:
    """The most memory this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


if __name__ == "__main__":
    main()
