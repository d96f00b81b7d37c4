"""Coverage-guided fuzzing: inputs that reach new lines of our parsers and loaders are mutated further.

    pip install atheris
    python benchmarks/guided.py [--sec 60] [--loader NAME ...] [--corpus DIR]

Atheris (libFuzzer for Python) starts from the corpus of `tests/fuzzing.py` and its mutations, a process for
each file that a loader reads. `--corpus` keeps the inputs that reached something new, and goes on from them
the next time. An input that finds a fault is kept in tests/corpus/found. Writes results/guided.json.
"""

from __future__ import annotations

import argparse
import importlib
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _result import write

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
INPUT_SEC, MEMORY_MIB, INPUT_MAX_BYTES = 20, 3000, 1 << 16
OURS_SHARE = 0.5
"""Of the mutations; the rest are libFuzzer's."""


def main() -> None:
    """Fuzz each file of each loader in turn."""
    if sys.argv[1:2] == ["--child"]:  # before anything of ours is imported: it is watched
        loader, name, grown, sec = sys.argv[2:]
        _child(loader, name, Path(grown), sec=int(sec))
        return
    from tests.fuzzing import LOADERS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sec", type=int, default=60, help="for each file")
    parser.add_argument("--loader", nargs="+", choices=LOADERS, default=list(LOADERS))
    parser.add_argument("--corpus", type=Path, help="folder of the inputs that reached something new")
    given = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for loader in given.loader:
            for name in LOADERS[loader].files:
                grown = (given.corpus or Path(temporary)) / loader / name
                results[f"{loader}: {name}"] = _fuzz(loader, name, grown.absolute(), sec=given.sec)
    write("guided", {"sec_per_file": given.sec, "memory_limit_mib": MEMORY_MIB, "files": results})
    if any(result["faults"] for result in results.values()):
        raise SystemExit(1)


def _fuzz(loader: str, name: str, grown: Path, *, sec: int) -> dict[str, Any]:
    """One file of a loader; a fault ends its process, and its input is kept."""
    from tests.fuzzing import CORPUS

    grown.mkdir(parents=True, exist_ok=True)
    (grown / "original").write_bytes((CORPUS / name).read_bytes())
    with tempfile.TemporaryDirectory() as artifacts:
        command = [sys.executable, __file__, "--child", loader, name, str(grown), str(sec)]
        child = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=artifacts, check=False
        )
        said = child.stderr.decode("utf-8", "replace")
        kept = CORPUS / "found" / loader
        for path in Path(artifacts).iterdir():
            kept.mkdir(parents=True, exist_ok=True)
            (kept / f"{path.name[:20]}.{name}").write_bytes(path.read_bytes())
    faults = re.findall(r"=== Uncaught Python exception: ===\n(.*)|^(==\d+== ERROR: .*)", said, re.MULTILINE)
    reached = [int(count) for count in re.findall(r"^#\d+\s.*cov: (\d+)", said, re.MULTILINE)]
    inputs = re.findall(r"stat::number_of_executed_units: (\d+)", said)
    if child.returncode and not faults:
        raise SystemExit(said)
    found = {
        "inputs": int(inputs[0]) if inputs else 0,
        "branches_first": reached[0] if reached else 0,
        "branches": max(reached, default=0),
        "faults": [one or other for one, other in faults],
    }
    print(f"{loader}: {name}: {found}", file=sys.stderr)
    return found


def _child(loader: str, name: str, grown: Path, *, sec: int) -> None:
    atheris: Any = importlib.import_module("atheris")  # no dependency of ours: pip install it
    work = Path(tempfile.mkdtemp(dir=grown.parent))
    with atheris.instrument_imports(include=["bonsaigan"]):
        from tests import fuzzing

        fuzzing.try_one(loader, name, (fuzzing.CORPUS / name).read_bytes(), work)  # imports more
    is_json = name.endswith((".json", ".jsonl"))

    def one(data: bytes) -> None:
        fuzzing.try_one(loader, name, data, work)

    def mutated(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < OURS_SHARE:
            return fuzzing.mutate(data, chance, is_json=is_json)[:max_size]
        return atheris.Mutate(data, max_size)

    options = [
        f"-max_total_time={sec}",
        f"-timeout={INPUT_SEC}",
        f"-report_slow_units={INPUT_SEC}",
        f"-rss_limit_mb={MEMORY_MIB}",
    ]
    options += [f"-max_len={INPUT_MAX_BYTES}", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, str(grown)], one, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
