"""What every rival does alike: its command line, the seconds it counts, the pictures it leaves.

A rival gives `run` a `Method` that can take a training step and draw pictures. `run` adds up the seconds of
the steps, writes `at-SECONDS.npy` after the first step that reaches each of the asked seconds, and
`steps.json` beside them. Drawing and reporting are not counted; a first step that compiles is, since a user
waits for it. Needs numpy alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

LINE_EVERY_SEC = 20.0
COUNTED = (
    "train_sec adds up the training steps, the first with its compilation; imports, setting up, drawing "
    "pictures and reporting are apart; train_cpu_sec is what all cores together spent on them"
)


class Method(Protocol):
    """A way to train a generator, as `run` uses it."""

    def step(self) -> None:
        """Train for one step, the drawing of its batch included."""
        ...

    def draw(self) -> dict[str, np.ndarray]:
        """The asked number of pictures, uint8 (samples, H, W, 3), of the same latents each time.

        By the name of what drew them, first what the method itself would show.
        """
        ...

    def progress(self) -> dict[str, float]:
        """Numbers that tell how training goes, for a line now and then."""
        ...


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line asked for."""

    data: Path
    """uint8 array (N, H, W, 3) in a .npy file."""
    out: Path
    """Folder for the results."""
    at: tuple[int, ...]
    """Training seconds at which pictures are wanted, ascending."""
    steps: int | None
    """Stop after this many steps at the latest, leaving `end.npy`."""
    samples: int
    """Pictures to draw each time."""
    seed: int
    """Seed of weights, batches and latents."""
    began_sec: float = field(default_factory=time.perf_counter)
    """When the command line was read, on `time.perf_counter`'s clock."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What `steps.json` says of a method."""

    method: str
    import_sec: float
    parameters: dict[str, int]
    """Network to number of trained parameters."""
    versions: dict[str, str]
    settings: dict[str, Any]


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with the arguments all rivals share."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--data", type=Path, required=True, help="uint8 array (N, H, W, 3) in a .npy file")
    made.add_argument("--out", type=Path, required=True, help="folder for the results")
    made.add_argument(
        "--at", type=_positive, nargs="*", default=[], metavar="SECONDS", help="training seconds to draw at"
    )
    made.add_argument("--steps", type=_positive, help="stop after this many steps at the latest")
    made.add_argument("--samples", type=_positive, default=500, help="pictures to draw each time")
    made.add_argument("--seed", type=int, default=0)
    return made


def asked(values: argparse.Namespace) -> Asked:
    """The shared arguments of a command line.

    Raises:
        SystemExit: neither `--at` nor `--steps` says when to stop.
    """
    if not values.at and values.steps is None:
        raise SystemExit("--at SECONDS or --steps STEPS must say when to stop")
    return Asked(
        data=values.data,
        out=values.out,
        at=tuple(sorted(set(values.at))),
        steps=values.steps,
        samples=values.samples,
        seed=values.seed,
    )


def missing(error: ImportError) -> str:
    """The line for a framework that is not there."""
    return f"{Path(sys.argv[0]).name}: {error}; benchmarks/rivals/README.md says how to make its environment"


def load_pictures(path: Path) -> np.ndarray:
    """The pictures to learn from, uint8 (N, H, W, 3).

    Raises:
        SystemExit: the file is missing, no array, or not of that shape and type.
    """
    try:
        pictures = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SystemExit(f"--data {path}: {error}") from error
    shape = getattr(pictures, "shape", ())
    if getattr(pictures, "dtype", None) != np.uint8 or len(shape) != 4 or shape[-1] != 3 or 0 in shape:
        raise SystemExit(f"--data {path}: needs a uint8 array (N, H, W, 3)")
    return pictures


