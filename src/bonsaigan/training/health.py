"""The health of a run, in words: what it writes down → what is wrong, since when, and what to try.

`Health` reads the lines of `metrics.jsonl`, one after the other, and nothing else. So what it says of a run
that was resumed is what it would have said of one that was not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bonsaigan.training.watches import (
    CollapseWatch,
    FailureWatch,
    Finding,
    LeakWatch,
    Line,
    StallWatch,
    Watch,
    WinWatch,
)

if TYPE_CHECKING:
    from bonsaigan.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Change:
    """A finding that is new, or one that has passed."""

    finding: Finding
    """Which."""
    over: bool
    """Whether it has passed."""

    def line(self) -> dict[str, Any]:
        """What `metrics.jsonl` keeps of it."""
        found = self.finding
        return {
            "kind": "health",
            "finding": found.name,
            "since_step": found.since_step,
            "what": found.what,
            "advice": found.advice,
            "over": self.over,
        }


class Health:
    """Is told of a run's lines in their order; says what is new and what has passed."""

    def __init__(self, config: TrainConfig, *, guessing_loss: float):
        """
        Args:
            config: the run's settings, for the advice.
            guessing_loss: the discriminator's loss on one scale when it says 0 of every picture.
        """
        self._failure = FailureWatch(config)
        self._watches: tuple[Watch, ...] = (
            self._failure,
            CollapseWatch(config),
            WinWatch(config, guessing_loss=guessing_loss),
            LeakWatch(config),
            StallWatch(config),
        )
        self.standing: list[Finding] = []
        """What is wrong now, newly worded at every line."""

    def observe(self, line: Line) -> list[Change]:
        """Take in a line.

        Args:
            line: as `metrics.jsonl` has it; `watches.py` tells what is read of it. What is missing or not
                finite is passed over.

        Returns:
            What has changed by it.
        """
        if isinstance(line.get("step"), int):
            for watch in self._watches:
                watch.observe(line)
        return self._compare()

    def failed(self, step: int, reason: str) -> list[Change]:
        """Take in that a value that is not finite ended training at a step, and how that was said."""
        self._failure.failed(step, reason)
        return self._compare()

    def catch_up(self, lines: Iterable[Line]) -> list[Change]:
        """Take in all that a run had written when it was resumed.

        Returns:
            What its lines of kind `health` do not say yet: a process may be killed between two lines.
        """
        said: dict[str, Finding] = {}
        for line in lines:
            self.observe(line)
            if line.get("kind") == "health":
                name = str(line.get("finding"))
                said.pop(name, None)
                if line.get("over") is False:
                    said[name] = _finding_of(line)
        now = {finding.name: finding for finding in self.standing}
        passed = [Change(finding=finding, over=True) for name, finding in said.items() if name not in now]
        return passed + [Change(finding=f, over=False) for name, f in now.items() if name not in said]

    def _compare(self) -> list[Change]:
        before = {finding.name: finding for finding in self.standing}
        self.standing = [finding for watch in self._watches if (finding := watch.finding()) is not None]
        now = {finding.name: finding for finding in self.standing}
        passed = [Change(finding=f, over=True) for name, f in before.items() if name not in now]
        return passed + [Change(finding=f, over=False) for name, f in now.items() if name not in before]


def _finding_of(line: Line) -> Finding:
    since = line.get("since_step")
    return Finding(
        name=str(line.get("finding")),
        since_step=since if isinstance(since, int) else 0,
        what=str(line.get("what", "")),
        advice=str(line.get("advice", "")),
    )
