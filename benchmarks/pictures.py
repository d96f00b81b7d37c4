"""The README's grids: train on categories of Caltech-101 for some minutes each, draw seeds 0 to 63, score.

python benchmarks/pictures.py --archive caltech-101.zip --minutes 10 bonsai sunflower butterfly
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path

import _result
import numpy as np
from rich.console import Console

import bonsaigan
from bonsaigan.evaluation.copies import CopyDetector
from bonsaigan.evaluation.scores import evaluate
from bonsaigan.plots import save_grid
from bonsaigan.training import session

GRIDS = Path(__file__).parents[1] / "docs"
GENERATED, GRID = 500, 64


def main() -> None:
    """Train, draw and score each category in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("categories", nargs="+")
    parser.add_argument("--archive")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    for category in asked.categories:
        wishes = session.Wishes(archive=asked.archive, minutes=asked.minutes, seed=asked.seed)
        plan = session.plan(f"caltech101:{category}", wishes)
        name = f"{category}-{asked.minutes:g}min"
        with tempfile.TemporaryDirectory() as folder:
            ends: list[session.Trained] = []
            run = session.start(
                plan, run=f"{folder}/{name}", console=Console(soft_wrap=True), conclude=ends.append
            )
            if ends[0].stopped:
                raise SystemExit(f"{category}: stopped, so nothing is written")
            generator = bonsaigan.load(run)
        pictures = generator.images(generator.latents(range(GENERATED)))
        save_grid(GRIDS / f"{name}.png", pictures[:GRID], columns=8)
        real = np.asarray(plan.training_pictures)
        copies = CopyDetector(real).check(pictures)
        _result.write(
            f"pictures-{name}",
            {
                "config": _result.settings(plan.config),
                "best_step": generator.spec.step,
                "scores": evaluate(pictures, real).to_dict(),
                "copies": copies.verdict,
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            },
        )


if __name__ == "__main__":
    main()
