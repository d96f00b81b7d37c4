"""Films and pictures for `docs/gallery`, from one run.

python benchmarks/gallery.py RUN
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from bonsaigan import runs
from bonsaigan.explore.film import save_film
from bonsaigan.explore.timelapse import timelapse
from bonsaigan.generator import Generator, load
from bonsaigan.plots import make_grid

PLACE = Path(__file__).parents[1] / "docs" / "gallery"
FPS, LAPSE_FPS = 15.0, 8.0
MOVED_SEED, AMOUNTS, ROWS = 7, (-3, -2, -1, 0, 1, 2, 3), 6
MIXED = (1, 4, 7, 12, 13)


def main() -> None:
    """Write them all anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    folder = runs.find_run(parser.parse_args().run)
    generator = load(folder)
    PLACE.mkdir(parents=True, exist_ok=True)
    film = generator.walk(range(3 * 2 * 3), frames=90, columns=3, rows=2)
    film.save(PLACE / "walk.webp", fps=FPS)
    lapse = [Image.fromarray(frame).reduce(2) for frame in timelapse(folder, seconds=8, fps=LAPSE_FPS)]
    save_film(PLACE / "timelapse.webp", np.stack([np.asarray(f) for f in lapse]), fps=LAPSE_FPS)
    save(PLACE / "directions.webp", directions(generator), columns=len(AMOUNTS))
    save(PLACE / "mix.webp", mixtures(generator), columns=len(MIXED) + 1)
    for path in sorted(PLACE.iterdir()):
        print(f"{path.stat().st_size / 1000:8.0f} kB  {path}")


def directions(generator: Generator) -> np.ndarray:
    """A row for each of the strongest directions."""
    found = generator.directions(8)
    print(*found.names[:ROWS], sep="\n")
    z = generator.latents([MOVED_SEED])
    moved = [generator.images(found.move(z, {i: float(a)}))[0] for i in range(ROWS) for a in AMOUNTS]
    return np.stack(moved)


def mixtures(generator: Generator) -> np.ndarray:
    """Shapes down the left side, styles along the top, and what comes of them between."""
    plain = list(generator.images(generator.latents(MIXED)))
    rows = [np.full_like(plain[0], 255), *plain]
    for shape, picture in zip(MIXED, plain):
        rows += [picture, *(generator.mix(shape, style) for style in MIXED)]
    return np.stack(rows)


def save(path: Path, pictures: np.ndarray, *, columns: int) -> None:
    """A grid as WebP, twice as large as it was drawn."""
    grid = Image.fromarray(make_grid(pictures, columns=columns))
    grid.resize((grid.width * 2, grid.height * 2), Image.Resampling.BICUBIC).save(path, quality=85)


if __name__ == "__main__":
    main()
