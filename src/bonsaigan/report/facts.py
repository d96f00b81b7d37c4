"""What a run's folder says, read without trusting it: anything may be missing, damaged or a stranger's."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bonsaigan import runs
from bonsaigan.config import Budget, read_json
from bonsaigan.errors import ConfigError
from bonsaigan.training.checkpoint import Progress
from bonsaigan.training.history import read_history

TEXT_MAX, NUMBER_MAX = 2000, 1e15
REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that make a name read as another."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One line of `metrics.jsonl` with numbers."""

    step: int
    """Training step."""
    train_sec: float
    """Seconds of training until then."""
    values: dict[str, float]
    """The finite numbers of the line, by name."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that `training.health` noticed."""

    name: str
    """Its short name."""
    since_step: int | None
    """Since when."""
    what: str
    """What was seen, a sentence."""
    advice: str
    """What to do, a sentence."""
    over: bool
    """Whether it has passed."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A run's folder."""

    folder: Path
    """Where."""
    config: dict[str, Any]
    """`config.json`; empty when the run was not trained here."""
    data: dict[str, Any]
    """`data.json`."""
    spec: dict[str, Any]
    """`generator.json` of the best moment, or the latest."""
    metrics: dict[str, Any]
    """`metrics.json`; empty before an evaluation."""
    steps: list[Moment]
    """Lines of kind `step`, in order."""
    evaluations: list[Moment]
    """Lines of kind `evaluation`, in order."""
    findings: list[Finding]
    """The last word on each finding, those that are not over first."""
    begin: dict[str, Any]
    """The last line of kind `begin`: versions and device."""
    moments: list[Moment]
    """All lines with a step, in order."""
    ended: bool
    """Whether training came to its end, before its budget's if `--patience` said so."""

    @property
    def trained_here(self) -> bool:
        """Whether anything here says so; each of the three may be damaged."""
        return bool(self.config or self.moments or self.metrics)

    @property
    def last(self) -> Moment | None:
        """The last of them."""
        return self.moments[-1] if self.moments else None

    @property
    def best(self) -> Moment | None:
        """The evaluation with the lowest KID, or a killed process's, if it was kept and is lower."""
        scored = [m for m in self.evaluations if "kid" in m.values]
        kid, step = number(self.spec, "scores", "kid"), integer(self.spec, "step")
        if self.config and kid is not None and step is not None and step not in [m.step for m in scored]:
            sec = max((m.train_sec for m in self.moments if m.step <= step), default=0.0)
            scored.append(Moment(step=step, train_sec=sec, values={"kid": kid}))
        return min(scored, key=lambda m: m.values["kid"], default=None)

    @property
    def scored(self) -> dict[str, Any]:
        """`metrics` unless they are of another moment than the generator that `spec` is of; else empty."""
        scored, newest = number(self.metrics, "step"), number(self.spec, "step")
        return self.metrics if None in (scored, newest) or scored == newest else {}

    @property
    def done_share(self) -> float | None:
        """How much of the training is done, 0 to 1; None when it is not known."""
        if self.ended:
            return 1.0
        try:
            budget = Budget(**mapping(self.config, "budget"))
            if self.last is None:
                return 0.0
            seen = round(self.last.values.get("kimg", 0.0) * 1000)
            progress = Progress(step=self.last.step, seen_nimg=seen, train_sec=self.last.train_sec)
        except (TypeError, ConfigError):
            return None
        return min(1.0, progress.done_share(budget))

    def seconds_at(self, step: int) -> float | None:
        """Seconds of training until a step that has a line."""
        return next((m.train_sec for m in self.moments if m.step == step), None)


def read_facts(folder: Path, *, with_data: bool = True) -> Facts:
    """Read what is there; what cannot be read counts as not there.

    `data.json` names every picture: of a large set it takes a while, which `with_data` can spare.
    """
    lines = _read_lines(folder / runs.METRICS_FILE)
    best = folder / runs.BEST_DIR / runs.GENERATOR_FILE
    moments = [_moment(line) for line in lines]
    return Facts(
        folder=folder,
        config=_read(folder / runs.CONFIG_FILE),
        data=_read(folder / runs.DATA_FILE, limit_bytes=runs.DATA_MAX_BYTES) if with_data else {},
        spec=_read(best if best.is_file() else folder / runs.GENERATOR_FILE),
        metrics=_read(folder / runs.SCORES_FILE),
        steps=[m for m, line in zip(moments, lines) if line.get("kind") == "step"],
        evaluations=[m for m, line in zip(moments, lines) if line.get("kind") == "evaluation"],
        findings=_findings([line for line in lines if line.get("kind") == "health"]),
        begin=next((line for line in reversed(lines) if line.get("kind") == "begin"), {}),
        moments=moments,
        ended=bool(lines) and lines[-1].get("kind") == "end",
    )


def mapping(raw: Any, *keys: str) -> dict[str, Any]:
    """The object under keys, or an empty one."""
    value = _under(raw, keys)
    return value if isinstance(value, dict) else {}


def items(raw: Any, *keys: str) -> list[Any]:
    """The list under keys, or an empty one."""
    value = _under(raw, keys)
    return value if isinstance(value, list) else []


def number(raw: Any, *keys: str) -> float | None:
    """The number under keys, or None when there is none that a run could have."""
    value = _under(raw, keys)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < NUMBER_MAX else None


def integer(raw: Any, *keys: str) -> int | None:
    """The whole number under keys, every digit of it, or None."""
    value = _under(raw, keys)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 64 else None


def text(raw: Any, *keys: str) -> str:
    """The text under keys with nothing in it that could not be shown as it is; empty when there is none."""
    value = _under(raw, keys)
    return clean(value) if isinstance(value, str) else ""


def clean(value: str) -> str:
    """Text with control characters, halves of characters and changes of direction made visible."""
    shown = re.sub(r"[\t\r\n]+", " ", value[:TEXT_MAX])
    return "".join(
        "\ufffd" if unicodedata.category(c) in ("Cc", "Cs") or c in REORDERING else c for c in shown
    )


def _under(raw: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        if not isinstance(raw, dict):
            return None
        raw = raw.get(key)
    return raw


def _read(path: Path, *, limit_bytes: int = 16 << 20) -> dict[str, Any]:
    try:
        return mapping(read_json(path, limit_bytes=limit_bytes))
    except ConfigError:
        return {}


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines that count, the last of each kind and step, in the order in which they were written."""
    lines: dict[tuple[str, int, str], dict[str, Any]] = {}
    for line in read_history(path):
        if number(line, "train_sec") is not None:
            key = (text(line, "kind"), line["step"], text(line, "finding"))
            lines.pop(key, None)
            lines[key] = line
    return list(lines.values())


def _moment(line: dict[str, Any]) -> Moment:
    values = {key: value for key in line if (value := number(line, key)) is not None}
    return Moment(step=int(line["step"]), train_sec=float(line["train_sec"]), values=values)


def _findings(lines: list[dict[str, Any]]) -> list[Finding]:
    last = {text(line, "finding"): line for line in lines}
    found = [
        Finding(
            name=name,
            since_step=integer(line, "since_step"),
            what=text(line, "what"),
            advice=text(line, "advice"),
            over=line.get("over") is True,
        )
        for name, line in last.items()
        if name
    ]
    return sorted(found, key=lambda finding: finding.over)
