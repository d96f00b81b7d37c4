"""The article's own run: its recipe on the 128 bonsai photos, drawn and scored at 500 to 3,000 steps.

python benchmarks/article.py --archive caltech-101.zip --run runs/article --precision bf16

Takes hours, in float32 twice as many. Stopped and started again it goes on where it was. Writes
results/article.json and docs/tutorial/figures/article-STEP.png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import _result
import numpy as np
from rich.console import Console

import bonsaigan
from bonsaigan import runs
from bonsaigan.config import Budget
from bonsaigan.evaluation.copies import CopyDetector
from bonsaigan.evaluation.scores import evaluate
from bonsaigan.plots import save_grid
from bonsaigan.training import session

FIGURES = Path(__file__).parents[1] / "docs" / "tutorial" / "figures"
MILESTONES = (500, 1000, 2000, 3000)
GENERATED, GRID, COLUMNS = 500, 24, 8


def main() -> None:
    """Train to each milestone in turn; draw and score the generator as it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive")
    parser.add_argument("--run", type=Path, default=Path("runs/article"))
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    asked = parser.parse_args()
    asked.run = runs.named(str(asked.run))
    notes = asked.run.with_suffix(".json")
    found: list[dict[str, object]] = json.loads(notes.read_text()) if notes.exists() else []
    wishes = session.Wishes(
        archive=asked.archive, recipe="article", steps=MILESTONES[0], precision=asked.precision
    )
    plan = session.plan("caltech101:bonsai", wishes)
    console = Console(soft_wrap=True)
    for steps in MILESTONES[len(found) :]:
        if asked.run.exists():
            session.resume(asked.run, budget=Budget(steps=steps), console=console)
        else:
            session.start(plan, run=str(asked.run), console=console)
        generator = bonsaigan.load(asked.run, latest=True)
        if generator.spec.step < steps:
            raise SystemExit(f"stopped at step {generator.spec.step}; the same command goes on from there")
        found.append({"step": steps, **_look(generator, np.asarray(plan.training_pictures), steps)})
        notes.write_text(json.dumps(found))
    config = runs.read_config(asked.run)
    _result.write("article", {"config": _result.settings(config), "moments": found})


def _look(generator: bonsaigan.Generator, real: np.ndarray, steps: int) -> dict[str, object]:
    pictures = generator.images(generator.latents(range(GENERATED)))
    save_grid(FIGURES / f"article-{steps}.png", pictures[:GRID], columns=COLUMNS)
    scores = evaluate(pictures, real).to_dict()
    return {"scores": scores, "copies": CopyDetector(real).check(pictures).verdict}


if __name__ == "__main__":
    main()
