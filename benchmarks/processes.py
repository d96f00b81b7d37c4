"""What sharing a training among processes costs, and whether it learns as well.

    python benchmarks/processes.py --data caltech101:bonsai --archive caltech-101.zip [--steps 1000]

First the cost: steps of each recipe by one process and by two of one thread each, at the same batch, and how
much of a step the exchange of gradients takes. Then, with `--steps`, a whole training by one process and by
two, and the score of each: recipes with batch statistics learn from other numbers, but should learn as well.
Writes results/processes.json, where what is measured again is replaced.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import _result

CHILD = """
import json, sys, time
import bonsaigan  # before torch: it settles how threads wait
import numpy as np
import torch
from bonsaigan import processes
from bonsaigan.training import session
from bonsaigan.training.trainer import Trainer
processes.join()
spent = [0.0]
average = processes.average_gradients
def timed(parameters):
    started = time.perf_counter()
    average(parameters)
    spent[0] += time.perf_counter() - started
processes.average_gradients = timed
wishes = session.Wishes(recipe=sys.argv[1], steps=1, precision="fp32", archive=sys.argv[3] or None)
plan = session.plan(sys.argv[2], wishes)
trainer = Trainer(plan.config, device=torch.device("cpu"))
trainer.begin(plan.training_pictures, anew=False)
steps, exchange = [], []
for _ in range(int(sys.argv[4])):
    spent[0], started = 0.0, time.perf_counter()
    trainer.step(plan.training_pictures)
    steps.append(time.perf_counter() - started)
    exchange.append(spent[0])
if processes.is_first():
    gradients = sum(p.numel() for p in [*trainer.generator.parameters(), *trainer.judged]) * 4
    found = {"step_sec": float(np.median(steps[3:])), "exchange_sec": float(np.median(exchange[3:]))}
    print(json.dumps({**found, "gradient_bytes": gradients}))
"""
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
TIMED_STEPS = 23


def main() -> None:
    """Measure each recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="demo:bonsai")
    parser.add_argument("--archive", default="")
    parser.add_argument("--recipes", nargs="+", default=["projected", "dcgan", "r3gan"])
    parser.add_argument("--steps", type=int, default=0, help="train so long with each, and score")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked = parser.parse_args()
    asked.data, asked.archive = _result.absolute(asked.data), _result.absolute(asked.archive)
    path = _result.RESULTS / "processes.json"
    about = {"data": asked.data, "machine": _result.machine(), "commit": _result.commit()}
    found: dict[str, Any] = {"cost": {}, "scores": []}
    found |= json.loads(path.read_text()) if path.exists() else {}
    for recipe in asked.recipes:
        found["cost"][recipe] = {
            **about,
            "one process, one thread": cost(recipe, asked, count=1, threads=1),
            "one process, two threads": cost(recipe, asked, count=1, threads=2),
            "two processes, one thread each": cost(recipe, asked, count=2, threads=1),
        }
        print(recipe, found["cost"][recipe], flush=True)
    for recipe in asked.recipes if asked.steps else []:
        for seed in asked.seeds:
            for count in (1, 2):
                row = {"data": asked.data, "recipe": recipe, "seed": seed, "processes": count}
                row |= {"steps": asked.steps}
                others = [other for other in found["scores"] if not row.items() <= other.items()]
                row |= about | score(recipe, asked, seed=seed, count=count)
                found["scores"] = [*others, row]
                print(row, flush=True)
    _result.write("processes", found)


def cost(recipe: str, asked: argparse.Namespace, *, count: int, threads: int) -> dict[str, float]:
    """Median seconds of a step, and of the exchange in it."""
    with tempfile.TemporaryDirectory() as folder:
        child = Path(folder) / "child.py"
        child.write_text(CHILD, encoding="utf-8")
        arguments = [str(child), recipe, asked.data, asked.archive, str(TIMED_STEPS)]
        done = _run(arguments, count=count, threads=threads, folder=folder)
    values = json.loads(done.stdout.strip().splitlines()[-1])
    return {name: round(value, 4) for name, value in values.items()}


def score(recipe: str, asked: argparse.Namespace, *, seed: int, count: int) -> dict[str, float]:
    """The scores at the end of a training."""
    with tempfile.TemporaryDirectory() as folder:
        told = ["bonsaigan", "train", asked.data, "--recipe", recipe, "--steps", str(asked.steps)]
        told += ["--seed", str(seed), "--run", "shared", "--precision", "fp32"]
        told += ["--archive", asked.archive] if asked.archive else []
        _run(["-m", *(["--"] if count > 1 else []), *told], count=count, threads=2 // count, folder=folder)
        metrics = json.loads((Path(folder) / "runs/shared/metrics.json").read_text(encoding="utf-8"))
    numbers = metrics["scores"]["numbers"]
    return {name: round(numbers[name], 4) for name in ("kid", "recall", "coverage")}


def _run(arguments: list[str], *, count: int, threads: int, folder: str) -> subprocess.CompletedProcess[str]:
    launcher = [*TORCHRUN, str(count)] if count > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, *launcher, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done


if __name__ == "__main__":
    main()