def batches(count: int, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless batches of indices below `count`: one shuffled pass after another, none left out.

    A batch may reach over the end of a pass, so that a set smaller than the batch works too.
    """
    waiting = np.empty(0, dtype=np.int64)
    while True:
        while len(waiting) < batch:
            waiting = np.concatenate((waiting, rng.permutation(count)))
        yield waiting[:batch]
        waiting = waiting[batch:]


def to_uint8(pictures: np.ndarray) -> np.ndarray:
    """Pictures in [0, 1] as uint8; what lies outside is clipped."""
    return np.rint(np.asarray(pictures, np.float32) * 255.0).clip(0, 255).astype(np.uint8)


def due(at: Sequence[int], before_sec: float, now_sec: float) -> list[int]:
    """The moments that a step passed which began at `before_sec` of training and ended at `now_sec`."""
    return [moment for moment in at if before_sec < moment <= now_sec]


def run(
    method: Method, asked: Asked, about: About, *, clock: Callable[[], float] = time.perf_counter
) -> None:
    """Train until the last moment, or for the asked number of steps, and leave pictures and `steps.json`."""
    asked.out.mkdir(parents=True, exist_ok=True)
    record = _Record(asked=asked, about=about, setup_sec=clock() - asked.began_sec)
    line_at_sec = 0.0
    pause = _pause_on_request()
    while not record.finished():
        pause()
        before_sec, began, began_cpu = record.train_sec, clock(), time.process_time()
        method.step()
        record.count(clock() - began, time.process_time() - began_cpu)
        if record.train_sec >= line_at_sec:
            record.report(method.progress())
            line_at_sec = record.train_sec + LINE_EVERY_SEC
        moments = due(asked.at, before_sec, record.train_sec)
        if moments or record.finished():
            began = clock()
            drawn = method.draw()
            record.sampling_sec += clock() - began
            record.keep([f"at-{moment}" for moment in moments] or ["end"], drawn)
    print(
        f"{about.method}: {record.steps} steps in {record.train_sec:.1f} s of training, "
        f"median {record.median_step_sec():.3f} s a step",
        flush=True,
    )


def _pause_on_request() -> Callable[[], None]:
    """Make Ctrl-Z (SIGTSTP) stop this process between two steps, where the pause is not counted."""
    if not hasattr(signal, "SIGTSTP"):
        return lambda: None
    asked_for = threading.Event()
    signal.signal(signal.SIGTSTP, lambda *_: asked_for.set())

    def pause() -> None:
        if asked_for.is_set():
            asked_for.clear()
            os.kill(os.getpid(), signal.SIGSTOP)

    return pause


@dataclass(kw_only=True)
class _Record:
    """The account of a run, written to `steps.json` whenever pictures are."""

    asked: Asked
    about: About
    setup_sec: float
    train_sec: float = 0.0
    train_cpu_sec: float = 0.0
    sampling_sec: float = 0.0
    step_sec: list[float] = field(default_factory=list)
    progress: list[dict[str, float]] = field(default_factory=list)
    drawn: list[dict[str, Any]] = field(default_factory=list)

    @property
    def steps(self) -> int:
        return len(self.step_sec)

    def finished(self) -> bool:
        """Whether the last moment is passed, or the last step taken."""
        past_moments = bool(self.asked.at) and self.train_sec >= self.asked.at[-1]
        return past_moments or (self.asked.steps is not None and self.steps >= self.asked.steps)

    def count(self, seconds: float, cpu_seconds: float) -> None:
        """Add a step."""
        self.step_sec.append(seconds)
        self.train_sec += seconds
        self.train_cpu_sec += cpu_seconds

    def median_step_sec(self) -> float:
        """Of the steps after the first, which compiles; of the first if it is the only one."""
        return statistics.median(self.step_sec[1:] or self.step_sec)

    def report(self, values: dict[str, float]) -> None:
        """Print a line, and keep its numbers."""
        self.progress.append({"step": self.steps, "train_sec": round(self.train_sec, 3), **values})
        told = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        print(f"step {self.steps}, {self.train_sec:.1f} s: {told}", flush=True)

    def keep(self, names: list[str], drawn: dict[str, np.ndarray]) -> None:
        """Write the pictures under each of the names, those after the first as NAME-BY, and the account."""
        for place, (by, pictures) in enumerate(drawn.items()):
            wanted = (self.asked.samples, *pictures.shape[1:3], 3)
            if pictures.dtype != np.uint8 or pictures.shape != wanted:
                raise TypeError(f"the method drew {pictures.dtype} {pictures.shape}, not uint8 {wanted}")
            for name in names:
                file = f"{name}-{by}.npy" if place else f"{name}.npy"
                np.save(self.asked.out / file, pictures)
                told = {"file": file, "by": by, "step": self.steps, "train_sec": round(self.train_sec, 3)}
                self.drawn.append(told)
                print(f"step {self.steps}, {self.train_sec:.1f} s: {file}, by the {by}", flush=True)
        self.write()

    def write(self) -> None:
        """Write `steps.json`."""
        values = {
            "method": self.about.method,
            "steps": self.steps,
            "train_sec": round(self.train_sec, 3),
            "train_cpu_sec": round(self.train_cpu_sec, 3),
            "median_step_sec": self.median_step_sec(),
            "first_step_sec": self.step_sec[0],
            "import_sec": round(self.about.import_sec, 3),
            "setup_sec": round(self.setup_sec, 3),
            "sampling_sec": round(self.sampling_sec, 3),
            "counted": COUNTED,
            "parameters": self.about.parameters,
            "versions": {"python": platform.python_version(), "numpy": np.__version__, **self.about.versions},
            "settings": {**self.about.settings, "seed": self.asked.seed, "samples": self.asked.samples},
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
            "threads": os.environ.get("OMP_NUM_THREADS", "all"),
            "drawn": self.drawn,
            "progress": self.progress,
            "step_sec": self.step_sec,
        }
        (self.asked.out / "steps.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value
