"""The page's curves: what each chart shows of `metrics.jsonl`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bonsaigan.evaluation.embedding import NETWORK
from bonsaigan.report import facts as read
from bonsaigan.report.charts import Axis, Chart, Series, draw, linear_axis, log_axis
from bonsaigan.report.facts import Facts, Moment
from bonsaigan.report.words import distance, span

SHARE_AXIS = Axis(low=0.0, high=1.0, ticks=(0.0, 0.25, 0.5, 0.75, 1.0))
KID_LOWEST = 0.5
"""Where the logarithmic axis of KID ×1000 begins at the latest; scores vary by more."""


def curves(facts: Facts) -> list[Chart]:
    """The charts there are values for, KID first."""
    charts = (kid(facts), losses(facts), accuracies(facts), diversity(facts))
    return [chart for chart in charts if chart is not None and chart.lines]


def kid(facts: Facts) -> Chart | None:
    """KID over time, the best moment, and the level of real against real."""
    points = [(sec, value * 1000) for sec, value in _points(facts.evaluations, "kid")]
    best = facts.best
    if not points or best is None:
        return None
    scores = read.mapping(facts.metrics, "scores")
    if read.text(scores, "network") != NETWORK:  # another scale than the curve's
        scores = {}
    floor, spread = read.number(scores, "floor", "kid"), read.number(scores, "floor_std", "kid")
    level = None if floor is None or spread is None else max((floor + spread) * 1000, KID_LOWEST)
    values = [value for _, value in points] + ([] if level is None else [level])
    lowest = best.values["kid"] * 1000
    return draw(
        [Series(name="KID ×1000", points=points)],
        title="KID ×1000",
        note="How far the new pictures are from the real ones; less is better. The axis is logarithmic.",
        total_sec=_total(facts),
        axis=log_axis(values, lowest=KID_LOWEST),
        best=(best.train_sec, lowest),
        best_label=f"best: {distance('kid', best.values['kid'])} after {span(best.train_sec)}",
        floor=level,
        floor_label="as real against real",
        below_is_good=True,
    )


def losses(facts: Facts) -> Chart | None:
    """What both players minimise."""
    names = {"generator": "loss_generator", "discriminator": "loss_discriminator"}
    return _chart(
        facts,
        [Series(name=name, points=_points(facts.steps, key)) for name, key in names.items()],
        title="Losses",
        note="Two players against each other: neither has to fall. One that runs away is a bad sign.",
    )


def accuracies(facts: Facts) -> Chart | None:
    """How often the discriminator is right."""
    names = {"real": "accuracy_real", "generated": "accuracy_fake"}
    return _chart(
        facts,
        [Series(name=f"on {name}", points=_points(facts.evaluations, key)) for name, key in names.items()],
        title="Discriminator right",
        note="How often it tells real from generated, on up to 50 of each. At 50% it can only guess.",
        axis=SHARE_AXIS,
        percent=True,
    )


def diversity(facts: Facts) -> Chart | None:
    """How different the new pictures are from each other."""
    points = _points(facts.evaluations, "diversity")
    return _chart(
        facts,
        [Series(name="new pictures", points=points)],
        title="Diversity",
        note="How different new pictures are from each other. Real ones have 1.",
        axis=linear_axis([value for _, value in points], include=(0.0, 1.0)) if points else None,
        floor=1.0,
        floor_label="as real ones",
    )


def _chart(facts: Facts, series: Sequence[Series], *, axis: Axis | None = None, **more: Any) -> Chart | None:
    values = [value for one in series for _, value in one.points]
    if not values:
        return None
    return draw(series, total_sec=_total(facts), axis=axis or linear_axis(values), **more)


def _points(moments: Sequence[Moment], key: str) -> list[tuple[float, float]]:
    return [(m.train_sec, m.values[key]) for m in moments if key in m.values]


def _total(facts: Facts) -> float:
    return facts.last.train_sec if facts.last is not None else 0.0
