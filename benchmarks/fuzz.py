"""Thousands of damaged and hostile files for every loader: no crash, no side effect, bounded memory.

    python benchmarks/fuzz.py [--count 10000] [--loader NAME ...] [--first-seed 0]

Each loader runs in processes of its own, whose memory is limited and whose writes, programs and connections
are errors. An input that finds a fault is kept in tests/corpus/found. Writes benchmarks/results/fuzz.json,
where the results of the same loaders are replaced.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from _result import RESULTS, write

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
MEMORY_BYTES = 2 << 30
"""What a loader may take beyond what the process has at its start."""
INPUT_SEC = 20
PER_PROCESS, KEPT_MAX = 2500, 10


def main() -> None:
    """Fuzz each loader in turn."""
    from tests.fuzzing import LOADERS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--loader", nargs="+", choices=LOADERS, default=list(LOADERS))
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        _child(given.loader[0], first=int(given.child[0]), count=int(given.child[1]))
        return
    results = {name: _fuzz(name, first=given.first_seed, count=given.count) for name in given.loader}
    path = RESULTS / "fuzz.json"
    before = json.loads(path.read_text())["loaders"] if path.exists() else {}
    loaders = {name: (before | results)[name] for name in LOADERS if name in before | results}
    write("fuzz", {"memory_limit_mib": MEMORY_BYTES >> 20, "loaders": loaders})
    if any(result["faults"] for result in results.values()):
        raise SystemExit(1)


def _fuzz(loader: str, *, first: int, count: int) -> dict[str, Any]:
    """All inputs of a loader; a process that dies is started again behind the input that killed it."""
    started = time.monotonic()
    result: dict[str, Any] = {"inputs": 0, "read": 0, "refused": 0, "faults": [], "peak_mib": 0}
    seed, end = first, first + count
    while seed < end:
        part = min(PER_PROCESS, end - seed)
        command = [sys.executable, __file__, "--loader", loader, "--child", str(seed), str(part)]
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        lines = [json.loads(line) for line in child.stdout.splitlines()]
        summary = next((line for line in lines if "inputs" in line), None)
        result["faults"] += [line for line in lines if "fault" in line]
        if summary is None:  # a signal: the last input that was announced did it
            at = max((line["at"] for line in lines if "at" in line), default=seed)
            fault = {"seed": at, "fault": f"the process ended with status {child.returncode}"}
            _keep(loader, at)
            result["faults"].append(fault)
            result["inputs"] += at - seed + 1
            seed = at + 1
            continue
        for key in ("inputs", "read", "refused"):
            result[key] += summary[key]
        result["peak_mib"] = max(result["peak_mib"], summary["peak_mib"])
        seed += part
    result["sec"] = round(time.monotonic() - started, 1)
    print(f"{loader}: {result['inputs']} inputs, {len(result['faults'])} faults", file=sys.stderr)
    return result


def _child(loader: str, *, first: int, count: int) -> None:
    from tests import fuzzing

    os.environ["TMPDIR"] = tempfile.gettempdir()
    signal.signal(signal.SIGALRM, _too_long)
    warnings.simplefilter("ignore")  # Pillow's, of what becomes a finding
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder, "work")
        work.mkdir()
        os.chdir(folder)
        for which, name in enumerate(fuzzing.LOADERS[loader].files):
            fuzzing.try_one(loader, name, fuzzing.inputs(loader)[which], work)  # imports, before the limit
        start_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        limit = _address_bytes() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        counts = {"read": 0, "refused": 0}
        for seed in range(first, first + count):
            print(json.dumps({"at": seed}), flush=True)
            name, data = _input(loader, seed)
            signal.alarm(INPUT_SEC)
            try:
                counts["refused" if fuzzing.try_one(loader, name, data, work) else "read"] += 1
            except BaseException as error:
                signal.alarm(0)
                _keep(loader, seed)
                where = traceback.extract_tb(error.__traceback__)[-1]
                said = f"{type(error).__name__}: {error!s:.200} ({Path(where.filename).name}:{where.lineno})"
                print(json.dumps({"seed": seed, "file": name, "fault": said}), flush=True)
            signal.alarm(0)
            left = [path.name for path in (*work.iterdir(), *Path(folder).iterdir()) if path != work]
            if left:
                print(json.dumps({"seed": seed, "fault": f"left behind: {left}"}), flush=True)
                raise SystemExit(1)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start_kib
    print(json.dumps({"inputs": count, **counts, "peak_mib": peak_kib >> 10}), flush=True)


def _input(loader: str, seed: int) -> tuple[str, bytes]:
    from tests import fuzzing

    chance = random.Random(f"{loader} {seed}")
    names = fuzzing.LOADERS[loader].files
    which = chance.randrange(len(names))
    data = fuzzing.inputs(loader)[which]
    return names[which], fuzzing.mutate(data, chance, is_json=names[which].endswith((".json", ".jsonl")))


def _keep(loader: str, seed: int) -> None:
    from tests.fuzzing import CORPUS

    name, data = _input(loader, seed)
    folder = CORPUS / "found" / loader
    folder.mkdir(parents=True, exist_ok=True)
    if len(list(folder.iterdir())) < KEPT_MAX:
        (folder / f"{seed}.{name}").write_bytes(data)


def _too_long(_number: int, _frame: object) -> None:
    raise TimeoutError(f"more than {INPUT_SEC} seconds")


def _address_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
