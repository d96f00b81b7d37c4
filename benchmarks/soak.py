"""An hour's training, watched from outside: does it keep to its memory and its open files?

    python benchmarks/soak.py --data caltech101:bonsai --archive caltech-101.zip [--minutes 60]

Notes the process's own memory, its open files and its threads every ten seconds, and says how far they moved
from the first half of the run (after a warm-up) to the second. Writes results/soak.json. Linux only.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _result

EVERY_SEC, WARM_UP_SHARE = 10.0, 0.1


def main() -> None:
    """Train, watch, and compare the halves."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="demo:bonsai")
    parser.add_argument("--archive")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--keep", type=Path, help="folder for the run; a temporary one without")
    asked = parser.parse_args()
    asked.data, asked.archive = _result.absolute(asked.data), _result.absolute(asked.archive)
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "bonsaigan", "train", asked.data, "--run", "soak"]
        command += ["--minutes", str(asked.minutes)]
        command += ["--archive", asked.archive] if asked.archive else []
        with (folder / "soak.log").open("w") as log:
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
            watched = watch(process)
        if process.returncode:
            raise SystemExit((folder / "soak.log").read_text())
    steady = watched[int(len(watched) * WARM_UP_SHARE) :]
    first, second = steady[: len(steady) // 2], steady[len(steady) // 2 :]
    moved = {
        name: {
            half: statistics.median(sample[name] for sample in samples)
            for half, samples in (("first_half", first), ("second_half", second))
        }
        | {"highest": max(sample[name] for sample in watched)}
        for name in ("own_mib", "open_files", "threads")
    }
    _result.write("soak", {"data": asked.data, "minutes": asked.minutes, "median": moved, "samples": watched})


def watch(process: subprocess.Popen[bytes]) -> list[dict[str, float]]:
    """Memory in MiB that is the process's own, open files and threads, until it ends."""
    place, started, found = Path(f"/proc/{process.pid}"), time.monotonic(), []
    while process.poll() is None:
        try:
            status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
            sample = {
                "at_sec": round(time.monotonic() - started),
                "own_mib": int(status["RssAnon"].split()[0]) >> 10,
                "open_files": sum(1 for _ in (place / "fd").iterdir()),
                "threads": int(status["Threads"]),
            }
        except (OSError, KeyError):  # it ended meanwhile
            break
        found.append(sample)
        time.sleep(EVERY_SEC)
    process.wait()
    return found


if __name__ == "__main__":
    main()
