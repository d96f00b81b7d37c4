"""Real, tiny trainings: settings, starts, scores; every size and mode samples as it should."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import bonsaigan
from bonsaigan import processes, runs
from bonsaigan.config import Budget
from bonsaigan.device import choose_device, lacks_memory
from bonsaigan.errors import ConfigError, RunError, TrainingError
from bonsaigan.evaluation import scores
from bonsaigan.plots import make_grid
from bonsaigan.report.facts import read_facts
from bonsaigan.training import checkpoint, loop, monitor, session, shared
from bonsaigan.training.monitor import Monitor
from bonsaigan.training.trainer import Trainer
from tests.tiny import assert_equal, make_photos, own_folders, photos, slim, tiny, weights

__all__ = ["own_folders", "photos"]


@pytest.mark.parametrize("recipe", ["dcgan", "r3gan", "article"])
def test_the_generator_takes_its_turns_with_new_pictures_each(photos: Path, recipe: str) -> None:
    plan = slim(session.plan(str(photos), tiny(recipe=recipe, precision="fp32")), 16)
    trainer = Trainer(dataclasses.replace(plan.config, generator_turns=3), device=torch.device("cpu"))
    drawn: list[torch.Tensor] = []
    trainer.generator.register_forward_hook(lambda _module, given, _pictures: drawn.append(given[0]))
    trainer.step(np.asarray(plan.training_pictures))
    batches = [z for z in drawn if len(z) == plan.config.batch]  # the article shows its judge half of one
    assert len(batches) == len({z.sum().item() for z in batches}) == 3
    for adam, turns in ((trainer.generator_adam, 3), (trainer.discriminator_adam, 1)):
        assert {float(state["step"]) for state in adam.state.values()} == {turns}
    assert trainer.progress.step == 1


@pytest.mark.parametrize("turns", [1, 2])
@pytest.mark.parametrize("recipe", ["r3gan", "article"])
def test_a_batch_in_several_passes_has_the_same_gradients(photos: Path, recipe: str, turns: int) -> None:
    plan = slim(session.plan(str(photos), tiny(recipe=recipe, batch=8)), 16)
    config = dataclasses.replace(plan.config, generator_turns=turns)
    pictures = np.asarray(plan.training_pictures)
    told, networks = [], []
    for passes in (1, 2, 4):
        trainer = Trainer(dataclasses.replace(config, accumulate=passes), device=torch.device("cpu"))
        told.append(dataclasses.astuple([trainer.step(pictures) for _ in range(4)][-1]))
        both = (*trainer.generator.parameters(), *trainer.discriminator.parameters())
        networks.append(torch.cat([parameter.detach().flatten() for parameter in both]))
    for losses, network in zip(told[1:], networks[1:]):
        assert losses == pytest.approx(told[0], rel=1e-3)
        assert (network - networks[0]).norm() < 1e-3 * networks[0].norm()


def test_a_batch_must_fall_into_passes(photos: Path) -> None:
    with pytest.raises(ConfigError, match=r"--batch 4: --accumulate 3 cannot share .* a multiple of 3"):
        session.plan(str(photos), tiny(accumulate=3))


@pytest.mark.parametrize(
    ("bfloat16", "capability", "recipe", "found"),
    [
        (True, (8, 0), "projected", "bf16"),
        (False, (7, 5), "projected", "fp16"),
        (False, (6, 1), "projected", "fp32"),
        (False, (7, 5), "r3gan", "fp32"),  # its penalties' gradients would not be scaled
        (True, (8, 0), "article", "fp32"),
    ],
)
def test_automatic_precision_on_a_gpu(
    bfloat16: bool,
    capability: tuple[int, int],
    recipe: str,
    found: str,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    wishes = tiny(recipe=recipe, device="cuda", precision="auto")
    assert session.plan(str(photos), wishes).config.precision == found


def test_a_process_without_a_gpu_of_its_own_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(processes, "count", lambda: 4)
    monkeypatch.setattr(processes, "local_count", lambda: 4)
    with pytest.raises(ConfigError, match="4 processes on this machine and 2 GPUs"):
        choose_device("cuda")


def test_several_processes_take_the_cpu_where_there_is_one_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto").type == "mps"
    monkeypatch.setattr(processes, "count", lambda: 2)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(ConfigError, match="--device mps: 2 processes cannot share it"):
        choose_device("mps")


def test_no_memory_left_is_one_line(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = iter(
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more"),
            MemoryError("cannot have 2 GiB"),
        )
    )

    def step(_trainer: Trainer, _pictures: np.ndarray) -> object:
        raise next(errors)

    monkeypatch.setattr(Trainer, "step", step)
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"no memory left for --batch 4 in --accumulate 1 .* 2 GiB"):
            session.start(session.plan(str(photos), tiny()))


def test_what_torch_says_when_the_cpu_has_no_memory_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert lacks_memory(caught.value)
    assert not lacks_memory(RuntimeError("something else"))


def test_a_run_is_named_by_a_path_too_and_its_name_is_never_taken_twice(photos: Path) -> None:
    plan = session.plan(str(photos), tiny(steps=1))
    session.start(plan, run="out/mine")
    assert session.is_begun("out/mine")
    assert not session.is_begun("mine")
    (runs.create_run("drawn", source_name="") / runs.GENERATOR_FILE).touch()
    for name, said in (
        ("out/mine", "resume out/mine"),
        ("drawn", "imported"),
        ("", "not a name"),
        ("..", "not"),
    ):
        with pytest.raises(RunError, match=said):
            session.start(plan, run=name)


def test_settings_move_over_the_budget(photos: Path) -> None:
    plan = session.plan(str(photos), tiny(recipe="r3gan", steps=4))
    trainer = Trainer(plan.config, device=torch.device("cpu"))
    optimizer, gamma = plan.config.optimizer, plan.config.penalty.gamma
    found = []
    for step in (0, 2, 4, 9):
        trainer.progress.step = step
        trainer.anneal()
        (group,) = trainer.discriminator_adam.param_groups
        found.append((group["lr"] / optimizer.discriminator_lr, group["betas"][1], trainer.gamma / gamma))
    ends = [(1.0, 0.9, 1.0), (0.625, 0.945, 0.55), (0.25, 0.99, 0.1), (0.25, 0.99, 0.1)]
    assert found == [pytest.approx(end) for end in ends]


def test_the_generators_rate_follows_the_pictures_seen_whatever_the_budget(photos: Path) -> None:
    rates = []
    for steps in (4, 4_000):
        plan = session.plan(str(photos), tiny(recipe="projected", steps=steps))
        trainer = Trainer(plan.config, device=torch.device("cpu"))
        for seen_nimg in (0, 2_500, 5_000, 50_000):
            trainer.progress.seen_nimg = seen_nimg
            trainer.anneal()
            rates += [a.param_groups[0]["lr"] for a in (trainer.generator_adam, trainer.discriminator_adam)]
    once = [8e-4, 4e-4, 6e-4, 4e-4, 4e-4, 4e-4, 4e-4, 4e-4]
    assert rates == pytest.approx(once + once)


def test_another_seed_is_another_run(photos: Path) -> None:
    one = session.start(session.plan(str(photos), tiny(steps=1)))
    other = session.start(session.plan(str(photos), tiny(steps=1, seed=1)))
    assert (one.name, other.name) == ("photos-1", "photos-2")
    a, b = weights(one), weights(other)
    for player in ("generator.", "discriminator."):
        drawn = [name for name in a if name.startswith(player) and a[name].dim() > 1]
        assert drawn
        assert not any(torch.equal(a[name], b[name]) for name in drawn)


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_state(photos: Path) -> None:
    folder = session.start(session.plan(str(photos), tiny(steps=2)), run="r")
    before = weights(folder)
    plan = session.plan(str(photos), tiny())
    trainer = Trainer(plan.config, device=torch.device("cpu"))
    trainer.restore(folder)
    trainer.begin(plan.training_pictures, anew=False)
    with torch.no_grad():
        next(trainer.generator.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match="at step 2"):
        trainer.step(plan.training_pictures)
    assert_equal(before, weights(folder))


@pytest.mark.parametrize(
    ("mode", "size", "recipe"),
    [
        ("L", "32", "projected"),
        ("RGBA", "48x32", "projected"),
        ("RGB", "96x64", "projected"),
        pytest.param("RGB", "128", "projected", marks=pytest.mark.slow),
        ("L", "32x48", "article"),
        ("RGBA", "48x32", "dcgan"),
        ("L", "48x32", "r3gan"),
    ],
)
def test_every_mode_and_size_trains_and_samples(tmp_path: Path, mode: str, size: str, recipe: str) -> None:
    folder = make_photos(tmp_path / "set", mode=mode, count=8)
    if mode == "RGBA":
        for path in folder.glob("*.png"):
            with Image.open(path) as opened:
                image = opened.copy()
            image.putalpha(Image.linear_gradient("L").resize(image.size))
            image.save(path)
    run = session.start(session.plan(str(folder), tiny(size=size, steps=1, recipe=recipe)), run="r")
    width, height = (int(v) for v in (size.split("x") * 2)[:2])
    picture = bonsaigan.load(run).sample(1, seed=3)[0]
    assert (picture.mode, picture.size) == (mode, (width, height))


def test_colours_are_as_asked_and_stay_so(photos: Path) -> None:
    run = session.start(session.plan(str(photos), tiny(mode="L", steps=1)), run="r")
    assert bonsaigan.load(run).sample(1)[0].mode == "L"
    session.resume(run, budget=Budget(steps=2))
    config = json.loads((run / runs.CONFIG_FILE).read_text())
    config["data"]["mode"] = "RGB"
    (run / runs.CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(RunError, match="have 3 channels now, it was begun with 1"):
        session.resume(run)


def test_fewer_pictures_than_a_batch_train(tmp_path: Path) -> None:
    folder = make_photos(tmp_path / "set", count=8)
    run = session.start(session.plan(str(folder), tiny(batch=12, steps=1)), run="r")
    assert len(list((run / "samples").glob("*.png"))) == 1


def test_the_best_moment_stays_and_patience_ends_the_run(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kids = iter((0.2, 0.3, 0.4, 0.4, 0.5, 0.6))  # no step is scored again by the same process
    monkeypatch.setattr(monitor, "is_look", lambda step: True)
    monkeypatch.setattr(Monitor, "_can_afford", lambda *_: True)
    monkeypatch.setattr(shared, "EVALUATE_COUNT", 12)
    monkeypatch.setattr(
        scores.RealReference, "score", lambda *_: scores.QuickScore(kid=next(kids), diversity=1.0)
    )
    wishes = tiny(recipe="dcgan", width=32, steps=50, evaluate=True, patience=2)
    run = session.start(session.plan(str(photos), wishes), run="r", console=Console(width=200))
    assert checkpoint.load(run / "checkpoint")[1].step == 3
    spec = bonsaigan.load(run).spec
    assert (spec.step, spec.scores["kid"]) == (1, 0.2)
    assert "--patience ended it: 2 scores without a better one" in capsys.readouterr().out
    assert read_facts(run).done_share == 1.0
    session.resume("r")  # was not cut short: nothing is left to train
    assert checkpoint.load(run / "checkpoint")[1].step == 3
    session.resume("r", budget=Budget(steps=60))  # goes on, with patience anew
    assert checkpoint.load(run / "checkpoint")[1].step == 5
    assert bonsaigan.load(run).spec.step == 1
    assert next(kids, None) is None


@pytest.mark.parametrize(
    ("budget", "steps"), [({"minutes": 0.1}, 6), ({"kimg": 0.02}, 5), ({"steps": 3}, 3)], ids=str
)
def test_a_budget_ends_the_training(
    photos: Path, monkeypatch: pytest.MonkeyPatch, budget: dict[str, float], steps: int
) -> None:
    now, step = [0.0], Trainer.step

    def takes_a_second(trainer: Trainer, pictures: np.ndarray) -> object:
        stats = step(trainer, pictures)
        now[0] += 1.0
        return stats

    monkeypatch.setattr(Trainer, "step", takes_a_second)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))
    folder = session.start(session.plan(str(photos), tiny(**{"steps": None, **budget})), run="r")
    progress = checkpoint.load(folder / runs.CHECKPOINT_DIR)[1]
    assert (progress.step, progress.train_sec) == (steps, steps)


@pytest.mark.parametrize(
    ("train_sec", "scoring_sec", "scores"),
    [(59.9, 0, False), (60, 0, True), (119.9, 3, False), (120, 3, True)],
)
def test_scores_take_a_twentieth_of_the_time(train_sec: float, scoring_sec: float, scores: bool) -> None:
    a_score_of_three_seconds: Any = SimpleNamespace(evaluation_cost_sec=3.0)
    assert Monitor._can_afford(a_score_of_three_seconds, train_sec, scoring_sec) is scores


def test_a_score_is_kept_and_shown(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "EVALUATE_COUNT", 12)
    run = session.start(session.plan(str(photos), tiny(steps=1, evaluate=True)), run="r")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scored = [line for line in lines if line["kind"] == "evaluation"]
    assert scored[-1]["kid"] > 0
    assert 0 <= scored[-1]["accuracy_real"] <= 1
    with Image.open(run / "samples" / "summary-000001.png") as summary:
        assert summary.size == (3 * 34 - 2, 2 * 34 - 2)
    assert bonsaigan.load(run).spec.scores["kid"] == pytest.approx(scored[-1]["kid"], abs=1e-5)


def test_pictures_that_must_not_be_mirrored_are_not(photos: Path) -> None:
    usual = session.plan(str(photos), tiny()).config.augment
    assert "flip" in usual
    kept = session.plan(str(photos), tiny(flip=False)).config.augment
    assert kept == tuple(name for name in usual if name != "flip")


def test_another_learning_rate_moves_both_players_in_proportion(photos: Path) -> None:
    wishes = tiny(recipe="projected")
    usual = session.plan(str(photos), wishes).config.optimizer
    wishes = dataclasses.replace(wishes, lr=usual.generator_lr / 4)
    asked = session.plan(str(photos), wishes).config.optimizer
    assert asked.generator_lr == usual.generator_lr / 4
    assert asked.discriminator_lr == pytest.approx(usual.discriminator_lr / 4)
    assert usual.discriminator_lr < usual.generator_lr


def test_the_grids_show_the_first_seeds(photos: Path) -> None:
    folder = session.start(session.plan(str(photos), tiny()), run="r")
    generator = bonsaigan.load(folder, latest=True)
    pictures = generator.images(generator.latents(range(64)))
    drawn = np.asarray(Image.open(folder / "samples/000004.png").convert("RGB")).astype(int)
    expected = make_grid(pictures, columns=8).astype(int)
    assert drawn.shape == expected.shape
    assert np.abs(drawn - expected).max() <= 1
