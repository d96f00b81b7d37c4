"""Peak memory of training at 64 pixels, samples and a score included: a process of its own for each batch.

python benchmarks/memory.py --batch 8 16
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import _result

STEPS = 17
"""The looks at steps 10 and 15, a score at the end."""
CHILD = """
import resource, sys
import bonsaigan
bonsaigan.train("demo:bonsai:128", run=sys.argv[1], steps=int(sys.argv[2]), batch=int(sys.argv[3]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def main() -> None:
    """Train a few steps with each batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 16])
    peaks = {}
    for batch in parser.parse_args().batch:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", CHILD, str(Path(folder) / "run"), str(STEPS), str(batch)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[f"batch {batch}"] = int(done.stdout.split()[-1])
    _result.write("memory", {"peak_mib": peaks, "steps": STEPS, "size_px": 64})


if __name__ == "__main__":
    main()
