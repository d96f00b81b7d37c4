"""The page's tables: scores, settings, versions, commands."""

from __future__ import annotations

from pathlib import PureWindowsPath
from typing import Any

from bonsaigan import runs
from bonsaigan.data.sources import PUBLIC
from bonsaigan.report import facts as read
from bonsaigan.report.facts import Facts
from bonsaigan.report.words import EXPLAINED, LABELS, count, measure, plus_minus

PATHS = ("data.source", "data.archive", "init")
"""Settings that may be paths."""
OF_ANY_SIZE = ("kid", "diversity")
"""Measures that few held-out pictures do not flatter."""
VERSION_NAMES = {"bonsaigan": "bonsaigan", "python": "Python", "torch": "PyTorch", "system": "system"}


def score_table(facts: Facts) -> dict[str, Any] | None:
    """The full scores: rows of name, explanation, value, floor, held-out value; None before an evaluation."""
    scores = read.mapping(facts.metrics, "scores")
    rows = []
    for name, explained in EXPLAINED.items():
        value, floor = read.number(scores, "numbers", name), read.number(scores, "floor", name)
        spread, held = read.number(scores, "floor_std", name), read.number(scores, "holdout", name)
        if name not in OF_ANY_SIZE:
            held = None
        if name == "frechet":  # at the floor's size
            value = read.number(scores, "frechet_matched")
        if value is None:
            continue
        label = LABELS.get(name, name.capitalize())
        if name == "frechet" and (side := read.number(scores, "frechet_count")) is not None:
            label += f" at {count(side)} a side"
        rows.append(
            {
                "label": label,
                "explained": explained,
                "value": measure(name, value),
                "floor": "" if floor is None or spread is None else plus_minus(name, floor, spread),
                "holdout": "" if held is None else measure(name, held),
            }
        )
    if not rows:
        return None
    kept_out = read.number(scores, "holdout_count") or 0
    step = read.number(facts.metrics, "step")
    return {
        "rows": rows,
        "held_out": f"Against {count(kept_out)} held out" if any(row["holdout"] for row in rows) else "",
        "notes": [read.clean(note) for note in read.items(scores, "notes") if isinstance(note, str)],
        "how": ", ".join(_how(scores, step)),
        "older": not facts.scored,
        "step": "" if step is None else count(step),
    }


def settings(facts: Facts) -> list[tuple[str, str]]:
    """Every setting by its name in `config.json`. Of a path only its end: a report may go to others."""
    return list(_flat(facts.config, ""))


def made_with(facts: Facts) -> list[tuple[str, str]]:
    """What the run was made with; empty when it did not keep that."""
    versions = read.mapping(facts.begin, "versions")
    found = [(label, read.text(versions, name)) for name, label in VERSION_NAMES.items()]
    device, threads = read.text(facts.begin, "device"), read.number(facts.begin, "threads")
    if device:
        found.append(("device", device + (f", {threads:.0f} thread{'s' * (threads > 1)}" if threads else "")))
    return [(label, value) for label, value in found if value]


def remarks(facts: Facts) -> list[dict[str, str]]:
    """Files that were used although something about them was noticed."""
    return [
        {"name": read.text(file, "name"), "reason": read.text(note, "what")}
        for file in read.items(facts.data, "files")
        for note in read.items(file, "notes")
    ]


def typed(facts: Facts) -> str:
    """What to type for RUN; of a path only its end, for who is in the folder above."""
    run, name = runs.typed(facts.folder), facts.folder.resolve().name  # of `.` too
    named = run in (runs.quoted(name), f"{runs.STARTER_PREFIX}{name}")
    return read.clean(run if named or runs.HUB_PREFIX in run else runs.quoted(name))


def commands(facts: Facts) -> list[tuple[str, str]]:
    """What to do next, and what to type for it."""
    run = typed(facts)
    found = [("Draw 64 new pictures", f"bonsaigan generate {run}")]
    if facts.config:
        minutes = read.number(facts.config, "budget", "minutes")
        more = f" --minutes {minutes * 2:.10g}" if minutes else ""
        done = facts.done_share
        if done is not None and done < 0.995:
            found.append(("Finish the training", f"bonsaigan resume {run}"))
        elif more:
            found.append(("Train as long again", f"bonsaigan resume {run}{more}"))
        found.append(("Leave out what looks like a copy", f"bonsaigan generate {run} --avoid-copies"))
        found.append(("Score it again and look for copies", f"bonsaigan evaluate {run}"))
    found.append(("Write this page again", f"bonsaigan report {run}"))
    return found


def _how(scores: dict[str, Any], step: float | None) -> list[str]:
    generated, real = read.number(scores, "generated_count"), read.number(scores, "real_count")
    parts = []
    if generated is not None and real is not None:
        parts.append(f"{count(generated)} new pictures against {count(real)} real ones")
    if step is not None:
        parts.append(f"step {count(step)}")
    parts += [text for text in (read.text(scores, "network"), read.text(scores, "filter")) if text]
    seed = read.integer(scores, "seed")
    return parts + ([f"seed {seed}"] if seed is not None else [])


def _flat(values: dict[str, Any], prefix: str) -> list[tuple[str, str]]:
    found = []
    for key, value in values.items():
        name = prefix + read.clean(key)
        if isinstance(value, dict) and len(name) < 100:
            found += _flat(value, f"{name}.")
        elif name in PATHS and isinstance(value, str):
            found.append((name, read.clean(_end_of_path(value))))
        else:
            found.append((name, _setting(value)))
    return found


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_setting(item) for item in value) or "none"
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return read.clean(str(value))


def _end_of_path(value: str) -> str:
    if value.startswith(PUBLIC):
        return value
    end = PureWindowsPath(value).name  # which takes either slash for one
    return f"…/{end}" if end and end != value else value
