"""Where benchmarks leave their numbers: one JSON a script, with the machine and the commit."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bonsaigan  # noqa: F401  # whoever imports this before torch has it settle how threads wait

if TYPE_CHECKING:
    from bonsaigan.config import TrainConfig

RESULTS = Path(__file__).parent / "results"


def write(name: str, data: dict[str, Any], *, show: bool = True) -> Path:
    """Write `data` to `benchmarks/results/NAME.json` beside the machine and the commit, and print it."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    text = json.dumps({**data, "machine": machine(), "commit": commit()}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")
    if show:
        print(text)
    return path


def settings(config: TrainConfig) -> dict[str, Any]:
    """A run's settings as JSON values; of a local archive only the name, for where it lay does not matter."""
    values = dataclasses.asdict(config)
    archive = values["data"]["archive"]
    values["data"]["archive"] = archive and Path(archive).name
    return values


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, system and Python, and the day."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "processor": _processor(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def absolute(path: str | None) -> str | None:
    """A path that means the same in another folder; what is no path here stays as it is."""
    return str(Path(path).absolute()) if path and Path(path).exists() else path


def commit() -> str:
    """Short hash of the checked-out commit, with `+` where the package differs; `unknown` without git."""
    root = Path(__file__).parent.parent
    try:
        head = _git(root, "rev-parse", "--short", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "--", "src") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
