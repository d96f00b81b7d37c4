"""Several processes share one training: real ones, started by torchrun on this machine's CPU."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from bonsaigan import processes, runs
from bonsaigan.config import ComponentsConfig
from bonsaigan.data.prepare import to_float
from bonsaigan.training import augment, checkpoint, session
from bonsaigan.training.history import read_history
from bonsaigan.training.session import Wishes
from tests.tiny import make_photos
from tests.typing_in import run

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
SMALL = ["--size", "32", "--batch", "4", "--width", "32", "--precision", "fp32", "--device", "cpu"]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pictures; the working directory and the cache are of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BONSAIGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return make_photos(tmp_path / "photos")


def torchrun(number: int, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `bonsaigan` in so many processes to its end."""
    full = [*TORCHRUN, str(number), "-m", "--", "bonsaigan", *command]
    done = subprocess.run(full, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0 or not check, done.stderr
    return done


def weights(run: str) -> dict[str, np.ndarray]:
    return load_file(Path("runs") / run / "checkpoint" / checkpoint.TENSORS_FILE)


def assert_alike(one: str, other: str) -> None:
    """The networks are equal but for rounding, which Adam enlarges: it divides by the gradient's own size."""
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    for player in ("generator.", "discriminator."):
        names = [name for name in a if name.startswith(player)]
        left, right = (np.concatenate([side[name].ravel() for name in names]) for side in (a, b))
        assert np.linalg.norm(left - right) < 1e-3 * np.linalg.norm(left), player


def lines(run: str, kind: str) -> list[dict[str, Any]]:
    return [x for x in read_history(Path("runs") / run / "metrics.jsonl") if x["kind"] == kind]


def test_own_share_is_a_part_of_what_one_process_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    images = to_float(np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8))
    names = tuple(augment.AUGMENTATIONS)
    torch.manual_seed(1)
    whole = augment.augment(images, names)
    parts = []
    for rank in range(4):
        monkeypatch.setattr(processes, "count", lambda: 4)
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        torch.manual_seed(1)
        parts.append(augment.augment(images[2 * rank : 2 * rank + 2], names))
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["r3gan", "article"])
def test_two_processes_train_as_one_does(photos: Path, recipe: str) -> None:
    """Twenty steps of a recipe without batch statistics, with a score at the end that both share.

    Adam moves a weight by the learning rate even where the gradient is rounding alone: so a small one.
    """
    told = ["train", str(photos), "--recipe", recipe, *SMALL, "--steps", "20", "--lr", "1e-4"]
    torchrun(2, *told, "--run", "two")
    wishes = Wishes(recipe=recipe, size="32", batch=4, width=32, precision="fp32", steps=20, lr=1e-4)
    session.start(session.plan(str(photos), wishes), run="one")
    for a, b in zip(lines("one", "step"), lines("two", "step"), strict=True):
        for key in ("loss_generator", "loss_discriminator"):
            assert a[key] == pytest.approx(b[key], rel=1e-3), (a["step"], key)
    assert_alike("one", "two")
    (last_one,), (last_two,) = lines("one", "evaluation")[-1:], lines("two", "evaluation")[-1:]
    assert last_one["kid"] == pytest.approx(last_two["kid"], rel=0.01)
    assert [x["kind"] for x in lines("two", "begin")] == ["begin"]
    assert (Path("runs/two") / "report.html").is_file()


@pytest.mark.slow
def test_two_processes_start_from_the_components_as_one_does(photos: Path) -> None:
    wishes = Wishes(recipe="r3gan", size="32", batch=4, width=32, precision="fp32", steps=2, evaluate=False)
    plan = session.plan(str(photos), wishes)
    start = ComponentsConfig(first_steps=5, weight=30.0, until_step=2)
    config = dataclasses.replace(plan.config, components=start)
    session.start(dataclasses.replace(plan, config=config), run="one")
    folder = runs.create_run("two", source_name=plan.source_name)
    (folder / runs.DATA_FILE).write_text(json.dumps(plan.prepared.manifest))
    (folder / runs.CONFIG_FILE).write_text(config.to_json())
    torchrun(2, "resume", "two")
    assert_alike("one", "two")


