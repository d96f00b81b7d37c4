"""One watch for each way in which a run goes wrong: lines of `metrics.jsonl` in, a finding out.

Where the limits come from is told, with numbers, in benchmarks/LOG.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from bonsaigan.config import TrainConfig

Line = Mapping[str, Any]

NOT_FINITE = "not finite"
NUMBER_MAX = 1e15
"""Nothing that is measured comes near it; what does is a stranger's."""

LASTS_TIMES = 2
"""A state must have been seen so often in a row before anything is said."""
LASTS_STEPS = 250
"""What is seen at every look must have lasted so many steps as well: young runs pass through much."""
EQUAL, EQUAL_OVER = 0.25, 0.35
"""Spread of generated pictures' colours over the photographs': under the first they are all but equal, over
the second they are not any more."""
FALLEN, FALLEN_OVER = 0.65, 0.75
"""The same for spread and diversity, over what they had been."""
WON_LOSS, WON_LOSS_OVER = 0.015, 0.03
"""The same for the discriminator's mean loss, over what guessing costs on one scale."""
WON_ACCURACY, WON_ACCURACY_OVER = 0.99, 0.97
"""The same for the share of pictures it is right about: at least this, and under that not any more."""
LEAK_SHARE, LEAK_SHARE_OVER, LEAK_SHARE_MAX = 0.4, 0.25, 1.5
"""How far on the way from the photographs to augmented ones generated pictures lie if augmentation leaks."""
LEAK_LIKENESS, LEAK_LIKENESS_OVER = 0.7, 0.6
"""And how much of their difference from the photographs is of that kind, as a cosine."""
STALLED_EVALUATIONS, STALLED_SHARE = 5, 1 / 3
"""A run stalls if its best KID is so many evaluations old, and so large a share of its steps."""
BETTER_SHARE, BETTER_KID = 0.05, 0.001
"""A KID counts as better if it is lower by this share of the best, and by this much."""
GOOD_KID = 0.04
"""Under this generated pictures are close to the photographs (`evaluation.scores`)."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is wrong with a run."""

    name: str
    """`collapse`, `discriminator wins`, `augmentation leaks`, `stalled` or `not finite`."""
    since_step: int
    """The step since which it has been so."""
    what: str
    """What is seen, one sentence."""
    advice: str
    """What to try, one sentence."""


class Watch(Protocol):
    """Is told of every line; says what is wrong after it."""

    def observe(self, line: Line) -> None:
        """Take in a line, whose `step` is an int; lines that are of no interest are passed over."""
        ...

    def finding(self) -> Finding | None:
        """What is wrong now."""
        ...


class CollapseWatch:
    """Generated pictures that are all but equal, or that differ ever less.

    Reads `spread` of lines of kind `look`, and `diversity` of kind `evaluation`: mean distances between
    generated pictures over those between photographs, of colours and of features.
    """

    def __init__(self, config: TrainConfig):
        self._config = config
        self._spread = 0.0
        self._equal = _Streak(needs_steps=True)
        self._falls = {"look": _Fall(needs_steps=True), "evaluation": _Fall(needs_steps=False)}

    def observe(self, line: Line) -> None:
        kind, step = line.get("kind"), line["step"]
        name = {"look": "spread", "evaluation": "diversity"}.get(str(kind))
        value = None if name is None else _number(line, name)
        if value is None:
            return
        self._falls[str(kind)].observe(step, value)
        if kind == "look":
            self._spread = value
            self._equal.observe(step, ill=value < EQUAL, sound=value > EQUAL_OVER)

    def finding(self) -> Finding | None:
        again = f"{_gentler(self._config)}, or with another --seed"
        if self._equal.stands:
            what = (
                f"Since step {self._equal.since} the generated pictures are all but equal: "
                f"their colours differ by {self._spread:.2f} of what the photographs' do."
            )
            return Finding(
                name="collapse", since_step=self._equal.since, what=what, advice=f"Begin again with {again}."
            )
        for kind, fall in self._falls.items():
            if fall.streak.stands:
                measure = "differences in colour" if kind == "look" else "diversity"
                what = (
                    f"Since step {fall.streak.since} the generator draws fewer different pictures: their "
                    f"{measure} came to {fall.best:.2f} of the photographs' before, now to {fall.value:.2f}."
                )
                advice = f"Stop, the best moment is kept; or begin again with {again}."
                return Finding(name="collapse", since_step=fall.streak.since, what=what, advice=advice)
        return None


