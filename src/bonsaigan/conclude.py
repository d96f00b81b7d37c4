"""The end of a training: the best generator scored and held against the photos, and a report of it all."""

from __future__ import annotations

import torch
from rich.console import Console
from rich.markup import escape

from bonsaigan import runs
from bonsaigan.appraise import COUNT, RealPictures, appraise
from bonsaigan.errors import BonsaiganError
from bonsaigan.report.page import write_report
from bonsaigan.training.session import Trained


def conclude(trained: Trained, *, console: Console | None = None) -> None:
    """Say in plain words how good the generator is and whether it copies; write `report.html`.

    A training that someone stopped is not scored: who stops it wants it to end. A run made with `evaluate`
    off is not scored either. Nothing that fails here fails the training: it is said, and the rest is done.

    Args:
        trained: what `session.start` hands over.
        console: where to print; nothing is printed without one.
    """
    console = console or Console(quiet=True)
    folder = trained.folder
    if trained.plan.config.evaluate and not trained.stopped:
        try:
            real, device = RealPictures.of(trained.plan.prepared), str(trained.device)
            with console.status(f"scoring {COUNT} new pictures"):
                found = appraise(folder, real, count=COUNT, device=device)
        except KeyboardInterrupt:
            _say(console, f"not scored: stopped; score it with: bonsaigan evaluate {runs.typed(folder)}")
        except (BonsaiganError, torch.OutOfMemoryError) as error:
            _say(console, f"not scored: {str(error).splitlines()[0]}")
        else:
            _say(console, found.scores.verdict)
            _say(console, found.copies.verdict)
    try:
        _say(console, f"report: {write_report(folder)}")
    except BonsaiganError as error:
        _say(console, f"no report: {error}")


def _say(console: Console, text: str) -> None:
    console.print(escape(text), highlight=False)
