"""A set larger than one would keep in memory: 100,000 pictures prepared and trained on, and what that takes.

    python benchmarks/large.py [--count 100000]

Pictures of noise on gradients, 64 px, are packed into a zip, prepared, found again, and trained on for a few
steps with a holdout, samples and a score; each in a process of its own. Memory is what the processes own: the
pages of the prepared set, which the system takes back when it needs them, are counted apart. Writes
benchmarks/results/large-COUNT.json.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from _result import write
from PIL import Image

STEPS, SIDE_PX = 17, 64
CHILD = """
import json, sys, threading, time
peak = {"own": 0, "mapped": 0}
def watch():
    while True:
        fields = dict(line.split(":", 1) for line in open("/proc/self/status") if line.startswith("Rss"))
        for name, key in (("own", "RssAnon"), ("mapped", "RssFile")):
            peak[name] = max(peak[name], int(fields[key].split()[0]))
        time.sleep(0.05)
threading.Thread(target=watch, daemon=True).start()
from bonsaigan.training import session
from bonsaigan.conclude import conclude
what, data, steps, run = sys.argv[1:]
started = time.monotonic()
wishes = session.Wishes(size="64", steps=int(steps), holdout=0.01, device="cpu")
plan = session.plan(data, wishes)
if what != "prepare":
    session.start(plan, run=run, device="cpu", conclude=conclude if what == "score" else None)
sec = time.monotonic() - started
print(json.dumps({"sec": round(sec, 1), **{f"{k}_peak_mib": v >> 10 for k, v in peak.items()}}))
"""


def main() -> None:
    """Make the pictures, and measure each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "set.zip"
        started = time.monotonic()
        _pack(data, count)
        packed_sec = time.monotonic() - started
        os.environ["BONSAIGAN_CACHE"] = str(Path(folder) / "cache")
        parts = {
            name: _measured(what, data, Path(folder) / name)
            for name, what in (
                ("prepare", "prepare"),
                ("find again", "prepare"),
                ("train", "train"),
                ("train and score", "score"),
            )
        }
        prepared = sum(path.stat().st_size for path in Path(folder, "cache").rglob("pictures.npy"))
    write(
        f"large-{count}",
        {
            "pictures": count,
            "size_px": SIDE_PX,
            "prepared_mib": prepared >> 20,
            "pack_sec": round(packed_sec, 1),
            "steps": STEPS,
            "parts": parts,
        },
    )


def _pack(path: Path, count: int) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for seed in range(count):
            rng = np.random.default_rng(seed)
            coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            buffer = io.BytesIO()
            coarse.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC).save(buffer, "jpeg", quality=90)
            archive.writestr(f"{seed:06d}.jpg", buffer.getvalue())


def _measured(what: str, data: Path, run: Path) -> dict[str, float]:
    command = [sys.executable, "-c", CHILD, what, str(data), str(STEPS), str(run)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