@pytest.mark.slow
def test_what_four_began_one_goes_on_with_and_then_two(photos: Path) -> None:
    told = ["train", str(photos), "--recipe", "article", *SMALL, "--batch", "8", "--no-evaluate"]
    torchrun(4, *told, "--steps", "3", "--run", "mixed")
    session.resume("mixed", budget=session.Budget(steps=6))
    torchrun(2, "resume", "mixed", "--steps", "8")
    wishes = Wishes(recipe="article", size="32", batch=8, width=32, precision="fp32", steps=8, evaluate=False)
    session.start(session.plan(str(photos), wishes), run="one")
    assert_alike("one", "mixed")


def test_a_batch_that_cannot_be_shared_is_refused(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "count", lambda: 3)
    monkeypatch.setattr(processes, "from_first", lambda value: value)
    monkeypatch.setattr(processes, "_meet", lambda: None)
    done = run("train", str(photos), *SMALL, "--steps", "1", cwd=Path())
    assert done.returncode == 2
    assert done.stderr == "bonsaigan: --batch 4: 3 processes cannot share it evenly; take a multiple of 3\n"


def test_pictures_that_are_not_there_are_told_once(photos: Path) -> None:
    done = torchrun(2, "train", "nowhere", *SMALL, "--steps", "1", check=False)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if "nowhere" in line]
    assert len(said) == 1
    assert said[0].startswith("bonsaigan:")
    assert "Error: " not in done.stderr.partition("torch/distributed/elastic")[0]


def test_one_processs_loss_that_is_not_finite_is_told_by_the_first(photos: Path) -> None:
    code = (
        "from bonsaigan import cli, processes\n"
        "from bonsaigan.training.trainer import Trainer\n"
        "add = Trainer._add_gradient\n"
        "def failing(self, loss, who):\n"
        "    wrong = processes.rank() == 1 and self.progress.step == 2\n"
        "    add(self, loss * float('inf') if wrong else loss, who)\n"
        "Trainer._add_gradient = failing\n"
        "cli.main()\n"
    )
    Path("main.py").write_text(code)
    told = ["train", str(photos), "--recipe", "r3gan", *SMALL, "--no-evaluate", "--steps", "4", "--run", "r"]
    command = [*TORCHRUN, "2", "--", "main.py", *told]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    said = [line for line in done.stderr.splitlines() if line.startswith("bonsaigan:")]
    assert len(said) == 1
    assert "loss became inf at step 2" in said[0] or "loss became -inf at step 2" in said[0]
    (found,) = lines("r", "health")
    assert found["finding"] == "not finite"


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_with_its_state_and_a_restart_goes_on(photos: Path) -> None:
    """Killed once; torchrun starts all of them again, and they go on from what was saved."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from bonsaigan import cli, processes\n"
        "from bonsaigan.training import loop\n"
        "from bonsaigan.training.trainer import Trainer\n"
        "loop.SAVE_EVERY_SEC = 0.0\n"
        "step = Trainer.step\n"
        "def dying(self, pictures):\n"
        "    if self.progress.step == 5 and processes.rank() == 1 and not Path('died').exists():\n"
        "        Path('died').touch()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return step(self, pictures)\n"
        "Trainer.step = dying\n"
        "cli.main()\n"
    )
    Path("main.py").write_text(code)
    told = ["train", str(photos), "--recipe", "r3gan", *SMALL, "--no-evaluate", "--steps", "8"]
    command = [*TORCHRUN, "2", "--max-restarts", "1", "--", "main.py", *told, "--run", "r", "--resume"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stdout
    state = json.loads(Path("runs/r/checkpoint/state.json").read_text())
    assert state["progress"]["step"] == 8
    assert not lines("r", "health")  # nothing was wrong with the training


@pytest.mark.slow
def test_a_wish_to_stop_that_reaches_one_process_stops_all(photos: Path) -> None:
    told = ["train", str(photos), "--recipe", "r3gan", *SMALL, "--no-evaluate", "--steps", "100000"]
    running = subprocess.Popen(
        [*TORCHRUN, "2", "-m", "--", "bonsaigan", *told, "--run", "r"], stdout=subprocess.PIPE, text=True
    )
    while not lines_so_far("r"):
        time.sleep(0.2)
        assert running.poll() is None
    mine = f"/proc/{running.pid}/task/{running.pid}/children"
    second = int(Path(mine).read_text().split()[1])
    os.kill(second, signal.SIGTERM)
    said, _ = running.communicate(timeout=120)
    assert running.returncode == 0
    assert "stopped after" in said
    assert "bonsaigan resume r" in said


def lines_so_far(run: str) -> list[dict[str, Any]]:
    """Steps that a running training has noted."""
    path = Path("runs") / run / "metrics.jsonl"
    return lines(run, "step") if path.exists() else []
