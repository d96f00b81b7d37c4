"""How good after how many minutes: our recipes and the rivals, one after the other on the same machine.

    python benchmarks/time_to_quality.py --data caltech101:bonsai --archive caltech-101.zip \
        --contenders projected dcgan gan_ada --at 60 300 600 --seeds 0 1 2 --keras KERAS_ENV/bin/python

Every contender is a program of its own (`rivals/_protocol.py`): it gets the same pictures and leaves 500 new
ones after so many seconds of training. They are scored here, with one measure for all: KID x1000 on
EfficientNet-Lite2 features of 500 new pictures against all photographs, recall and coverage at equal counts
(k = 5), and how many look like copies. With `--holdout 0.1` a tenth of the photographs is kept from training
and everything is scored against it as well.

Results are added to results/time_to_quality-DATA.json, where those of the same contender, seed and moments
are replaced, so that a comparison may be made in parts. `--plot` draws what is there, and `--figure SECONDS`
sets the pictures of that moment side by side, if `--keep` kept them; `--grid SECONDS` is of the first 64 by
`projected` alone. `--init RUN` lets our recipes start from the networks of that run, and names them so.
Ctrl-Z, sent to a contender's process, pauses it between two steps, and the pause is not counted.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _result
import numpy as np
from PIL import Image

from bonsaigan.data.sources import slug
from bonsaigan.evaluation import scores
from bonsaigan.evaluation.copies import CopyDetector
from bonsaigan.evaluation.embedding import embed
from bonsaigan.plots import make_grid
from bonsaigan.training import session

if TYPE_CHECKING:
    from bonsaigan.evaluation.embedding import Features, Pictures

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
FIGURES = DOCS / "benchmarks"
OURS = ("projected", "r3gan", "dcgan", "article")
RIVALS = {
    "keras": {"article-keras": "article_keras.py", "gan_ada": "rivals/gan_ada_keras.py"},
    "lightweight": {"lightweight-gan": "rivals/lightweight_gan.py"},
}
"""Environment → contender → program."""
SAMPLES = 500
GRID, GRID_COLUMNS = 20, 4
LARGE_GRID, LARGE_GRID_COLUMNS = 64, 8


def main() -> None:
    """Train, draw and score each contender with each seed."""
    parser = arguments()
    asked = parser.parse_args()
    if (asked.grid or asked.figure) and asked.keep is None:
        parser.error("--grid and --figure need --keep FOLDER")
    name = slug(asked.data.removeprefix("caltech101:") if ":" in asked.data else Path(asked.data).stem)
    if asked.size != "64":
        name += f"-{asked.size}px"
    if asked.holdout:
        name += "-holdout"
    path = _result.RESULTS / f"time_to_quality-{name}.json"
    known = json.loads(path.read_text()) if path.exists() else {"rows": []}
    rows = known["rows"]
    if asked.contenders:
        judge = Judge(asked.data, asked.archive, size=asked.size, holdout=asked.holdout)
        if rows and known["held_out"] != len(judge.held):
            raise SystemExit(f"{path} is of {known['held_out']} held-out pictures: move it away first")
        for seed in asked.seeds:
            for contender in asked.contenders:
                found = contend(contender, judge, seed=seed, asked=asked, name=name)
                same = {(row["contender"], row["seed"], row["at_sec"]) for row in found}
                rows = [r for r in rows if (r["contender"], r["seed"], r["at_sec"]) not in same] + found
                about = {"data": asked.data, "pictures": len(judge.real), "held_out": len(judge.held)}
                _result.write(path.stem, {**about, "medians": medians(rows), "rows": rows}, show=False)
    print(table(rows))
    if asked.plot:
        plot(rows, FIGURES / f"time-to-quality-{name}.svg")
    if asked.grid:
        kept = kept_as(name, called("projected", asked.init), asked.seeds[0])
        pictures = np.load(asked.keep / kept / f"at-{asked.grid}.npy")[:LARGE_GRID]
        grid = Image.fromarray(make_grid(pictures, columns=LARGE_GRID_COLUMNS))
        grid.save(DOCS / f"{name}-{asked.grid / 60:g}min.webp", quality=85, method=6)
    if asked.figure:
        side_by_side(rows, asked.keep, name, at=asked.figure, path=FIGURES / f"{name}-{asked.figure}s.webp")


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*OURS, *(name for programs in RIVALS.values() for name in programs)]
    parser.add_argument("--data", default="caltech101:bonsai", help="DATA as for `bonsaigan train`")
    parser.add_argument("--archive", help="a copy of the Caltech-101 archive")
    parser.add_argument("--contenders", nargs="*", choices=names, default=[])
    parser.add_argument("--at", type=int, nargs="+", default=[60, 120, 300, 600], help="training seconds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--size", default="64", help="picture size, as for `bonsaigan train`")
    parser.add_argument("--holdout", type=float, default=0.0)
    parser.add_argument("--init", type=Path, metavar="RUN", help="our recipes start from that run's networks")
    for environment in RIVALS:
        parser.add_argument(f"--{environment}", help="the Python of that environment, see rivals/README.md")
    parser.add_argument("--keep", type=Path, help="keep pictures, and our generators, in this folder")
    parser.add_argument("--plot", action="store_true", help="draw KID against minutes")
    parser.add_argument("--grid", type=int, metavar="SECONDS", help="a grid of what `projected` drew then")
    parser.add_argument("--figure", type=int, metavar="SECONDS", help="set kept pictures side by side")
    return parser


def contend(
    contender: str, judge: Judge, *, seed: int, asked: argparse.Namespace, name: str
) -> list[dict[str, Any]]:
    """Run one contender with one seed and score what it leaves."""
    command = program(contender, asked)
    contender = called(contender, asked.init)
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "pictures.npy"
        out = (asked.keep or Path(temporary)) / kept_as(name, contender, seed)
        np.save(data, judge.real)
        command += ["--data", str(data), "--out", str(out), "--seed", str(seed)]
        command += ["--samples", str(SAMPLES), "--at", *map(str, asked.at)]
        print(f"{contender}, seed {seed}: until {asked.at[-1]} s", flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        steps = json.loads((out / "steps.json").read_text())
        rows = []
        for drawn in steps["drawn"]:
            own, at = drawn["by"] == steps["drawn"][0]["by"], int(re.findall(r"\d+", drawn["file"])[0])
            shown = contender if own else f"{contender} ({drawn['by']})"
            pictures = np.load(out / drawn["file"])
            about = {"contender": shown, "seed": seed, "at_sec": at, "steps": drawn["step"]}
            speed = {"train_sec": drawn["train_sec"], "median_step_sec": steps["median_step_sec"]}
            made = {"machine": _result.machine()["processor"], "commit": _result.commit()}
            rows.append({**about, **speed, **judge.score(pictures), **made})
            print({k: v for k, v in rows[-1].items() if k not in made}, flush=True)
    return rows


def program(contender: str, asked: argparse.Namespace) -> list[str]:
    """The command that starts a contender.

    Raises:
        SystemExit: its environment is not given.
    """
    if contender in OURS:
        init = ["--init", str(asked.init)] if asked.init is not None else []
        return [sys.executable, str(HERE / "ours.py"), "--recipe", contender, *init]
    for environment, programs in RIVALS.items():
        if contender in programs:
            python = getattr(asked, environment)
            if python is None:
                raise SystemExit(f"{contender} needs --{environment} PYTHON: see benchmarks/rivals/README.md")
            return [python, str(HERE / programs[contender])]
    raise AssertionError(contender)


class Judge:
    """The photographs, and how new pictures are measured against them."""

    def __init__(self, data: str, archive: str | None, *, size: str, holdout: float):
        plan = session.plan(data, session.Wishes(archive=archive, steps=1, size=size, holdout=holdout))
        self.real = np.asarray(plan.training_pictures)
        self.held = np.asarray(plan.prepared.pictures[plan.prepared.holdout_index])
        self.features = embed(self.real)
        self.held_features = embed(self.held) if len(self.held) else None
        self.detector = CopyDetector(self.real, holdout=self.held, features=self.features)

    def score(self, pictures: Pictures) -> dict[str, Any]:
        """The measures of new pictures, uint8 (N, H, W, 3), rounded."""
        features = embed(pictures)
        copies = self.detector.check(pictures, features=features)
        found: dict[str, Any] = {
            **self._against(features, self.features),
            "copies": int(copies.flagged.sum()),
            "pixel_distance": round(float(np.median(copies.pixels.distance)), 4),
            "feature_distance": round(float(np.median(copies.features.distance)), 3),
        }
        if self.held_features is not None:
            found["held_out"] = self._against(features, self.held_features)
            baseline = self.detector.baselines[-1]
            found["held_out_pixel_distance"] = round(baseline.pixel_distance, 4)
            found["held_out_feature_distance"] = round(baseline.feature_distance, 3)
        return found

    @staticmethod
    def _against(features: Features, real: Features) -> dict[str, float]:
        numbers = scores.compare(features, real)
        return {
            "kid_x1000": round(1000 * numbers.kid, 2),
            "recall": round(numbers.recall, 3),
            "coverage": round(numbers.coverage, 3),
            "precision": round(numbers.precision, 3),
            "diversity": round(numbers.diversity, 3),
        }


def medians(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The median over seeds for every contender and moment, with the lowest and highest KID."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["contender"], row["at_sec"]].append(row)
    found = []
    for (contender, at), group in sorted(groups.items(), key=lambda item: (item[0][1], item[0][0])):
        middle = {
            key: statistics.median(row[key] for row in group)
            for key in ("kid_x1000", "recall", "coverage", "copies", "steps")
        }
        kids = [row["kid_x1000"] for row in group]
        spread = {"kid_from": min(kids), "kid_to": max(kids), "seeds": len(group)}
        found.append({"contender": contender, "at_sec": at, **middle, **spread})
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The medians for people."""
    lines = [
        f"{'contender':<24} minutes   steps     KID x1000 (range)     recall  coverage  copies/500  seeds"
    ]
    for m in medians(rows):
        kid = f"{m['kid_x1000']:.1f} ({m['kid_from']:.1f} to {m['kid_to']:.1f})"
        lines.append(
            f"{m['contender']:<23} {m['at_sec'] / 60:8.1f} {m['steps']:7.0f}  {kid:>22}  {m['recall']:7.2f} "
            f"{m['coverage']:9.2f} {m['copies']:11.0f} {m['seeds']:6d}"
        )
    return "\n".join(lines)


