"""Commands run in processes of their own, with a fault at a chosen moment.

`Warm` is a process that has imported everything and forks: a command starts in milliseconds, before torch
has any threads. A trap springs when a function is called for the n-th time: it kills the process, fails as a
full disk does, and the like. Settings are small here: a state is saved after each step and scores are quick.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SAVE_EVERY_SEC = 0.0
PICTURES = 16
"""Generated pictures in a score."""
STAGE_BYTES = 24
STAGES: dict[str, tuple[str, str]] = {
    "download": ("bonsaigan.data.download", "_receive"),
    "reading": ("bonsaigan.data.survey", "_examine_one"),
    "preparation": ("bonsaigan.data.prepare", "_write_array"),
    "step": ("bonsaigan.training.trainer", "Trainer.step"),
    "samples": ("bonsaigan.training.shared", "draw"),
    "evaluation": ("bonsaigan.evaluation.scores", "RealReference.score"),
    "saving": ("bonsaigan.durable", "write_durably"),
    "renaming": ("pathlib", "Path.rename"),
    "end": ("bonsaigan.conclude", "appraise"),
    "report": ("bonsaigan.conclude", "write_report"),
}
"""Stage of a run → module and function whose call is the moment."""


class Warm:
    """Runs commands of `bonsaigan` in forked processes, one or several at a time."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faulty"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *arguments: str, cwd: Path, **wishes: Any) -> int:
        """Start a command; `wishes` are for `_child`. Returns its process id."""
        return self._ask({"run": arguments, "cwd": str(cwd), **wishes})

    def wait(self, pid: int) -> int:
        """Exit status of a command, negative for a signal."""
        return self._ask({"wait": pid})

    def run(self, *arguments: str, cwd: Path, **wishes: Any) -> tuple[int, list[str]]:
        """Run a command to its end: exit status and the lines it printed."""
        status = self.wait(self.start(*arguments, cwd=cwd, **wishes))
        return status, said(cwd)

    def stop(self) -> None:
        """End the warm process."""
        self._server.communicate()

    def _ask(self, question: dict[str, Any]) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(question) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())


def said(cwd: Path) -> list[str]:
    """The lines that the last command in a folder printed."""
    return (cwd / "said.txt").read_text(encoding="utf-8", errors="replace").splitlines()


# ---------------------------------------------------------------------------------------------------------
# In the warm process