class WinWatch:
    """A discriminator that is right about everything, at no loss: the generator learns nothing from it.

    Reads mean_steps, mean_loss_discriminator, mean_accuracy_real and mean_accuracy_fake of lines of kind
    `step`: means over the steps since the line before.
    """

    def __init__(self, config: TrainConfig, *, guessing_loss: float):
        self._config, self._guessing_loss = config, guessing_loss
        self._means = (0.0, 0.0, 0.0)
        self._streak = _Streak(needs_steps=True)

    def observe(self, line: Line) -> None:
        names = ("mean_loss_discriminator", "mean_accuracy_real", "mean_accuracy_fake", "mean_steps")
        values = [_number(line, name) for name in names]
        if line.get("kind") != "step" or None in values:
            return
        loss, real, fake, steps = (float(v or 0) for v in values)
        self._means = loss, real, fake
        share, right = loss / self._guessing_loss, min(real, fake)
        self._streak.observe(
            line["step"],
            ill=share < WON_LOSS and right > WON_ACCURACY,
            sound=share > WON_LOSS_OVER or right < WON_ACCURACY_OVER,
            began=line["step"] - int(steps) + 1,
        )

    def finding(self) -> Finding | None:
        if not self._streak.stands:
            return None
        loss, real, fake = self._means
        what = (
            f"Since step {self._streak.since} the discriminator wins outright: it is right about "
            f"{real:.0%} of the photographs and {fake:.0%} of the generated pictures, at a loss of "
            f"{loss:.3f} where guessing costs {self._guessing_loss:.2f} or more."
        )
        advice = f"Begin again with {_other_ways(self._config)}."
        return Finding(name="discriminator wins", since_step=self._streak.since, what=what, advice=advice)


class LeakWatch:
    """Generated pictures that look like augmented photographs.

    Reads, of lines of kind `evaluation`, leak_NAME and leak_NAME_likeness for each augmentation of the run:
    `vitals.Leak`.
    """

    def __init__(self, config: TrainConfig):
        self._augment = config.augment
        self._streaks = {name: _Streak(needs_steps=False) for name in config.augment}
        self._shares: dict[str, float] = {}

    def observe(self, line: Line) -> None:
        if line.get("kind") != "evaluation":
            return
        for name, streak in self._streaks.items():
            share, likeness = _number(line, f"leak_{name}"), _number(line, f"leak_{name}_likeness")
            if share is None or likeness is None:
                continue
            self._shares[name] = share
            streak.observe(
                line["step"],
                ill=LEAK_SHARE < share < LEAK_SHARE_MAX and likeness > LEAK_LIKENESS,
                sound=share < LEAK_SHARE_OVER or likeness < LEAK_LIKENESS_OVER,
            )

    def finding(self) -> Finding | None:
        names = [name for name, streak in self._streaks.items() if streak.stands]
        if not names:
            return None
        since = min(self._streaks[name].since for name in names)
        signs = " and ".join(LEAK_SIGNS.get(name, name) for name in names)
        far = " and ".join(f"{self._shares[name]:.1f}" for name in names)
        what = (
            f"Since step {since} augmentation leaks: generated pictures show {signs} "
            f"({far} of the way from photographs to augmented ones)."
        )
        left = [name for name in self._augment if name not in names]
        advice = (
            f'Stop, set "augment" to {json.dumps(left)} in the run\'s config.json and go on with '
            "bonsaigan resume; or begin again with more photographs."
        )
        return Finding(name="augmentation leaks", since_step=since, what=what, advice=advice)


LEAK_SIGNS = {"colour": "its changed colours", "translation": "its smeared borders"}


