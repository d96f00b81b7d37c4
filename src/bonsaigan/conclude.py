"""The end of a training: the best generator scored and held against the photos, and a report of it all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape

from bonsaigan import runs
from bonsaigan.appraise import COUNT, RealPictures, appraise
from bonsaigan.config import read_json
from bonsaigan.device import lacks_memory
from bonsaigan.errors import BonsaiganError, first_line
from bonsaigan.generator import load
from bonsaigan.report.page import write_report
from bonsaigan.training.session import Trained


def conclude(trained: Trained, *, console: Console | None = None) -> None:
    """Say in plain words how good the generator is and whether it copies; write `report.html`.

    A training that someone stopped is not scored: who stops it wants it to end. A run made with `evaluate`
    off is not scored either, and a generator that was scored is not scored again. Nothing that fails here
    fails the training: it is said, and the rest is done.

    Args:
        trained: what `session.start` hands over.
        console: where to print; nothing is printed without one.
    """
    console = console or Console(quiet=True)
    folder = trained.folder
    known = _verdicts(folder)
    if known:
        for verdict in known:
            _say(console, verdict)
    elif trained.plan.config.evaluate and not trained.stopped:
        try:
            real, device = RealPictures.of(trained.plan.prepared), str(trained.device)
            with console.status(f"scoring {COUNT} new pictures"):
                found = appraise(folder, real, count=COUNT, device=device)
        except KeyboardInterrupt:
            _say(console, f"not scored: stopped; score it with: bonsaigan evaluate {runs.typed(folder)}")
        except (BonsaiganError, RuntimeError, MemoryError, np.linalg.LinAlgError) as error:
            _say(console, f"not scored: {_why(error)}")
        else:
            _say(console, found.scores.verdict)
            _say(console, found.copies.verdict)
    try:
        _say(console, f"report: {write_report(folder)}")
    except (BonsaiganError, RuntimeError, MemoryError) as error:
        _say(console, f"no report: {_why(error)}")


def _why(error: Exception) -> str:
    """What went wrong, in a line; an error that is none of those that may happen is raised."""
    if not (isinstance(error, (BonsaiganError, np.linalg.LinAlgError)) or lacks_memory(error)):
        raise error
    return first_line(error, otherwise="no memory left")


def _verdicts(folder: Path) -> tuple[str, ...]:
    """What is known of the generator as it is now: nothing, or how good it is and whether it copies."""
    try:
        known = read_json(folder / runs.SCORES_FILE)
        if known["step"] == load(folder).spec.step and known["scores"]["generated_count"] >= COUNT:
            return str(known["scores"]["verdict"]), str(known["copies"]["verdict"])
    except (BonsaiganError, KeyError, TypeError):
        pass
    return ()


def _say(console: Console, text: str) -> None:
    console.print(escape(text), highlight=False)