def called(contender: str, init: Path | None) -> str:
    """A contender's name, with the run it starts from."""
    return f"{contender} from {init.name}" if init is not None and contender in OURS else contender


def kept_as(name: str, contender: str, seed: int) -> str:
    """Folder of a contender's pictures."""
    return f"{name}-{contender.replace(' ', '-')}-{seed}"


def side_by_side(rows: list[dict[str, Any]], keep: Path, name: str, *, at: int, path: Path) -> None:
    """The first pictures of each contender at one moment, the best first, nothing picked out."""
    from matplotlib import pyplot

    shown = [
        row
        for row in rows
        if row["at_sec"] == at and (keep / kept_as(name, row["contender"], row["seed"])).is_dir()
    ]
    first = {row["contender"]: row for row in sorted(shown, key=lambda row: -row["seed"])}
    best_first = sorted(first.values(), key=lambda row: row["kid_x1000"])
    figure, panes = pyplot.subplots(
        1, len(best_first), figsize=(2.7 * len(best_first), 3.1), layout="constrained", squeeze=False
    )
    for pane, row in zip(panes[0], best_first):
        pictures = np.load(keep / kept_as(name, row["contender"], row["seed"]) / f"at-{at}.npy")[:GRID]
        pane.imshow(make_grid(pictures, columns=GRID_COLUMNS))
        pane.set_title(f"{row['contender']}\nKID ×1000: {row['kid_x1000']:.0f}", fontsize=10)
        pane.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, pil_kwargs={"quality": 88})
    pyplot.close(figure)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """KID against minutes, both logarithmic: a line of medians for each contender, a dot for each seed."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    shown = [row["contender"] for row in rows if "(" not in row["contender"]]  # by what a method itself shows
    for contender in dict.fromkeys(shown):
        middle = [m for m in medians(rows) if m["contender"] == contender]
        minutes = [m["at_sec"] / 60 for m in middle]
        (line,) = axes.plot(minutes, [m["kid_x1000"] for m in middle], label=contender, marker="o", ms=4)
        own = [row for row in rows if row["contender"] == contender]
        axes.scatter(
            [row["at_sec"] / 60 for row in own],
            [row["kid_x1000"] for row in own],
            s=8,
            alpha=0.5,
            color=line.get_color(),
        )
    axes.set(xscale="log", yscale="log", xlabel="minutes of training", ylabel="KID ×1000, lower is better")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
