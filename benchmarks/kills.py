"""Runs killed at random moments, again and again: each ends bit-equal to the run that was left alone.

    python benchmarks/kills.py [--kills 200] [--recipes projected dcgan r3gan]

A warm process forks the runs, so that a kill costs a second and not the imports. Kills are spread evenly over
the time that a run needs, and each run is killed ten times before it may end. What it was doing is noted.
Writes benchmarks/results/kills.json.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from _result import write

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bonsaigan.training import checkpoint  # noqa: E402
from tests.faulty import STAGE_BYTES, Warm, said  # noqa: E402
from tests.tiny import make_photos  # noqa: E402

KILLS_PER_RUN, STEPS = 10, 40
KILL_SHARE = 0.3
"""Of a whole run's seconds, at most: a run that was killed before has less left to do."""
SETTINGS = ["--size", "32", "--steps", str(STEPS), "--batch", "4", "--width", "64", "--precision", "fp32"]


def main() -> None:
    """Kill and resume, recipe by recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--recipes", nargs="+", default=["projected", "dcgan", "r3gan"])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance, warm = random.Random(given.seed), Warm()
    stages: Counter[str] = Counter()
    started, kills, runs, unequal, redone = time.monotonic(), 0, 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        places = {recipe: _whole(warm, Path(folder), recipe) for recipe in given.recipes}
        while kills < given.kills:
            recipe = given.recipes[runs % len(given.recipes)]
            whole, whole_sec = places[recipe]
            place = Path(folder) / f"{runs}"
            make_photos(place.with_name(f"{runs}-photos"))
            place.mkdir()
            (place.with_name(f"{runs}-photos")).rename(place / "photos")
            for _ in range(min(KILLS_PER_RUN, given.kills - kills)):
                stage = _kill(warm, place, recipe, chance.uniform(0, KILL_SHARE * whole_sec))
                if stage is None:
                    break
                stages[stage] += 1
                kills += 1
            status, lines = warm.run(*_command(place, recipe), cwd=place)
            if status != 0:
                raise SystemExit("\n".join(lines))
            redone += [int(line.split()[-1]) for line in lines if line.startswith("going on from step")]
            runs += 1
            unequal += not _equal(whole, _weights(place))
            print(f"{kills} kills, {runs} runs, {unequal} ended otherwise", file=sys.stderr)
    warm.stop()
    write(
        "kills",
        {
            "kills": kills,
            "runs": runs,
            "ended_otherwise": unequal,
            "killed_while": dict(stages.most_common()),
            "last_went_on_from_step": dict(sorted(Counter(redone).items())),
            "steps": STEPS,
            "recipes": given.recipes,
            "seed": given.seed,
            "sec": round(time.monotonic() - started, 1),
        },
    )
    if unequal:
        raise SystemExit(1)


def _whole(warm: Warm, folder: Path, recipe: str) -> tuple[dict[str, torch.Tensor], float]:
    """Weights of the run that is left alone, and its seconds."""
    place = folder / f"whole-{recipe}"
    place.mkdir()
    make_photos(place / "photos")
    started = time.monotonic()
    status, lines = warm.run(*_command(place, recipe), cwd=place)
    if status != 0:
        raise SystemExit("\n".join(lines))
    return _weights(place), time.monotonic() - started


def _kill(warm: Warm, place: Path, recipe: str, after_sec: float) -> str | None:
    """Start or resume, kill after a while; what it was doing, or None when it had ended."""
    marks = place / "stage"
    marks.write_bytes(b"start".ljust(STAGE_BYTES))
    child = warm.start(*_command(place, recipe), cwd=place, stage_file=str(marks))
    time.sleep(after_sec)
    stage = marks.read_bytes().decode().strip()
    os.kill(child, signal.SIGKILL)
    status = warm.wait(child)
    if status == 0:
        return None
    if status != -signal.SIGKILL:
        raise SystemExit("\n".join(said(place)))
    return stage


def _command(place: Path, recipe: str) -> list[str]:
    if (place / "runs/r/config.json").exists():
        return ["resume", "r"]
    return ["train", "photos", "--recipe", recipe, *SETTINGS, "--run", "r"]


def _weights(place: Path) -> dict[str, torch.Tensor]:
    tensors, _, warning = checkpoint.load(place / "runs/r/checkpoint")
    if warning:
        raise SystemExit(warning)
    return tensors


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


if __name__ == "__main__":
    main()
