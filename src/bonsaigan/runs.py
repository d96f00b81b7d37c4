"""Run folders: how they are named, found and kept to one process.

runs/bonsai-1/
  config.json  data.json  metrics.jsonl  events.*  samples/  checkpoint/  best/
  generator.safetensors + generator.json
  reals.png            some of the pictures trained on, laid out like samples/*.png
  metrics.json         scores and copies of the best moment, from `evaluate` or the end of training
  closest.png          the pairs that look most like copies
  report.html          all of it, for people
"""

from __future__ import annotations

import difflib
import os
import platform
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path

from bonsaigan.config import Fit, TrainConfig, read_json
from bonsaigan.errors import ConfigError, RunError
from bonsaigan.locks import hold

RUNS_DIR = Path("runs")
HUB_PREFIX, STARTER_PREFIX = "hf:", "starter:"
STARTERS_DIR = Path(__file__).parent / "starters"
"""Generators that come with the package, each an export in the form of `--to safetensors`."""
CONFIG_FILE, DATA_FILE, METRICS_FILE, LOCK_FILE = "config.json", "data.json", "metrics.jsonl", "lock"
WEIGHTS_FILE, GENERATOR_FILE = "generator.safetensors", "generator.json"
DATA_MAX_BYTES = 1 << 30
"""Of `data.json`, which has an entry for each file of DATA."""
CHECKPOINT_DIR, BEST_DIR, SAMPLES_DIR = "checkpoint", "best", "samples"
STATE_FILE = "state.json"
"""In the checkpoint."""
REALS_FILE, SCORES_FILE, CLOSEST_FILE, REPORT_FILE = "reals.png", "metrics.json", "closest.png", "report.html"


