"""Numbers and measures in words."""

from __future__ import annotations

EXPLAINED = {
    "kid": "How far the new pictures, as a whole, are from the real ones. 0 is no difference. With few "
    "pictures this is the number to trust.",
    "frechet": "The same question by an older measure. It falls as sets grow: compare it only between sets "
    "of one size.",
    "precision": "Share of new pictures that lie among the real ones.",
    "recall": "Share of real pictures that lie among the new ones.",
    "density": "How thickly real pictures lie around a new one. About 1 is like real; above 1 it keeps to "
    "what is usual.",
    "coverage": "Share of real pictures that have a new one near them.",
    "diversity": "How different new pictures are from each other, where real ones have 1. Well below 1 it "
    "repeats itself.",
}
"""What each measure of `evaluation.scores` says, for people."""
LABELS = {"kid": "KID ×1000", "frechet": "Fréchet distance"}
SHARES = ("precision", "recall", "coverage")
TIMES = ((3 * 3600, 3600, "h", "hours"), (90, 60, "min", "minutes"), (0, 1, "s", "seconds"))
"""From so many seconds on: seconds of the unit, its short and its long name."""


def count(value: float) -> str:
    """A whole number with its thousands apart."""
    return f"{round(value):,}"


def number(value: float, *, digits: int = 3) -> str:
    """A number of so many digits, without an exponent where people would not write one."""
    if value == 0 or abs(value) < 10**-digits:
        return "0"
    text = f"{value:.{digits}g}"
    if "e" in text:
        text = f"{value:,.0f}" if abs(value) >= 1 else f"{value:.{digits}f}"
    return text.replace("-", "−")


def share(value: float) -> str:
    """A share of 1 as percent."""
    return f"{value:.0%}".replace("-", "−")


def span(seconds: float) -> str:
    """A time, in the unit that people would use."""
    _, unit_sec, short, _ = _unit(seconds)
    return f"{_in_unit(seconds, unit_sec)} {short}"


def span_of(seconds: float, total_sec: float) -> str:
    """A time out of a longer one, both in the unit of the longer."""
    _, unit_sec, _, long = _unit(total_sec)
    return f"{_in_unit(seconds, unit_sec)} of {_in_unit(total_sec, unit_sec)} {long}"


def measure(name: str, value: float) -> str:
    """A value of one of `EXPLAINED`."""
    if name in SHARES:
        return share(value)
    return _fixed(value, decimals=2) if name in ("density", "diversity") else distance(name, value)


def distance(name: str, value: float) -> str:
    """KID, times 1000, or a Fréchet distance, with one decimal where it is small."""
    value *= 1000 if name == "kid" else 1
    return _fixed(value, decimals=1 if abs(value) < 99.95 else 0)


def plus_minus(name: str, value: float, spread: float) -> str:
    """A value and its standard deviation."""
    spread_shown = f"{round(spread * 100)}" if name in SHARES else measure(name, spread)
    return f"{measure(name, value)} ± {spread_shown}"


def _fixed(value: float, *, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    return (text[1:] if float(text.replace(",", "")) == 0 and text[0] == "-" else text).replace("-", "−")


def _unit(seconds: float) -> tuple[int, int, str, str]:
    return next(unit for unit in TIMES if seconds >= unit[0] or unit[0] == 0)


def _in_unit(seconds: float, unit_sec: int) -> str:
    value = seconds / unit_sec
    return f"{value:.1f}" if unit_sec > 1 and value < 20 else f"{value:.0f}"
