"""Run folder → `report.html`: one file, good to look at in light and dark, that reaches for nothing else."""

from __future__ import annotations

import base64
import hashlib
import time
from pathlib import Path
from typing import Any

from bonsaigan import runs
from bonsaigan.durable import write_atomically
from bonsaigan.report import charts
from bonsaigan.report import facts as read
from bonsaigan.report.curves import curves
from bonsaigan.report.facts import Facts, read_facts
from bonsaigan.report.figures import (
    LAPSE_COLUMNS,
    LAPSE_ROWS,
    closest_pairs,
    real_grid,
    time_lapse,
    trained_grid,
)
from bonsaigan.report.tables import commands, made_with, remarks, score_table, settings, typed
from bonsaigan.report.words import count, distance, number, plus_minus, share, span, span_of

TEMPLATE, TRAINING_TEMPLATE, STYLE, SCRIPT = "page.html.j2", "training.html.j2", "page.css", "page.js"
FILES_LISTED = 500
TREND_MIN = 3
"""Scores from which on they may be called falling."""


def write_report(folder: Path, *, own: Path | None = None) -> Path:
    """Write `report.html` about a run, from what its folder holds.

    A run that still trains, was not evaluated or was imported gets a shorter report that says so.

    Args:
        folder: from `runs.find_run`.
        own: where to write, when not into the run.

    Returns:
        The file.

    Raises:
        RunError: the file cannot be written.
    """
    page = render(read_facts(folder))
    path = (own or folder) / runs.REPORT_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page.encode("utf-8", "replace"))
    return path


def render(facts: Facts) -> str:
    """The page as HTML. Every text from the folder is escaped by the template."""
    script = _read(SCRIPT)
    return _fill(
        TEMPLATE,
        style=_read(STYLE),
        script=script,
        version=runs.versions()["bonsaigan"],
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **contents(facts),
    )


def render_training(facts: Facts) -> str:
    """Findings and curves alone, as a piece of HTML for a page that has the report's style."""
    return _fill(TRAINING_TEMPLATE, findings=facts.findings, curves=curves(facts))


def contents(facts: Facts) -> dict[str, Any]:
    """What the template shows, section by section."""
    pairs = closest_pairs(facts)
    return {
        "name": read.clean(runs.title(facts.folder)),
        "lead": lead(facts),
        "meta": meta(facts),
        "tiles": tiles(facts),
        "findings": facts.findings,
        "grid": trained_grid(facts),
        "reals": real_grid(facts),
        "frames": time_lapse(facts),
        "frames_seeds": LAPSE_COLUMNS * LAPSE_ROWS,
        "curves": curves(facts),
        "scores": score_table(facts),
        "pairs": pairs,
        "copies_verdict": read.text(facts.metrics, "copies", "verdict"),
        "copies_comparison": read.text(facts.metrics, "copies", "comparison"),
        "data": data(facts),
        "settings": settings(facts),
        "made_with": made_with(facts),
        "commands": commands(facts),
        "run": typed(facts),
        "trained_here": facts.trained_here,
        "written": time.strftime("%Y-%m-%d %H:%M"),
    }


def lead(facts: Facts) -> str:
    """The run in a few plain words: how good, copies, the best moment."""
    parts = []
    metrics = facts.scored
    kid = read.number(metrics, "scores", "numbers", "kid")
    if kid is not None:
        nearness = read.text(metrics, "scores", "nearness")
        like = f"are {nearness}" if nearness else f"have a KID ×1000 of {distance('kid', kid)}"
        parts.append(f"The new pictures {like}{_copied(facts)}.")
    elif facts.best is not None:
        value = distance("kid", facts.best.values["kid"])
        parts.append(
            f"The best score so far is a KID ×1000 of {value}. No copies were looked for at that moment yet."
        )
    elif not facts.trained_here:
        parts.append("This generator was not trained here, so there is no history to show.")
    elif facts.metrics:
        parts.append("It was not scored since it went on; the scores below are of an earlier moment.")
    else:
        parts.append("There are no scores yet." if facts.last else "Training has not shown anything yet.")
    if facts.best is not None and facts.last is not None and kid is not None:
        if facts.best.step == max(m.step for m in (*facts.evaluations, facts.best)):
            if _still_learning(facts):
                parts.append("It was best at the very end, so more time may make it better.")
        else:
            when = span_of(facts.best.train_sec, facts.last.train_sec)
            parts.append(f"The best moment came after {when}, at step {count(facts.best.step)}.")
    done = facts.done_share
    if done is not None and done < 0.995:
        parts.append(f"So far {share(done)} of the training is done.")
    return " ".join(parts)


