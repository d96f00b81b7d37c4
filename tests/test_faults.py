"""Every fault at every stage of a run: what was saved stays, and the next start works or says why not.

Each test notes the fault, what was lost and what the user sees. `benchmarks/faults.py` runs them all and
makes the table in docs/faults.md of their notes.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bonsaigan.runs import CHECKPOINT_DIR
from bonsaigan.training import checkpoint
from tests.faulty import Warm, said
from tests.tiny import assert_equal, make_photos

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks")

STEPS = 5
SETTINGS = ["--recipe", "dcgan", "--size", "32", "--steps", str(STEPS), "--batch", "4", "--width", "64"]
SETTINGS += ["--precision", "fp32", "--device", "cpu"]
TRAIN = ["train", "photos", *SETTINGS, "--run", "r"]
TRAINING = ("step", "samples", "evaluation", "saving", "renaming")
STAGES: dict[str, dict[str, Any]] = {
    "preparation": {"stage": "preparation"},
    "step": {"stage": "step", "call": 4},
    "samples": {"stage": "samples", "call": 3},
    "evaluation": {"stage": "evaluation", "call": 2},
    "saving": {"stage": "saving", "call": 3, "name": "state.json"},
    "renaming": {"stage": "renaming", "call": 3, "name": "checkpoint.writing"},
    "end": {"stage": "end"},
    "report": {"stage": "report"},
}
"""Stage → trap."""
IN_WORDS = {
    "download": "a download",
    "preparation": "preparation of the pictures",
    "step": "a training step",
    "samples": "drawing of samples",
    "evaluation": "an evaluation",
    "saving": "saving, between two files of a state",
    "renaming": "saving, between the two renames",
    "end": "the scores at the end",
    "report": "writing of the report",
}
SIGNALS = {"SIGKILL": "Killed (SIGKILL, power)", "SIGTERM": "SIGTERM", "SIGINT": "Ctrl-C"}
SAID = ("bonsaigan:", "not scored", "no report", "go on with", "warning")
"""How the lines begin that tell a user of a fault."""
slow = pytest.mark.slow

Note = Callable[..., None]


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    made = Warm()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def whole(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of a run that met no fault."""
    place = tmp_path_factory.mktemp("whole")
    make_photos(place / "photos")
    status, lines = warm.run(*TRAIN, "--no-evaluate", cwd=place)
    assert status == 0, lines
    return weights(place)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_photos(tmp_path / "photos")
    return tmp_path


@pytest.fixture(scope="module")
def note() -> Iterator[Note]:
    """Keeps what the tests found, for `benchmarks/faults.py`."""
    notes: list[dict[str, Any]] = []

    def add(*, fault: str, lost: str, seen: str, then: str) -> None:
        notes.append({"fault": fault, "lost": lost, "seen": seen, "then": then})

    yield add
    if path := os.environ.get("BONSAIGAN_FAULTS"):
        Path(path).write_text(json.dumps(notes, indent=2), encoding="utf-8")


def weights(place: Path) -> dict[str, torch.Tensor]:
    tensors, _, warning = checkpoint.load(place / "runs/r" / CHECKPOINT_DIR)
    assert warning is None
    return tensors


def moment(place: Path) -> dict[str, int]:
    """Steps that were saved, and done, when the trap sprang."""
    return json.loads((place / "moment.json").read_text())


def lost(place: Path) -> str:
    """What a fault cost; nothing that was saved may be gone."""
    before, folder = moment(place), place / "runs/r" / CHECKPOINT_DIR
    kept = checkpoint.load(folder)[1].step if checkpoint.exists(folder) else 0
    assert kept >= before["saved"], "a saved state is gone"
    return "nothing" if kept >= before["done"] else "the steps since the last save (here one); done again"


def how_it_ended(status: int, lines: list[str]) -> str:
    assert not any("Traceback" in line for line in lines), "\n".join(lines)
    if status < 0:
        return {signal.SIGKILL: "`Killed`", signal.SIGTERM: "`Terminated`"}[signal.Signals(-status)]
    told = [line for line in lines if line.startswith(SAID)]
    # Lines that say where something lies on this machine are no use to a reader.
    told = [re.sub(r"(?<=[ (])/\S+/(?=[^/\s]+(:|\s))", "…/", line.strip()) for line in told]
    return "; ".join(f"`{line}`" for line in told)


