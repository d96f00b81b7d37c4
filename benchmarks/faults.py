"""The fault suite, and the table that docs/faults.md has of it.

    python benchmarks/faults.py [--table-only]

Runs every test of tests/test_faults.py, writes what they noted to benchmarks/results/faults.json, and the
table into docs/faults.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from _result import RESULTS, write

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "faults.md"
BEGIN, END = "<!-- table: benchmarks/faults.py -->", "<!-- end of table -->"


def main() -> None:
    """Run the suite unless told not to, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table-only", action="store_true", help="make the table of the results there are")
    if not parser.parse_args().table_only:
        _run()
    notes = json.loads((RESULTS / "faults.json").read_text(encoding="utf-8"))["faults"]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table(notes)}{END}{after}", encoding="utf-8")


def table(notes: list[dict[str, str]]) -> str:
    """Markdown of the notes, in the suite's order; faults that end alike share a row."""
    faults: dict[tuple[str, ...], list[str]] = {}
    for note in notes:
        fault, *end = (
            note[name].replace("|", "\\|").replace("\n", " ") for name in ("fault", "lost", "seen", "then")
        )
        faults.setdefault(tuple(end), []).append(fault)
    lines = ["| Fault | What was lost | What you see | What comes next |", "|---|---|---|---|"]
    lines += [f"| {'<br>'.join(alike)} | {' | '.join(end)} |" for end, alike in faults.items()]
    return "\n".join(lines) + "\n"


def _run() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "notes.json"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "", "-p", "no:xdist"]  # one process, one table
        done = subprocess.run(
            [*command, "tests/test_faults.py"],
            cwd=ROOT,
            env={**os.environ, "BONSAIGAN_FAULTS": str(path)},
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.returncode)
        write("faults", {"faults": json.loads(path.read_text(encoding="utf-8"))}, show=False)


if __name__ == "__main__":
    main()
