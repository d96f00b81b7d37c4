"""What an export says about itself: the facts fit to be published, and a model card for people.

Nothing is told of the machine: where the pictures lay stays unsaid, only their name, number and terms.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from bonsaigan.data.sources import PUBLIC
from bonsaigan.generator import GeneratorSpec
from bonsaigan.report import words
from bonsaigan.report.facts import Facts, clean, integer, mapping, number, read_facts, text

HERE = "path/to/this/folder"
UNKNOWN = "not stated; ask whoever made the pictures before you share or sell what this generator draws"
CARD = """---
license: other
library_name: bonsaigan
pipeline_tag: unconditional-image-generation
tags:
- gan
- bonsaigan
---

# {title}

A small image generator: it draws new pictures, {size} pixels, {colour}, like those it was trained on.
It runs in fractions of a second on one CPU core.

## Use

{use}

## Data

{data}

- Licence of the pictures: {licence}
{citation}
## Training

Recipe `{recipe}`, step {step}{generator_kind}. {budget}

## Scores

{scores}

## Copies

{copies}

## Intended use

Pictures of the same kind as those it was trained on, for play, study and art. Not as evidence of anything:
what it draws does not exist. From few pictures it learns their choice and their flaws too, and it may come
close to one of them; `bonsaigan generate --avoid-copies` leaves such ones out where the pictures are at hand.
Its licence cannot give more rights than the pictures had.
"""


USE = """```python
import bonsaigan

generator = bonsaigan.load("{address}")
generator.sample(4, seed=7)[0].save("new.png")
```

On the command line: `bonsaigan generate {address} -n 64`. The same seed is always the same picture."""
USE_PAGE = """Hand this folder out by any web server, such as `python -m http.server`, and open it in a
browser. The same seed is always the same picture, here as elsewhere."""


def publishable(
    folder: Path, spec: GeneratorSpec, *, address: str = HERE, page: bool = False
) -> tuple[GeneratorSpec, str]:
    """What may be said about a run's generator: its spec with the scores of its very step, and a model card.

    Args:
        folder: the run; what cannot be read there counts as unknown.
        spec: the generator's own.
        address: what to type for it, once it is where it shall be.
        page: it is a page that draws by itself.
    """
    facts = read_facts(folder)
    same = integer(facts.metrics, "step") == spec.step
    scores = mapping(facts.metrics, "scores", "numbers") if same else {}
    known, told = (
        {name: value for name in words.EXPLAINED if (value := number(of, name)) is not None}
        for of in (scores, spec.scores)
    )
    public = dataclasses.replace(
        spec,
        recipe=clean(spec.recipe),
        source=_source(facts, spec),
        licence=spec.licence and clean(spec.licence),
        citation=text(facts.data, "citation") or (spec.citation and clean(spec.citation)) or None,
        scores=known or told,
    )
    return public, _card(public, facts, use=USE_PAGE if page else USE.format(address=address), scored=same)


def _source(facts: Facts, spec: GeneratorSpec) -> str:
    typed = text(facts.config, "data", "source")
    if not facts.config:  # a generator alone, which an older version may have told where its pictures lay
        told = "" if spec.source.startswith(("the folder ", "the archive ")) else spec.source
        return clean(told.partition(", kept in ")[0])
    name = typed if typed.startswith(PUBLIC) else text(facts.data, "name")
    count = integer(facts.data, "counts", "train")
    return f"{count} pictures, {name}" if count is not None else name


def _card(spec: GeneratorSpec, facts: Facts, *, use: str, scored: bool) -> str:
    train_sec = facts.seconds_at(spec.step)
    machine = text(facts.begin, "versions", "system") or text(facts.begin, "system")
    budget = f"{words.span(train_sec)} of training" if train_sec else "Time of training unknown"
    return CARD.format(
        title=f"{_line(text(facts.data, 'name') or spec.recipe)}: a generator made with bonsaigan",
        use=use,
        size=spec.size,
        colour={1: "greyscale", 3: "in colour", 4: "in colour with transparency"}[spec.channels],
        data=_line(spec.source or "Not known") + ".",
        licence=_line(spec.licence or UNKNOWN),
        citation=f"- Please cite: {_line(spec.citation)}\n" if spec.citation else "",
        recipe=_line(spec.recipe),
        step=spec.step,
        generator_kind=", the moving average of its weights" if number(facts.config, "ema_kimg") else "",
        budget=f"{budget}{f' on {_line(machine)}' if machine else ''}.",
        scores=_scores(facts.metrics, {} if facts.config else spec.scores, scored=scored),
        copies=_copies(facts.metrics, scored=scored),
    )


def _scores(metrics: dict[str, Any], told: dict[str, Any], *, scored: bool) -> str:
    """What was measured here, or else what it brought with it."""
    if not scored:
        known = [
            f"| {words.LABELS.get(name, name)} | {words.measure(name, value)} |"
            for name in words.EXPLAINED
            if (value := number(told, name)) is not None
        ]
        if known:
            return "\n".join(("By whoever trained it:", "", "| measure | generated |", "|---|---|", *known))
        return "Not scored. `bonsaigan evaluate` does it where the pictures are at hand."
    numbers, floor = mapping(metrics, "scores", "numbers"), mapping(metrics, "scores", "floor")
    rows = ["| measure | generated | real against real |", "|---|---|---|"]
    for name in words.EXPLAINED:
        ours, theirs = number(numbers, name), number(floor, name)
        if ours is not None:
            beside = words.measure(name, theirs) if theirs is not None else ""
            rows.append(f"| {words.LABELS.get(name, name)} | {words.measure(name, ours)} | {beside} |")
    how = _line(text(metrics, "scores", "network"))
    counts = [integer(metrics, "scores", key) for key in ("generated_count", "real_count")]
    table = "\n".join(rows)
    verdict = _line(text(metrics, "scores", "verdict"))
    against = f"{counts[0]} generated pictures against {counts[1]} real ones, seen by {how}."
    return f"{verdict}\n\n{table}\n\n{against}"


def _copies(metrics: dict[str, Any], *, scored: bool) -> str:
    verdict = text(metrics, "copies", "verdict") if scored else ""
    return _line(verdict or "Not looked for.")


def _line(value: str) -> str:
    """One line of Markdown that shows the text and does nothing else."""
    flat = " ".join(value.split())
    return "".join("\\" + c if c in "\\`*_{}[]<>|#" else c for c in flat)