def go_on(warm: Warm, place: Path, *extra: str, **wishes: Any) -> str:
    """What a user does next: resume what is a run, else train again."""
    is_run = (place / "runs/r/config.json").exists()
    arguments = ["resume", "r", *extra] if is_run else [*TRAIN, *extra]
    status, lines = warm.run(*arguments, cwd=place, **wishes)
    assert status == 0, "\n".join(lines)
    return "`bonsaigan resume` ends with the same weights" if is_run else "the same command again works"


def stages_and_signals() -> Iterator[Any]:
    for stage in STAGES:
        for number in SIGNALS:
            quick = (stage, number) in (("renaming", "SIGKILL"), ("preparation", "SIGINT"))
            yield pytest.param(stage, number, marks=() if quick else slow)


@pytest.mark.parametrize(("stage", "number"), list(stages_and_signals()))
def test_stopped_at_every_stage(
    warm: Warm, place: Path, whole: dict[str, torch.Tensor], note: Note, stage: str, number: str
) -> None:
    scored = () if stage in ("preparation", "step", "saving", "renaming") else ("--evaluate",)
    arguments = [*TRAIN, *(scored or ("--no-evaluate",))]
    status, lines = warm.run(*arguments, cwd=place, trap={**STAGES[stage], "do": number})
    assert (place / "moment.json").exists(), f"{stage} was not reached"
    assert status == -signal.SIGKILL if number == "SIGKILL" else status in (0, 130, -signal.SIGTERM), lines
    if stage in TRAINING and number != "SIGKILL":
        assert status == 0
        assert "go on with: bonsaigan resume r" in lines
    what_was_lost = lost(place)
    then = go_on(warm, place) if (place / "runs/r/config.json").exists() else again(warm, place, arguments)
    assert_equal(whole, weights(place))
    assert not list((place / "cache/prepared").glob("*.part"))
    seen = how_it_ended(status, lines)
    assert seen, "nothing was said"
    note(fault=f"{SIGNALS[number]} during {IN_WORDS[stage]}", lost=what_was_lost, seen=seen, then=then)


def again(warm: Warm, place: Path, arguments: list[str]) -> str:
    status, lines = warm.run(*arguments, cwd=place)
    assert status == 0, "\n".join(lines)
    return "the same command again works"


@slow
@pytest.mark.parametrize("number", SIGNALS)
def test_stopped_during_a_download(warm: Warm, place: Path, note: Note, number: str) -> None:
    body = caltech_like(place / "photos")
    with serving(body) as (url, starts):
        wishes: dict[str, Any] = {
            "patch": {
                "bonsaigan.data.sources:CALTECH_URL": url,
                "bonsaigan.data.sources:CALTECH_MD5": hashlib.md5(body, usedforsecurity=False).hexdigest(),
                "bonsaigan.data.download:CHUNK_BYTES": 1 << 14,
            }
        }
        arguments = ["train", "caltech101:bonsai", *SETTINGS, "--no-evaluate", "--run", "r"]
        trap = {"stage": "download", "call": 3, "do": number}
        status, lines = warm.run(*arguments, cwd=place, trap=trap, **wishes)
        part = place / "cache/caltech-101.zip.part"
        assert 0 < part.stat().st_size <= (2 << 14 if number == "SIGKILL" else len(body))
        seen = how_it_ended(status, lines)
        have = part.stat().st_size
        status, lines = warm.run(*arguments, cwd=place, **wishes)
        assert status == 0, lines
    assert starts == [0, have]
    then = "the same command again continues the download"
    note(fault=f"{SIGNALS[number]} during a download", lost="nothing", seen=seen, then=then)


# ---------------------------------------------------------------------------------------------------------
# Errors while writing


@pytest.mark.parametrize(
    ("stage", "do", "fault"),
    [
        pytest.param("saving", "ENOSPC", "Disk full while a state is saved"),
        pytest.param("saving", "EIO", "Disk error while a state is saved", marks=slow),
        pytest.param("renaming", "EIO", "Disk error while a state is put in its place", marks=slow),
        pytest.param("step", "limit", "A quota stops files from growing", marks=slow),
    ],
)
def test_writing_fails(
    warm: Warm, place: Path, whole: dict[str, torch.Tensor], note: Note, stage: str, do: str, fault: str
) -> None:
    status, lines = warm.run(*TRAIN, "--no-evaluate", cwd=place, trap={**STAGES[stage], "do": do})
    assert status == 2, lines
    seen, cost = how_it_ended(status, lines), lost(place)
    then = go_on(warm, place)
    assert_equal(whole, weights(place))
    note(fault=fault, lost=cost, seen=seen, then=then)