def _serve() -> None:
    import bonsaigan.conclude as conclude
    from bonsaigan.training import loop, monitor, shared

    _import_the_rest()
    _count_steps()
    loop.SAVE_EVERY_SEC = SAVE_EVERY_SEC
    monitor.FIRST_LOOK_STEP, monitor.EVALUATE_SHARE, shared.EVALUATE_COUNT = 2, 1e9, PICTURES
    conclude.COUNT = PICTURES
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            _, status = os.waitpid(question["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        elif pid := os.fork():
            answer = pid
        else:
            _child(**question)
            return  # it never does
        print(answer, flush=True)


def _import_the_rest() -> None:
    import torch.utils.tensorboard.writer  # noqa: F401

    import bonsaigan.cli_run
    import bonsaigan.models.features
    import bonsaigan.training.optim  # noqa: F401


def _child(
    *,
    run: list[str],
    cwd: str,
    trap: dict[str, Any] | None = None,
    stage_file: str | None = None,
    clock: bool = False,
    patch: dict[str, Any] | None = None,
) -> None:
    """Run a command and end.

    Args:
        run: its arguments.
        cwd: where; what it prints goes to `said.txt` there.
        trap: {"stage": key of STAGES, "call": n, "do": key of FAULTS, "name": of the path that is meant}.
        stage_file: 24 bytes that always hold the name of the present stage, for whoever kills the process.
        clock: whether the wall clock jumps by years at every look.
        patch: "module:name" → value.
    """
    code: Any = 1
    try:
        os.chdir(cwd)
        log = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["BONSAIGAN_CACHE"] = str(Path("cache").absolute())
        for place, value in (patch or {}).items():
            module, _, name = place.partition(":")
            setattr(sys.modules[module], name, value)
        if clock:
            time.time = lambda: random.uniform(0, 4e9)
        if trap is not None:
            _set_trap(**trap)
        if stage_file is not None:
            _mark_stages(stage_file)
        from bonsaigan import cli

        sys.argv = ["bonsaigan", *run]
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)


def _set_trap(*, stage: str, do: str, call: int = 1, name: str | None = None) -> None:
    calls = 0

    def before(arguments: tuple[Any, ...]) -> None:
        nonlocal calls
        if name is not None and Path(arguments[0]).name != name:
            return
        calls += 1
        if calls == call:
            _note_moment()
            FAULTS[do]()

    _wrap(stage, lambda arguments: _Before(before, arguments))


def _note_moment() -> None:
    """What is saved and what is done when the trap springs: `moment.json`."""
    from bonsaigan.training.trainer import Trainer

    saved = [
        json.loads(path.read_text())["progress"]["step"]
        for path in Path("runs").glob("*/checkpoint*/state.json")
        if path.parent.name in ("checkpoint", "checkpoint.previous")
    ]
    done = getattr(Trainer, "steps_done", 0)
    Path("moment.json").write_text(json.dumps({"saved": max(saved, default=0), "done": done}))


class _Before(contextlib.AbstractContextManager[None]):
    def __init__(self, act: Callable[[tuple[Any, ...]], None], arguments: tuple[Any, ...]):
        act(arguments)

    def __exit__(self, *_: object) -> None:
        return None


def _wrap(stage: str, around: Callable[[tuple[Any, ...]], contextlib.AbstractContextManager[None]]) -> None:
    module, path = STAGES[stage]
    *holders, name = path.split(".")
    holder: Any = sys.modules[module]
    for part in holders:
        holder = getattr(holder, part)
    original = getattr(holder, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        with around(arguments):
            return original(*arguments, **options)

    setattr(holder, name, wrapped)


def _mark_stages(path: str) -> None:
    with open(path, "r+b") as file:  # noqa: PTH123
        shared = mmap.mmap(file.fileno(), STAGE_BYTES)

    @contextlib.contextmanager
    def marked(stage: str) -> Iterator[None]:
        before = shared[:]
        shared[:] = stage.encode().ljust(STAGE_BYTES)
        try:
            yield
        finally:
            shared[:] = before

    for stage in STAGES:
        _wrap(stage, lambda _, stage=stage: marked(stage))


def _count_steps() -> None:
    from bonsaigan.training.trainer import Trainer

    step = Trainer.step

    def counted(trainer: Trainer, pictures: Any) -> Any:
        stats = step(trainer, pictures)
        Trainer.steps_done = trainer.progress.step  # pyright: ignore[reportAttributeAccessIssue]
        return stats

    Trainer.step = counted  # pyright: ignore[reportAttributeAccessIssue]


# --- what a trap does --------------------------------------------------------------------------------------


def _signal(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # its handler runs now


def _fail(number: int) -> None:
    raise OSError(number, os.strerror(number))


def _fill_disk() -> None:
    """Use up the file system that the run lies on."""
    with Path("ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def _limit_files() -> None:
    """No file may grow beyond 64 KiB, as a quota would have it."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))


def _change_pictures() -> None:
    for path in Path("photos").iterdir():
        path.write_bytes(path.read_bytes() + b"\0")


FAULTS: dict[str, Callable[[], None]] = {
    "SIGKILL": lambda: _signal(signal.SIGKILL),
    "SIGTERM": lambda: _signal(signal.SIGTERM),
    "SIGINT": lambda: _signal(signal.SIGINT),
    "SIGSTOP": lambda: _signal(signal.SIGSTOP),
    "EIO": lambda: _fail(errno.EIO),
    "ENOSPC": lambda: _fail(errno.ENOSPC),
    "fill": _fill_disk,
    "limit": _limit_files,
    "change": _change_pictures,
}


if __name__ == "__main__":
    _serve()
