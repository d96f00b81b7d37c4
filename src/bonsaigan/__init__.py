"""bonsaigan: image generators grown from small sets of pictures, on ordinary machines.

import bonsaigan

run = bonsaigan.train("photos/", minutes=10)
generator = bonsaigan.load(run)
generator.sample(4, seed=7)[0].save("new.png")
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from bonsaigan.errors import BonsaiganError

if TYPE_CHECKING:
    from pathlib import Path

    from bonsaigan.config import Device
    from bonsaigan.generator import Generator, load

__all__ = ["BonsaiganError", "Generator", "__version__", "load", "resume", "train"]
__version__ = "0.1.0"

# How OpenMP's threads wait for each other is read once, when torch is imported, so it is settled here: they
# spin for about 0.1 ms, then sleep. Sleeping at once makes a training step a third longer; spinning on makes
# it many times longer beside another busy program (benchmarks/LOG.md).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
if sys.platform == "darwin":  # read then, too: what Apple's GPUs lack runs on the CPU
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")


def train(data: str | Path, *, run: str | None = None, quiet: bool = False, **wishes: Any) -> Path:
    """Train a generator on pictures, score it and write a report; see `bonsaigan train --help`.

    Args:
        data: a folder, an archive, `caltech101:CATEGORY`, `hf:OWNER/NAME` or `demo:bonsai`.
        run: name of the run; its folder is made under `runs/`.
        quiet: print nothing; else what the command prints.
        wishes: `recipe`, `size`, `minutes`, `kimg`, `steps`, `batch`, `seed`, `device` and the other fields
            of `training.session.Wishes`; `evaluate=False` trains without scores.

    Returns:
        The run's folder.

    Raises:
        BonsaiganError: something that was asked for cannot be done; one line that says why.
    """
    from functools import partial

    from bonsaigan.conclude import conclude
    from bonsaigan.terminal import make_console
    from bonsaigan.training import session

    wanted, console = session.Wishes(**wishes), make_console(quiet=quiet)
    plan = session.plan(str(data), wanted)
    return session.start(
        plan, run=run, device=wanted.device, console=console, conclude=partial(conclude, console=console)
    )


def resume(
    run: str | Path | None = None,
    *,
    minutes: float | None = None,
    kimg: float | None = None,
    steps: int | None = None,
    data: str | Path | None = None,
    archive: str | None = None,
    device: Device = "auto",
    quiet: bool = False,
) -> Path:
    """Go on with a run (its folder, its name, or None for the newest) until its budget is spent.

    Args:
        run: which.
        minutes: a new budget, counted from the run's beginning; or `kimg`, thousands of pictures, or `steps`.
        data: where its pictures are now, if they are not where they were.
        archive: a copy of the Caltech-101 archive, if it is not where it was.
        device: where to compute: `auto`, `cpu`, `cuda` or `mps`.
        quiet: print nothing.

    Returns:
        The run's folder.

    Raises:
        BonsaiganError: there is no such run, its pictures changed, or it cannot go on.
    """
    from functools import partial

    from bonsaigan.conclude import conclude
    from bonsaigan.config import Budget
    from bonsaigan.terminal import make_console
    from bonsaigan.training import session

    console = make_console(quiet=quiet)
    return session.resume(
        run,
        data=None if data is None else str(data),
        budget=Budget.asked(minutes=minutes, kimg=kimg, steps=steps),
        archive=archive,
        device=device,
        console=console,
        conclude=partial(conclude, console=console),
    )


def __getattr__(name: str) -> Any:
    # `import bonsaigan` stays quick: torch is imported when a generator is first asked for.
    if name in ("Generator", "load"):
        from bonsaigan import generator

        return getattr(generator, name)
    raise AttributeError(f"module 'bonsaigan' has no attribute {name!r}")
