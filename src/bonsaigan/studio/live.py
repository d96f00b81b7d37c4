"""How a training goes, read from its folder: for the page that watches it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from bonsaigan import runs
from bonsaigan.errors import RunError
from bonsaigan.report.facts import Facts, read_facts
from bonsaigan.report.images import sample_grids
from bonsaigan.report.page import render, render_training
from bonsaigan.report.words import count, span

FRESH_SEC = 90.0
"""A run that wrote nothing for so long does not train: its state is saved every minute."""


def status(folder: Path) -> dict[str, Any]:
    """Whether it trains, how far it is, and the grids of samples there are."""
    facts = read_facts(folder, with_data=False)
    share = facts.done_share
    fresh = time.time() - _written(folder) < FRESH_SEC
    last, open_findings = facts.last, [f for f in facts.findings if not f.over]
    told = (last.step if last else 0, len(facts.moments), len(facts.findings), len(open_findings))
    return {
        "live": bool(facts.config) and fresh and share is not None and share < 0.999,
        "share": share,
        "said": f"step {count(last.step)}, {span(last.train_sec)} of training" if last is not None else "",
        "findings": [f"{f.name}: {f.what} {f.advice}" for f in open_findings],
        "samples": [
            {"step": step, "said": _moment(facts, step), "stamp": _changed(path)}
            for step, path in sample_grids(_samples(folder))
        ],
        "signature": "-".join(map(str, told)),
    }


def sample_path(folder: Path, step: int) -> Path:
    """The grid of samples of a step.

    Raises:
        RunError: there is none.
    """
    for known, path in sample_grids(_samples(folder)):
        if known == step and not path.is_symlink():
            return path
    raise RunError(f"step {step}: no samples of that moment")


def training_html(folder: Path) -> str:
    """Health and curves as a piece of HTML."""
    return render_training(read_facts(folder))


def report_html(folder: Path) -> str:
    """The run's report as it would be written now."""
    return render(read_facts(folder))


def _samples(folder: Path) -> Path:
    return folder / runs.SAMPLES_DIR


def _moment(facts: Facts, step: int) -> str:
    sec = facts.seconds_at(step)
    return f"step {count(step)}" + (f", {span(sec)}" if sec is not None else "")


def _written(folder: Path) -> float:
    return max(_changed(folder / runs.METRICS_FILE), _changed(folder / runs.CHECKPOINT_DIR / runs.STATE_FILE))


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
