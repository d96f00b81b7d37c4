"""What a run writes down: `metrics.jsonl`, a line of JSON for each thing that happened."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bonsaigan.config import read_bounded
from bonsaigan.durable import open_to_add
from bonsaigan.errors import ConfigError

HISTORY_MAX_BYTES = 1 << 30
STEP_MAX = 2**53


def add_line(path: Path, line: dict[str, object]) -> None:
    """Write a line at the end."""
    with open_to_add(path, "ab") as file:
        file.write(json.dumps(line).encode() + b"\n")


def end_half_line(path: Path) -> None:
    """End the line that a process left unfinished when it was killed: it would spoil the next one as well."""
    if path.exists() and path.stat().st_size:
        with open_to_add(path, "r+b") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def read_history(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl` that count, in order; none if there is no such file.

    A process that was killed may leave half a line, and lines of steps that the run went through again
    afterwards, from its last saved state. Half lines are left out, and so are lines that a later one undid by
    starting again from a lower step.
    """
    try:
        whole = read_bounded(path, limit_bytes=HISTORY_MAX_BYTES)
    except ConfigError:
        return []
    return _without_undone(_parsed(whole.splitlines()))


def _parsed(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for text in lines:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and type(line.get("step")) is int and 0 <= line["step"] < STEP_MAX:
            yield line


def _without_undone(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    for line in lines:
        while kept and kept[-1]["step"] > line["step"]:
            kept.pop()
        kept.append(line)
    return kept