class StallWatch:
    """No better score for long. Reads `kid` of lines of kind `evaluation`."""

    def __init__(self, config: TrainConfig):
        self._config = config
        self._best: tuple[int, float] | None = None
        self._since_best: list[int] = []

    def observe(self, line: Line) -> None:
        kid, step = _number(line, "kid"), line["step"]
        if line.get("kind") != "evaluation" or kid is None:
            return
        # What is to be beaten stays until it is beaten clearly: small gains add up to one that counts, luck
        # does not.
        if self._best is None or kid < self._best[1] - max(BETTER_SHARE * abs(self._best[1]), BETTER_KID):
            self._best, self._since_best = (step, kid), []
        elif step > max([self._best[0], *self._since_best]):
            self._since_best.append(step)

    def finding(self) -> Finding | None:
        if self._best is None or len(self._since_best) < STALLED_EVALUATIONS:
            return None
        (since, kid), now = self._best, self._since_best[-1]
        if now - since < STALLED_SHARE * now:
            return None
        what = (
            f"Since step {since} no score was clearly better: {len(self._since_best)} evaluations on, "
            f"KID x1000 still stands at {kid * 1000:.1f}."
        )
        if kid < GOOD_KID:
            advice = "Stop here, the best moment is kept; more photographs are what would still help."
        else:
            advice = f"Begin again with {_other_ways(self._config)}."
        return Finding(name="stalled", since_step=since, what=what, advice=advice)


class FailureWatch:
    """A value that was not finite and ended training; passed when a resumed run goes beyond that step.

    Reads its own lines of kind `health`, and that there are later ones of kind `step`.
    """

    def __init__(self, config: TrainConfig):
        self._config = config
        self._failed: tuple[int, str] | None = None

    def failed(self, step: int, reason: str) -> None:
        """Take in that training ended, and why: a sentence."""
        self._failed = step, reason

    def observe(self, line: Line) -> None:
        kind, step = line.get("kind"), line["step"]
        if kind == "health" and line.get("finding") == NOT_FINITE:
            self._failed = None if line.get("over") else (step, str(line.get("what")))
        elif kind == "step" and self._failed is not None and step > self._failed[0]:
            self._failed = None

    def finding(self) -> Finding | None:
        if self._failed is None:
            return None
        step, reason = self._failed
        lower = " and --precision fp32" if self._config.precision != "fp32" else ""
        advice = (
            "The state saved before is kept, but resume would meet it again: take its networks over by "
            f"train --init, with {_gentler(self._config)}{lower}."
        )
        return Finding(name=NOT_FINITE, since_step=step, what=reason, advice=advice)


# ---------------------------------------------------------------------------------------------------------


@dataclass
class _Streak:
    """Whether a state has lasted. Between its two limits it neither begins nor ends."""

    needs_steps: bool
    """Whether it must have lasted `LASTS_STEPS` too."""
    since: int = 0
    """Where it began."""
    stands: bool = False
    """Whether it has lasted."""
    _seen: list[int] = field(default_factory=list)

    def observe(self, step: int, *, ill: bool, sound: bool, began: int | None = None) -> None:
        """Take in what a step shows; one that was seen already counts once."""
        if ill:
            if not self._seen:
                self.since = step if began is None else began
            if step not in self._seen[-1:]:
                self._seen.append(step)
            lasted = not self.needs_steps or step - self.since + 1 >= LASTS_STEPS
            self.stands = self.stands or (len(self._seen) >= LASTS_TIMES and lasted)
        elif sound or not self.stands:
            self._seen, self.stands = [], False


class _Fall:
    """Whether a value has fallen well below what it had been."""

    def __init__(self, *, needs_steps: bool):
        self.best, self.value = 0.0, 0.0
        self.streak = _Streak(needs_steps=needs_steps)
        self._step = -1

    def observe(self, step: int, value: float) -> None:
        if step == self._step:
            return
        self._step = step
        # The best it kept up for two times in a row, and no more than the photographs' own: pictures of noise
        # differ by more.
        kept = min(self.value, value, 1.0)
        self.value = value
        self.streak.observe(step, ill=value < FALLEN * self.best, sound=value > FALLEN_OVER * self.best)
        self.best = max(self.best, kept)


def _number(line: Line, name: str) -> float | None:
    value = line.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < NUMBER_MAX:
        return None
    return float(value)


def _gentler(config: TrainConfig) -> str:
    return f"--lr {config.optimizer.generator_lr / 2:g} or --batch {min(config.batch * 2, 4096)}"


def _other_ways(config: TrainConfig) -> str:
    recipe = "" if config.recipe == "projected" else ", with --recipe projected"
    return f"{_gentler(config)}{recipe}, or with more photographs"
