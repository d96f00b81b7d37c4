"""Real, tiny trainings that end early: resume is exact, and faults lose nothing."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from bonsaigan import durable, runs
from bonsaigan.appraise import read_real
from bonsaigan.config import Budget
from bonsaigan.errors import CheckpointError, ConfigError, RunError
from bonsaigan.generator import read_spec
from bonsaigan.training import checkpoint, session
from bonsaigan.training.monitor import Monitor
from bonsaigan.training.pictures import as_it_began, prepare_data
from bonsaigan.training.recipes import RECIPES
from bonsaigan.training.trainer import Trainer
from tests.tiny import assert_equal, make_photos, own_folders, photos, slim, tiny, weights

__all__ = ["own_folders", "photos"]

HALF = {"recipe": "dcgan", "precision": "fp16"}  # slow on a CPU


@pytest.mark.parametrize("changes", [*({"recipe": name} for name in RECIPES), HALF], ids=str)
def test_two_steps_and_two_more_are_four(
    photos: Path, changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = slim(session.plan(str(photos), tiny(**changes)), 8 if changes is HALF else 32)
    turns = max(plan.config.generator_turns, 2 if changes is HALF else 1)  # the scale must bear two
    plan = dataclasses.replace(plan, config=dataclasses.replace(plan.config, generator_turns=turns))
    whole = session.start(plan, run="whole")
    step = Trainer.step

    def stop_at_two(trainer: Trainer, pictures: np.ndarray) -> object:
        if trainer.progress.step == 1:
            signal.raise_signal(signal.SIGINT)
        return step(trainer, pictures)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", stop_at_two)
        session.start(plan, run="halves")
    assert checkpoint.load(Path("runs/halves/checkpoint"))[1].step == 2
    session.resume("halves")
    assert_equal(weights(whole), weights(Path("runs/halves")))
    scales = [checkpoint.load(run / "checkpoint")[1].loss_scale for run in (whole, Path("runs/halves"))]
    assert scales[0] == scales[1]
    assert (scales[0] is not None) == (changes is HALF)
    assert weights(whole)["generator_adam.0.step"] > 0  # float16 skips steps until its scale fits


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(photos: Path) -> None:
    wishes = tiny(recipe="projected", steps=6)
    whole = session.start(session.plan(str(photos), wishes), run="whole")
    code = (
        "import sys; from bonsaigan.training import loop, session; loop.SAVE_EVERY_SEC = 0\n"
        "w = session.Wishes(size='32', steps=6, batch=4, width=64, precision='fp32', evaluate=False)\n"
        "session.start(session.plan(sys.argv[1], w), run='killed')"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(photos)])
    state = Path("runs/killed/checkpoint/state.json")
    deadline = time.monotonic() + 60
    while not state.exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert state.exists() or Path("runs/killed/checkpoint.previous/state.json").exists()
    assert_equal(weights(whole), weights(session.resume("killed")))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_finishes_the_step_saves_and_says_how_to_go_on(photos: Path, number: int) -> None:
    command = [sys.executable, "-m", "bonsaigan", "train", str(photos), "--size", "32", "--minutes", "5"]
    command += ["--recipe", "dcgan", "--width", "64", "--batch", "4", "--precision", "fp32"]
    child = subprocess.Popen([*command, "--run", "r"], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(Path("runs/r/samples").glob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(child.pid, number)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    assert "bonsaigan resume r" in out
    assert out.splitlines()[-1] == "report: runs/r/report.html"
    assert not Path("runs/r/metrics.json").exists()
    assert weights(Path("runs/r"))


def test_a_stop_during_the_last_look_loses_nothing(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = session.plan(str(photos), tiny(steps=2))
    look = Monitor.look

    def ask(monitor: Monitor, trainer: Trainer, *, last: bool = False) -> None:
        if last:
            signal.raise_signal(signal.SIGINT)
        look(monitor, trainer, last=last)

    def insist(monitor: Monitor, trainer: Trainer, *, last: bool = False) -> None:
        for _ in range(1 + last):
            signal.raise_signal(signal.SIGINT)

    stopped = []
    monkeypatch.setattr(Monitor, "look", ask)
    session.start(plan, run="once", conclude=lambda trained: stopped.append(trained.stopped))
    assert stopped == [True]
    monkeypatch.setattr(Monitor, "look", insist)
    with pytest.raises(KeyboardInterrupt):
        session.start(plan, run="twice")
    assert checkpoint.load(Path("runs/twice/checkpoint"))[1].step == 2


def test_a_spent_budget_is_said(photos: Path) -> None:
    run = session.start(session.plan(str(photos), tiny(steps=1)), run="r")
    said = io.StringIO()
    session.resume(run, console=Console(file=said, width=200))
    assert "nothing is left to train of 1 steps; for more, give a larger" in said.getvalue()


def test_a_run_goes_on_from_any_folder_and_says_what_is_gone(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = session.start(session.plan(photos.name, tiny(steps=1)), run="r").absolute()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    session.resume(run, budget=Budget(steps=2))
    assert checkpoint.load(run / "checkpoint")[1].step == 2
    assert len(read_real(run).training) == 10
    photos.rename(tmp_path / "moved")
    with pytest.raises(RunError, match=r"trained on, 'photos', are not there any more.*--data"):
        session.resume(run)
    assert len(read_real(run, moved=str(tmp_path / "moved")).training) == 10
    assert json.loads((run / runs.DATA_FILE).read_text())["source"].endswith("moved")
    session.resume(run)


def test_numbers_of_any_kind_make_a_run_that_goes_on(photos: Path) -> None:
    wishes = tiny(size=32, steps=1e0, batch=np.int64(4), seed=np.int32(3), lr=np.float32(1e-3))
    run = session.start(session.plan(str(photos), wishes), run="r")
    session.resume(run, budget=Budget(steps=np.int64(2)))  # pyright: ignore[reportArgumentType]
    session.resume(run, budget=Budget(steps=3.0))  # pyright: ignore[reportArgumentType]
    assert runs.read_config(run).budget == Budget(steps=3)
    for wrong, said in (
        ({"batch": 4.5}, r"batch: expected int, found 4\.5"),
        ({"minutes": "10", "steps": None}, "--minutes '10': must be a number"),
        ({"seed": True}, "--seed True: must be a number"),
    ):
        with pytest.raises(ConfigError, match=said):
            session.plan(str(photos), tiny(**wrong))
    before = (run / runs.CONFIG_FILE).read_bytes()
    with pytest.raises(ConfigError, match=r"steps: expected int, found 4\.5"):
        session.resume(run, budget=Budget(steps=4.5))  # pyright: ignore[reportArgumentType]
    assert (run / runs.CONFIG_FILE).read_bytes() == before


@pytest.mark.parametrize("damage", ["truncate", "flip", "json"])
def test_a_damaged_state_is_noticed_and_the_one_before_is_used(photos: Path, damage: str) -> None:
    folder = session.start(session.plan(str(photos), tiny(steps=2)), run="r")
    trainer = Trainer(runs.read_config(folder), device=torch.device("cpu"))
    trainer.restore(folder)
    trainer.progress.step = 99
    trainer.save(folder)
    path = folder / "checkpoint" / ("state.json" if damage == "json" else "state.safetensors")
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    else:
        data = data[: len(data) // 2]
    path.write_bytes(data)
    tensors, progress, warning = checkpoint.load(folder / "checkpoint")
    assert progress.step == 2
    assert tensors
    assert warning is not None
    assert "damaged" in warning
    path.with_name("state.json").unlink()
    (folder / "checkpoint.previous" / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(folder / "checkpoint")


def test_a_state_of_other_networks_is_refused(photos: Path) -> None:
    folder = session.start(session.plan(str(photos), tiny(steps=1)), run="r")
    config = json.loads((folder / "config.json").read_text())
    config["network"]["width"] = 128
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="another configuration"):
        session.resume("r")


def test_a_failed_save_keeps_the_state_before(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = session.start(session.plan(str(photos), tiny(steps=1)), run="r")
    before = weights(folder)

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "write_durably", full)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoint.save(folder / "checkpoint", tensors=before, progress=checkpoint.Progress())
    assert_equal(before, weights(folder))


def test_a_second_process_on_a_run_is_refused(photos: Path) -> None:
    folder = session.start(session.plan(str(photos), tiny(steps=1)), run="r")
    with runs.only_process(folder), pytest.raises(RunError, match="in use"):
        session.resume("r")


def test_changed_pictures_are_noticed_on_resume(photos: Path) -> None:
    session.start(session.plan(str(photos), tiny(steps=1)), run="r")
    (photos / "3.png").unlink()
    with pytest.raises(RunError, match="1 gone"):
        session.resume("r")


def test_pictures_that_moved_are_found_again_once_it_is_said_where_they_are(photos: Path) -> None:
    folder = session.start(session.plan(str(photos), tiny(steps=1)), run="r")
    moved = photos.rename(photos.with_name("elsewhere"))
    with pytest.raises(RunError, match="say where they are with --data"):
        session.resume("r")
    others = make_photos(photos, count=11)
    with pytest.raises(RunError, match=r"not the pictures that runs/r began with \(1 new, 0 gone\)"):
        session.resume("r", data=str(others))
    assert runs.read_config(folder).data.source == str(photos)
    shutil.rmtree(others)
    session.resume("r", data=moved.name, budget=Budget(steps=2))
    session.resume("r", budget=Budget(steps=3))
    assert runs.read_config(folder).data.source == str(moved)
    assert read_spec(folder).step == 3


def test_pictures_that_got_other_names_keep_their_places(photos: Path) -> None:
    plan = session.plan(str(photos), tiny(steps=1, holdout=0.2))
    folder = session.start(plan, run="r")
    for path in sorted(photos.iterdir()):
        path.rename(path.with_name(f"{20 - int(path.stem)}.png"))
    renamed = prepare_data(plan.config.data, resample="antialias")
    assert not np.array_equal(renamed.pictures, plan.prepared.pictures)
    again = dataclasses.replace(plan, prepared=as_it_began(folder, renamed))
    np.testing.assert_array_equal(np.asarray(again.training_pictures), np.asarray(plan.training_pictures))


def test_a_best_moment_that_was_kept_before_a_kill_is_not_replaced_by_a_worse_one(tmp_path: Path) -> None:
    best = tmp_path / "best"
    best.mkdir()
    spec = json.loads((Path(__file__).parent / "corpus" / "generator.json").read_text())
    assert (spec["scores"]["kid"], spec["step"]) == (0.2, 4)
    (best / "generator.json").write_text(json.dumps(spec))
    for known, kept in ((None, 0.2), (0.5, 0.2), (0.1, 0.1)):
        progress = checkpoint.Progress(best_kid=known)
        Monitor._take_up_best(SimpleNamespace(folder=tmp_path), progress)  # pyright: ignore[reportArgumentType]
        assert progress.best_kid == kept


def test_a_damaged_state_never_takes_the_place_of_the_good_one(photos: Path) -> None:
    folder = session.start(session.plan(str(photos), tiny(steps=2)), run="r")
    trainer = Trainer(runs.read_config(folder), device=torch.device("cpu"))
    trainer.restore(folder)
    trainer.save(folder)
    (folder / "checkpoint" / "state.safetensors").write_bytes(b"")
    assert "damaged" in str(trainer.restore(folder))
    assert sorted(p.name for p in folder.glob("checkpoint*")) == ["checkpoint.damaged", "checkpoint.previous"]
    assert trainer.restore(folder) is None
    trainer.save(folder)
    assert weights(folder)


@pytest.mark.skipif(os.name == "nt", reason="makes links and pipes")
@pytest.mark.parametrize("name", [runs.METRICS_FILE, runs.LOCK_FILE])
@pytest.mark.parametrize("kind", ["text", "", "nothing", "pipe"])
def test_a_strangers_run_leads_to_no_other_file(photos: Path, name: str, kind: str) -> None:
    folder = session.start(session.plan(str(photos), tiny(steps=1)), run="r")
    mine, file = Path("mine"), folder / name
    if kind in ("text", ""):
        mine.write_text(kind)
    file.unlink()
    os.mkfifo(file) if kind == "pipe" else file.symlink_to(mine.absolute())

    def hangs(*_: object) -> None:
        raise AssertionError("it waits for the pipe's other end")

    signal.signal(signal.SIGALRM, hangs)
    signal.alarm(60)
    try:
        with pytest.raises(RunError):
            session.resume(folder, budget=Budget(steps=2))
    finally:
        signal.alarm(0)
    assert (mine.read_text() if mine.exists() else "nothing") == (kind if kind in ("text", "") else "nothing")
    assert checkpoint.load(folder / runs.CHECKPOINT_DIR)[1].step == 1


def test_the_newest_run_may_be_one_that_was_imported(photos: Path) -> None:
    trained = session.start(session.plan(str(photos), tiny(steps=1)), run="trained")
    imported = Path("runs/imported")
    imported.mkdir()
    for name in (runs.WEIGHTS_FILE, runs.GENERATOR_FILE):
        (imported / name).write_bytes((trained / name).read_bytes())
    os.utime(trained / runs.CONFIG_FILE, (1, 1))
    assert runs.find_run() == imported
    assert runs.find_run(trained=True) == trained
    with pytest.raises(RunError, match="did you mean imported"):
        runs.find_run("importd")


def test_two_that_write_one_file_leave_it_whole(tmp_path: Path) -> None:
    contents = [bytes([n]) * 300_000 for n in range(4)]
    path = tmp_path / "report.html"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: durable.write_atomically(path, contents[n % 4]), range(80)))
    assert path.read_bytes() in contents
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