@slow
@pytest.mark.parametrize("stage", ["preparation", "step", "samples", "evaluation", "saving", "end", "report"])
def test_the_disk_is_really_full(
    warm: Warm, tmp_path: Path, whole: dict[str, torch.Tensor], note: Note, stage: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256m", "none", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        make_photos(disk / "photos")
        scored = "--evaluate" if stage in ("evaluation", "end", "report") else "--no-evaluate"
        status, lines = warm.run(*TRAIN, scored, cwd=disk, trap={**STAGES[stage], "do": "fill"})
        assert status == 2 or stage in ("end", "report"), lines
        seen = how_it_ended(status, lines)
        cost = lost(disk) if (disk / "moment.json").stat().st_size else "nothing"
        (disk / "ballast").unlink()
        then = go_on(warm, disk)
        assert_equal(whole, weights(disk))
        note(fault=f"Disk full from {IN_WORDS[stage]} on", lost=cost, seen=seen, then=then)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


# ---------------------------------------------------------------------------------------------------------
# Damage


@slow
@pytest.mark.parametrize(
    ("file", "damage", "fault"),
    [
        ("state.safetensors", "cut", "Saved state cut short"),
        ("state.safetensors", "flip", "One bit flipped in the saved state"),
        ("state.json", "flip", "Counters of the saved state damaged"),
        ("state.safetensors", "gone", "A file of the saved state missing"),
    ],
)
def test_a_damaged_state(
    warm: Warm,
    place: Path,
    whole: dict[str, torch.Tensor],
    note: Note,
    file: str,
    damage: str,
    fault: str,
) -> None:
    stopped_at_step_3(warm, place)
    harm(place / "runs/r/checkpoint" / file, damage)
    # Killed in the middle of the very next save: the good state must not have been given up for it.
    status, lines = warm.run(
        "resume", "r", cwd=place, trap={**STAGES["renaming"], "call": 1, "do": "SIGKILL"}
    )
    assert status == -signal.SIGKILL
    (warning,) = [line for line in lines if line.startswith("warning")]
    assert "going on from the state before it" in warning
    then = go_on(warm, place)
    assert_equal(whole, weights(place))
    note(
        fault=fault,
        lost="the steps since the save before (here one); done again",
        seen=f"`{warning}`",
        then=then,
    )


@slow
def test_both_states_damaged(warm: Warm, place: Path, note: Note) -> None:
    stopped_at_step_3(warm, place)
    for name in ("checkpoint", "checkpoint.previous"):
        harm(place / "runs/r" / name / "state.safetensors", "flip")
    status, lines = warm.run("resume", "r", cwd=place)
    assert status == 2
    assert "its checksum differs" in lines[-1]
    drawn, _ = warm.run("generate", "r", "-n", "2", cwd=place)
    assert drawn == 0
    note(
        fault="The saved state and the one before it both damaged",
        lost="the training state; the generator still draws",
        seen=how_it_ended(status, lines),
        then="`bonsaigan train` begins a new run",
    )


def stopped_at_step_3(warm: Warm, place: Path) -> None:
    status, lines = warm.run(*TRAIN, "--no-evaluate", cwd=place, trap={**STAGES["step"], "do": "SIGKILL"})
    assert status == -signal.SIGKILL, lines
    assert checkpoint.load(place / "runs/r/checkpoint")[1].step == 3


def harm(path: Path, damage: str) -> None:
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
        return
    if damage == "cut":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


# ---------------------------------------------------------------------------------------------------------
# Others at work


@slow
def test_two_processes_on_one_run(
    warm: Warm, place: Path, whole: dict[str, torch.Tensor], note: Note
) -> None:
    first = warm.start(*TRAIN, "--no-evaluate", cwd=place, trap={**STAGES["step"], "do": "SIGSTOP"})
    wait_for(place / "moment.json")
    status, lines = warm.run("resume", "r", cwd=place)
    assert status == 2
    assert "in use by another process" in lines[-1]
    os.kill(first, signal.SIGCONT)
    assert warm.wait(first) == 0
    assert_equal(whole, weights(place))
    seen = how_it_ended(status, lines)
    note(fault="A second process on a run", lost="nothing", seen=seen, then="the first goes on undisturbed")


@slow
@pytest.mark.parametrize("change", ["gone", "new", "other"])
def test_pictures_change_under_a_run(
    warm: Warm, place: Path, whole: dict[str, torch.Tensor], note: Note, change: str
) -> None:
    stopped_at_step_3(warm, place)
    shutil.copytree(place / "photos", place / "kept")
    picture = place / "photos/3.png"
    if change == "new":
        shutil.copy(make_photos(place / "more", mode="L") / "0.png", place / "photos/more.png")
    elif change == "other":
        shutil.copy(make_photos(place / "more", mode="L") / "0.png", picture)
    else:
        picture.unlink()
    status, lines = warm.run("resume", "r", cwd=place)
    assert status == 2
    assert "pictures changed since it began" in lines[-1]
    seen = how_it_ended(status, lines)
    shutil.rmtree(place / "photos")
    (place / "kept").rename(place / "photos")
    then = go_on(warm, place)
    assert_equal(whole, weights(place))
    fault = {"gone": "A picture is deleted", "new": "A picture is added", "other": "A picture is replaced"}
    note(
        fault=f"{fault[change]} under a run",
        lost="nothing",
        seen=seen,
        then=f"with the pictures back, {then}",
    )


@slow
def test_pictures_get_other_names(
    warm: Warm, place: Path, whole: dict[str, torch.Tensor], note: Note
) -> None:
    stopped_at_step_3(warm, place)
    for path in sorted((place / "photos").iterdir()):
        path.rename(path.with_name(f"{20 - int(path.stem)} renamed.png"))
    then = go_on(warm, place)
    assert_equal(whole, weights(place))
    note(fault="Pictures get other names under a run", lost="nothing", seen="nothing", then=then)


@slow
def test_pictures_change_while_they_are_read(warm: Warm, place: Path, note: Note) -> None:
    trap = {"stage": "reading", "call": 3, "do": "change"}
    status, lines = warm.run(*TRAIN, "--no-evaluate", cwd=place, trap=trap)
    assert status == 2
    assert "changed while it was being read" in lines[-1]
    assert not (place / "runs").exists()
    then = again(warm, place, [*TRAIN, "--no-evaluate"])
    seen = how_it_ended(status, lines)
    note(fault="Pictures change while they are read", lost="nothing", seen=seen, then=then)


@slow
def test_the_clock_jumps(warm: Warm, place: Path, whole: dict[str, torch.Tensor], note: Note) -> None:
    trap = {**STAGES["step"], "do": "SIGKILL"}
    warm.run(*TRAIN, "--evaluate", cwd=place, trap=trap, clock=True)
    then = go_on(warm, place, clock=True)
    assert_equal(whole, weights(place))
    sec = [
        json.loads(line)["train_sec"] for line in (place / "runs/r/metrics.jsonl").read_text().splitlines()
    ]
    assert 0 <= min(sec) <= max(sec) < 600
    note(fault="The clock jumps by years, both ways", lost="nothing", seen="nothing", then=then)


# ---------------------------------------------------------------------------------------------------------


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < deadline, said(path.parent)
        time.sleep(0.02)


def caltech_like(photos: Path) -> bytes:
    """The pictures in an archive of Caltech-101's form, with something beside that makes it longer."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        for path in sorted(photos.iterdir()):
            archive.add(path, f"101_ObjectCategories/bonsai/{path.name}")
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w") as archive:
        archive.writestr("caltech-101/Annotations.tar", os.urandom(1 << 17))
        archive.writestr("caltech-101/101_ObjectCategories.tar.gz", inner.getvalue())
    return outer.getvalue()


class serving:
    """A local server of one file, with ranges; gives its address, and where each answer began."""

    def __init__(self, body: bytes):
        starts = self.starts = list[int]()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
                starts.append(start)
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body) - start))
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body[start:])

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    def __enter__(self) -> tuple[str, list[int]]:
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_port}/caltech-101.zip", self.starts

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