def meta(facts: Facts) -> list[str]:
    """Short facts for the line under the title."""
    data, size = read.mapping(facts.data, "counts"), read.mapping(facts.spec or facts.config, "size")
    recipe = read.text(facts.config, "recipe") or read.text(facts.spec, "recipe")
    size = size or read.mapping(facts.config, "data", "size")
    width, height = read.number(size, "width_px"), read.number(size, "height_px")
    trained_on = read.number(data, "train")
    return [
        text
        for text in (
            source(facts),
            f"{count(trained_on)} pictures" if trained_on is not None else "",
            f"{width:.0f} × {height:.0f} px" if width is not None and height is not None else "",
            f"recipe {recipe}" if recipe else "",
        )
        if text
    ]


def source(facts: Facts) -> str:
    """What it was trained on, without where that lies: a report may go to others."""
    told = read.text(facts.data, "source") or read.text(facts.spec, "source")
    for kind in ("the folder ", "the archive "):
        if told.startswith(kind):
            return f"{kind}{read.text(facts.data, 'name')}".strip()
    return told.partition(", kept in ")[0]


def tiles(facts: Facts) -> list[dict[str, Any]]:
    """The few numbers that matter most: label, value, note, and whether it is a warning."""
    scores = read.mapping(facts.scored, "scores")
    found: list[dict[str, Any]] = []

    def add(label: str, value: str, note: str, *, bad: bool = False) -> None:
        found.append({"label": label, "value": value, "note": note, "bad": bad})

    kid, floor = read.number(scores, "numbers", "kid"), read.number(scores, "floor", "kid")
    spread, best = read.number(scores, "floor_std", "kid"), facts.best
    if kid is not None and floor is not None and spread is not None:
        add(
            "KID ×1000", number(kid * 1000), f"less is better; real halves {plus_minus('kid', floor, spread)}"
        )
    elif best is not None:
        add("KID ×1000", distance("kid", best.values["kid"]), "less is better; quick score of 256 pictures")
    covered, reach = read.number(scores, "numbers", "coverage"), read.number(scores, "floor", "coverage")
    if covered is not None and reach is not None:
        add("Real pictures covered", share(covered), f"halves of them cover {share(reach)}")
    flagged = read.number(facts.scored, "copies", "flagged_count")
    looked = read.number(facts.scored, "copies", "generated_count")
    if flagged is not None and looked is not None:
        value = "none" if flagged == 0 else count(flagged)
        add("Look like copies", value, f"of {count(looked)} new pictures", bad=flagged > 0)
    if best is not None:
        add("Best moment", span(best.train_sec), f"step {count(best.step)}")
    if facts.last is not None and facts.last.train_sec > 0.001:
        kimg = facts.last.values.get("kimg", 0.0)
        rate = kimg * 1000 / facts.last.train_sec
        note = f"{count(facts.last.step)} steps, {number(rate)} pictures a second"
        add("Trained for", span(facts.last.train_sec), note)
    return found


def data(facts: Facts) -> dict[str, Any]:
    """What it was trained on."""
    counts = read.mapping(facts.data, "counts")
    left_out = [
        {"name": read.text(entry, "name"), "reason": read.text(entry, "reason")}
        for entry in read.items(facts.data, "left_out")
    ]
    remarked = remarks(facts)
    return {
        "source": source(facts),
        "summary": read.text(facts.data, "summary"),
        "train": _counted(counts, "train"),
        "holdout": _counted(counts, "holdout"),
        "licence": read.text(facts.data, "licence") or read.text(facts.spec, "licence"),
        "citation": read.text(facts.data, "citation"),
        "left_out": left_out[:FILES_LISTED],
        "left_out_count": len(left_out),
        "remarks": remarked[:FILES_LISTED],
        "remarks_count": len(remarked),
    }


def _fill(template: str, **values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bonsaigan", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(geometry=charts, **values)


def _read(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8").strip()


def _counted(counts: dict[str, Any], name: str) -> str:
    value = read.number(counts, name)
    return count(value) if value else ""


def _still_learning(facts: Facts) -> bool:
    """Whether the scores fell to the last step: of at least a few, and with nothing standing against it."""
    stands = any(finding.name == "stalled" and not finding.over for finding in facts.findings)
    ends = facts.last is not None and facts.best is not None and facts.best.step == facts.last.step
    return ends and len(facts.evaluations) >= TREND_MIN and not stands


def _copied(facts: Facts) -> str:
    flagged = read.number(facts.metrics, "copies", "flagged_count")
    looked = read.number(facts.metrics, "copies", "generated_count")
    if flagged is None or looked is None:
        return ""
    if flagged == 0:
        blunt = read.text(facts.metrics, "copies", "bluntness")
        told = ", as far as can be told of a set with so many near twins" if blunt else ""
        return f", and none of {count(looked)} looks like a copy of a real one{told}"
    looks = "looks like a copy of a real one" if flagged == 1 else "look like copies of real ones"
    return f", but {count(flagged)} of {count(looked)} {looks}"
