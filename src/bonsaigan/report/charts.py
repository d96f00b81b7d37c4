"""Where the lines of a chart go: numbers in, coordinates out. The page's template draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 360, 216
LEFT, RIGHT, TOP, BOTTOM = 42, 12, 12, 30
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
POINTS_MAX = 300
"""Points of a line; more cannot be told apart."""
DOTS_MAX = 40
"""Up to so many points are drawn as dots too."""


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A place on an axis."""

    at: float
    """Where, in the drawing's units."""
    label: str
    """What stands there."""


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A point to be pointed at."""

    x: float
    """Where."""
    y: float
    """Where."""
    label: str
    """Its values in words."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart."""

    name: str
    """For the legend."""
    path: str
    """SVG path data."""
    dots: tuple[Dot, ...]
    """Its points, when they are few."""
    last: str
    """The last of them in words."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """All that the template needs."""

    title: str
    """What it shows."""
    note: str
    """How to read it, a sentence."""
    lines: tuple[Line, ...]
    """The lines."""
    x_ticks: tuple[Tick, ...]
    """Along the bottom."""
    y_ticks: tuple[Tick, ...]
    """Along the left."""
    x_unit: str
    """Of the bottom axis."""
    best: Dot | None = None
    """The best moment."""
    floor: Tick | None = None
    """A level to reach."""
    floor_height: float = 0.0
    """From the floor down to the bottom, when everything below it is as good."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A range of values on a length of the drawing."""

    low: float
    """Value at the start."""
    high: float
    """Value at the end."""
    ticks: tuple[float, ...]
    """Values to mark."""
    log: bool = False
    """Whether equal ratios are equal lengths."""

    def share(self, value: float) -> float:
        """Where a value lies, 0 at the start and 1 at the end; values outside lie at the ends."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)


@dataclass(frozen=True, kw_only=True)
class Series:
    """Values over time."""

    name: str
    """For the legend."""
    points: Sequence[tuple[float, float]] = field(default_factory=list)
    """(seconds, value), in order of time."""


def draw(
    series: Sequence[Series],
    *,
    title: str,
    note: str,
    total_sec: float,
    axis: Axis,
    percent: bool = False,
    best: tuple[float, float] | None = None,
    best_label: str = "",
    floor: float | None = None,
    floor_label: str = "",
    below_is_good: bool = False,
) -> Chart:
    """Lay out a chart of values over the time of training.

    Args:
        series: the lines, those without points left out.
        title: what it shows.
        note: how to read it.
        total_sec: the time at the right end.
        axis: the values.
        percent: whether values are shares.
        best: (seconds, value) of the best moment.
        best_label: its value in words.
        floor: a level to reach.
        floor_label: its name.
        below_is_good: whether everything below the floor is as good.
    """
    time, divisor, unit = time_axis(total_sec)

    def place(sec: float, value: float) -> tuple[float, float]:
        x = LEFT + PLOT_WIDTH * time.share(sec)
        return round(x, 1), round(TOP + PLOT_HEIGHT * (1 - axis.share(value)), 1)

    def dot(sec: float, value: float, label: str) -> Dot:
        x, y = place(sec, value)
        return Dot(x=x, y=y, label=label)

    def words(name: str, sec: float, value: float) -> str:
        return f"{name}: {tick_label(value, percent=percent)} at {sec / divisor:.3g} {unit}"

    lines = []
    for one in series:
        points = thin(one.points, POINTS_MAX)
        if not points:
            continue
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in (place(*point) for point in points))
        dots = (
            () if len(points) > DOTS_MAX else tuple(dot(sec, v, words(one.name, sec, v)) for sec, v in points)
        )
        lines.append(Line(name=one.name, path=path, dots=dots, last=words(one.name, *points[-1])))
    level = None if floor is None else place(0, floor)[1]
    return Chart(
        title=title,
        note=note,
        lines=tuple(lines),
        x_ticks=tuple(
            Tick(at=round(LEFT + PLOT_WIDTH * time.share(t), 1), label=tick_label(t / divisor))
            for t in time.ticks
        ),
        y_ticks=tuple(
            Tick(at=place(0, value)[1], label=tick_label(value, percent=percent)) for value in axis.ticks
        ),
        x_unit=unit,
        best=None if best is None else dot(*best, best_label),
        floor=None if level is None else Tick(at=level, label=floor_label),
        floor_height=TOP + PLOT_HEIGHT - level if level is not None and below_is_good else 0.0,
    )


def time_axis(total_sec: float) -> tuple[Axis, float, str]:
    """The axis of time from 0, the seconds in its unit, and the unit's name."""
    total_sec = max(total_sec, 1.0)
    divisor, unit = (3600, "hours") if total_sec > 3 * 3600 else (60, "minutes")
    if total_sec < 120:
        divisor, unit = 1, "seconds"
    ticks = tuple(t * divisor for t in even_ticks(0.0, total_sec / divisor, 5))
    return Axis(low=0.0, high=total_sec, ticks=ticks), divisor, unit


def linear_axis(values: Sequence[float], *, include: Sequence[float] = ()) -> Axis:
    """An axis from round number to round number around all values."""
    low, high = min((*values, *include)), max((*values, *include))
    if high - low < 1e-9 * max(abs(high), 1e-9):
        low, high = low - 0.5, high + 0.5
    step = _round_step((high - low) / 4)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    return Axis(low=low, high=high, ticks=even_ticks(low, high, 4))


def log_axis(values: Sequence[float], *, lowest: float) -> Axis:
    """An axis of equal ratios around all values; those below `lowest` lie at its start."""
    low = max(min(values) * 0.8, lowest)
    high = max(max(values) * 1.15, low * 4)
    marks = [m * 10.0**e for e in range(-9, 10) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    if len(marks) > 8:
        marks = [m for m in marks if f"{m:e}"[0] == "1"] or marks[::2]
    return Axis(low=low, high=high, ticks=tuple(marks), log=True)


def even_ticks(low: float, high: float, count: int) -> tuple[float, ...]:
    """Round numbers from low to high, about so many."""
    step = _round_step((high - low) / count)
    first = math.ceil(low / step - 1e-9)
    return tuple(i * step for i in range(first, math.floor(high / step + 1e-9) + 1))


def thin(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most so many points, evenly chosen, both ends among them."""
    return [points[i] for i in evenly(len(points), most)]


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of the places 0 to count - 1, evenly chosen, both ends among them."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def tick_label(value: float, *, percent: bool = False) -> str:
    """A value as an axis names it."""
    if percent:
        return f"{value:.0%}"
    return f"{value:,.4g}".replace("-", "−")


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if rough <= m * power * (1 + 1e-9))