def find_run(run: str | Path | None = None, *, trained: bool = False) -> Path:
    """The folder of a run: by path, by its name under `runs/`, or the newest when nothing is given; of those
    that were `trained` here, if an imported generator will not do.

    `hf:OWNER/NAME` is a generator on the Hugging Face hub, fetched into its client's cache; `starter:NAME` is
    one that comes with the package.

    Raises:
        RunError: there is no such run.
    """
    if str(run).startswith(HUB_PREFIX):
        from bonsaigan import hub

        return hub.fetch(str(run).removeprefix(HUB_PREFIX))
    if str(run).startswith(STARTER_PREFIX):
        return _starter(str(run).removeprefix(STARTER_PREFIX))
    files = [] if trained else [*RUNS_DIR.glob(f"*/{GENERATOR_FILE}")]
    known = {p.parent.name: p for p in (*files, *RUNS_DIR.glob(f"*/{CONFIG_FILE}"))}
    if run is None or str(run) == "":
        if not known:
            raise RunError(f"no runs under {RUNS_DIR}/ yet; make one with: bonsaigan train DATA")
        return max(known.values(), key=lambda p: p.stat().st_mtime).parent
    for path in (Path(run), RUNS_DIR / run):
        try:
            if (path / CONFIG_FILE).is_file() or (path / GENERATOR_FILE).is_file():
                return path
        except (OSError, ValueError):  # too long for a name, or with a zero byte
            continue
    near = difflib.get_close_matches(str(run), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"runs are looked for as a path and under {RUNS_DIR}/"
    raise RunError(f"RUN {str(run)!r}: no such run; {hint}")


def is_address(run: str | Path | None) -> bool:
    """Whether it names a generator that is no folder of the user's: of the hub, or of the package."""
    return isinstance(run, str) and run.startswith((HUB_PREFIX, STARTER_PREFIX))


def output_folder(run: str | None, folder: Path) -> Path:
    """Where to write what is made of a run: its folder, or for one that is not the user's a folder here."""
    # Not the bare name: a folder of that name may hold someone's photographs.
    return Path(f"generator-{str(run).rpartition(':')[2].rpartition('/')[2]}") if is_address(run) else folder


def _starter(name: str) -> Path:
    known = sorted(path.parent.name for path in STARTERS_DIR.glob(f"*/{GENERATOR_FILE}"))
    if name not in known:
        raise RunError(f"{STARTER_PREFIX}{name}: no such starter; choose one of {', '.join(known)}")
    return STARTERS_DIR / name


def named(name: str) -> Path:
    """The folder of a run of that name: one under `runs/`, or a path if it looks like one.

    Raises:
        RunError: it is not a name that a run can have.
    """
    if name.strip() in ("", ".", ".."):
        raise RunError(f"--run {name!r}: not a name that a folder can have")
    return RUNS_DIR / name if Path(name).name == name else Path(name)


def create_run(name: str | None, *, source_name: str) -> Path:
    """A new folder `runs/NAME`, or `runs/SOURCE-1`, `-2`, ... without a name.

    Raises:
        RunError: the name is taken or not a plain name, or the folder cannot be made.
    """
    try:
        if name is None:
            return _next_folder(source_name)
        folder = named(name)
        if (folder / CONFIG_FILE).exists():
            raise RunError(
                f"--run {name!r} exists; go on with: bonsaigan resume {quoted(name)}, or choose another name"
            )
        if (folder / GENERATOR_FILE).exists():
            raise RunError(f"--run {name!r} exists: a generator that was imported; choose another name")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--run {name or source_name!r}: cannot make the folder: {error.strerror}") from None
    except ValueError:  # a zero byte
        raise RunError(f"--run {name!r}: not a name that a folder can have") from None
    return folder


def _next_folder(source_name: str) -> Path:
    RUNS_DIR.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = RUNS_DIR / f"{source_name}-{number}"
        try:
            folder.mkdir()  # two processes that start together get one each
        except FileExistsError:
            number += 1
        else:
            return folder


def title(folder: Path) -> str:
    """What to call a run: its folder's name, or of a generator in the hub's cache its address."""
    folder = folder.resolve()
    if folder.parent.name == "snapshots" and folder.parents[1].name.startswith("models--"):
        return HUB_PREFIX + folder.parents[1].name.removeprefix("models--").replace("--", "/", 1)
    return folder.name


def quoted(word: str) -> str:
    """A word as it is typed in this system's shell."""
    return subprocess.list2cmdline([word]) if os.name == "nt" else shlex.quote(word)


def typed(folder: Path) -> str:
    """What to type for RUN: a name or an address where that finds it, else its path."""
    if folder.resolve().parent == STARTERS_DIR.resolve():
        return f"{STARTER_PREFIX}{folder.name}"
    if title(folder).startswith(HUB_PREFIX):
        return quoted(title(folder))
    named = (RUNS_DIR / folder.name).resolve() == folder.resolve()
    return quoted(folder.name if named else str(folder))


def read_config(folder: Path) -> TrainConfig:
    """The settings a run was made with.

    Raises:
        ConfigError: `config.json` is missing, damaged or of a newer version.
    """
    import json

    if not (folder / CONFIG_FILE).exists() and (folder / GENERATOR_FILE).is_file():
        raise ConfigError(f"{folder}: a generator alone; it was not trained here ({CONFIG_FILE} is missing)")
    return TrainConfig.from_json(json.dumps(read_json(folder / CONFIG_FILE)))


def fit_of(folder: Path) -> Fit:
    """How a run's pictures were fitted to their size; `crop` where that is not known."""
    with suppress(ConfigError):
        return read_config(folder).data.fit
    return "crop"


def versions() -> dict[str, str]:
    """What computes here: this package, Python, torch and the system."""
    return {
        "bonsaigan": metadata.version("bonsaigan"),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "system": f"{platform.system()} {platform.machine()}",
    }


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Keep a run folder to this process; see `locks`.

    Raises:
        RunError: another process trains there, or nothing can be written there.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(folder / LOCK_FILE, wait=False))
        except BlockingIOError:
            raise RunError(f"{folder} is in use by another process; wait for it, or stop it first") from None
        except OSError as error:
            raise RunError(f"{folder}: cannot be written: {error.strerror}") from None
        yield
