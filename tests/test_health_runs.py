"""Tiny trainings made to go wrong, one in each way, through the public path: what the run says of itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from bonsaigan import runs
from bonsaigan.config import Budget
from bonsaigan.errors import TrainingError
from bonsaigan.evaluation import scores
from bonsaigan.models.dcgan import DcganGenerator
from bonsaigan.training import loop, monitor, recipes, session, shared, watches
from bonsaigan.training.augment import augment
from bonsaigan.training.history import read_history
from bonsaigan.training.session import Plan, Wishes
from bonsaigan.training.trainer import Trainer

LOOK_EVERY = 5


@pytest.fixture(autouse=True)
def _hasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own; a look every five steps, scores without a network, findings after ten steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BONSAIGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(monitor, "is_look", lambda step: step % LOOK_EVERY == 0)
    monkeypatch.setattr(monitor, "EVALUATE_SHARE", 1e9)
    monkeypatch.setattr(shared, "EVALUATE_COUNT", 64)
    monkeypatch.setattr(watches, "LASTS_STEPS", 2 * LOOK_EVERY)
    monkeypatch.setattr(scores, "embed", lambda p, **_: p[:, ::8, ::8].reshape(len(p), -1) / 99)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """So much alike that a fresh generator's pictures differ as much."""
    return make_photos(tmp_path / "photos", contrast=2.0)


def make_photos(folder: Path, *, contrast: float) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(32):
        light, tint = rng.normal(0, contrast, (3, 3, 1)), rng.normal(0, contrast / 2, (3, 3, 3))
        picture = np.array([150, 110, 60]) + rng.normal(0, contrast / 2, 3) + light + tint
        image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
        image.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def tiny(photos: Path, *, steps: int = 30, lr: float = 1e-3, evaluate: bool = False, **changes: Any) -> Plan:
    """A plan whose steps cost some hundredths of a second; `changes` go to its config."""
    wishes = Wishes(recipe="dcgan", size="32", steps=steps, batch=16, width=32, lr=lr, precision="fp32")
    made = session.plan(str(photos), dataclasses.replace(wishes, device="cpu", evaluate=evaluate))
    network = dataclasses.replace(made.config.network, latent=16, discriminator_width=8)
    config = dataclasses.replace(made.config, network=network, augment=("flip",))
    return dataclasses.replace(made, config=dataclasses.replace(config, **changes))


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_history(folder / runs.METRICS_FILE) if line["kind"] == kind]


def train(plan: Plan) -> tuple[list[dict[str, Any]], str]:
    """The lines of health that a run leaves, and what it prints."""
    console = Console(record=True, width=10_000, quiet=False, force_terminal=False)
    folder = session.start(plan, run="r", console=console)
    return lines(folder, "health"), console.export_text()


def assert_said(found: dict[str, Any], printed: str) -> None:
    """It was printed when it was found and once more at the end, in the same words but for the numbers."""
    said = [line for line in printed.splitlines() if line.startswith("health:")]
    assert said[0] == f"health: {found['what']} {found['advice']}"
    assert len(said) == 2
    assert said[1].startswith(f"health: Since step {found['since_step']} ")
    assert not found["over"]


# ---------------------------------------------------------------------------------------------------------


def test_a_healthy_run_says_nothing(photos: Path) -> None:
    found, printed = train(tiny(photos, evaluate=True))
    assert found == []
    assert "health:" not in printed
    assert all(line["spread"] > 0.25 for line in lines(Path("runs/r"), "look"))


def ignore_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = DcganGenerator.forward
    monkeypatch.setattr(DcganGenerator, "forward", lambda self, z: forward(self, torch.ones_like(z)))


def test_collapse(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that does not look at its latent vector draws one picture."""
    ignore_latents(monkeypatch)
    (found,), printed = train(tiny(photos))
    assert (found["finding"], found["since_step"]) == ("collapse", 5)
    assert "0.00 of what the photographs' do" in found["what"]
    assert_said(found, printed)


def test_a_collapse_that_comes_late_and_passes(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The looks at steps 15 to 25 meet a generator whose pictures differ less."""
    forward, looks = DcganGenerator.forward, []

    def collapsing(self: DcganGenerator, z: Tensor) -> Tensor:
        if not self.training and len(z) == shared.DRAW_BATCH:
            looks.append(1)
        share = 0.2 if not self.training and 4 < len(looks) <= 10 else 1.0
        return forward(self, z) * share

    monkeypatch.setattr(DcganGenerator, "forward", collapsing)
    (found, passed), printed = train(tiny(photos))
    assert (found["finding"], found["since_step"], found["over"]) == ("collapse", 15, False)
    assert "draws fewer different pictures" in found["what"]
    assert (passed["finding"], passed["step"], passed["over"]) == ("collapse", 30, True)
    assert "health: collapse has passed." in printed


def test_the_discriminator_wins(photos: Path) -> None:
    """A generator that hardly learns loses against a quick discriminator."""
    plan = tiny(photos, lr=1e-2)
    optimizer = dataclasses.replace(plan.config.optimizer, generator_lr=1e-9)
    (found,), printed = train(tiny(photos, optimizer=optimizer))
    assert found["finding"] == "discriminator wins"
    assert "right about 100% of the photographs and 100% of the generated" in found["what"]
    assert_said(found, printed)


def test_augmentation_leaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the photographs are augmented, so that the generator has to learn the augmentation."""
    real = Trainer._real

    def augmented(self: Trainer, pictures: np.ndarray, count: int) -> Tensor:
        return augment(real(self, pictures, count), self.config.augment).clamp(-1, 1)

    monkeypatch.setattr(Trainer, "_real", augmented)
    monkeypatch.setattr("bonsaigan.training.trainer.augment", lambda images, names: images)
    monkeypatch.setattr(monitor, "is_look", lambda step: step % 40 == 0)
    photos = make_photos(tmp_path / "colourful", contrast=15.0)
    (found,), printed = train(tiny(photos, steps=200, lr=2e-3, evaluate=True, augment=("colour",)))
    assert found["finding"] == "augmentation leaks"
    assert "its changed colours" in found["what"]
    assert_said(found, printed)
    assert 'set "augment" to [] in the run\'s config.json' in found["advice"]
    path = Path("runs/r") / runs.CONFIG_FILE
    path.write_text(path.read_text().replace('"colour"', ""))
    session.resume("r", budget=Budget(steps=201))
    assert runs.read_config(Path("runs/r")).augment == ()


def test_stalled(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After step 5 nothing is learned any more."""
    anneal = Trainer.anneal

    def ending(self: Trainer) -> None:
        anneal(self)
        for group in (*self.generator_adam.param_groups, *self.discriminator_adam.param_groups):
            group["lr"] *= self.progress.step < LOOK_EVERY

    monkeypatch.setattr(Trainer, "anneal", ending)
    (found,), printed = train(tiny(photos, evaluate=True))
    assert (found["finding"], found["since_step"]) == ("stalled", 5)
    assert_said(found, printed)


def failing_loss(at: int, wrong: Callable[[Tensor], Tensor]) -> recipes.Recipe:
    recipe, calls = recipes.find("dcgan"), []

    def generator(real: Any, fake: Any) -> Tensor:
        calls.append(1)
        loss = recipe.loss.generator(real, fake)
        return wrong(loss) if len(calls) == at else loss

    return dataclasses.replace(recipe, loss=dataclasses.replace(recipe.loss, generator=generator))


def test_not_finite_and_gone_on_from(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator's loss is infinite once, at step 8; what was saved before is good, and goes on."""
    monkeypatch.setattr(loop, "SAVE_EVERY_SEC", 0)
    plan = tiny(photos)
    with monkeypatch.context() as patch:
        patch.setitem(recipes.RECIPES, "dcgan", failing_loss(8, lambda loss: loss * float("inf")))
        with pytest.raises(TrainingError, match="step 7"):
            session.start(plan, run="r")
    folder = Path("runs/r")
    (found,) = lines(folder, "health")
    assert (found["finding"], found["since_step"], found["over"]) == ("not finite", 7, False)
    assert found["what"] == "The generator's loss became inf at step 7."
    assert "--lr 0.0005 or --batch 32" in found["advice"]
    session.resume("r")
    _, passed = lines(folder, "health")
    assert (passed["finding"], passed["step"], passed["over"]) == ("not finite", 10, True)


def test_weights_that_are_not_finite_are_neither_shown_nor_saved(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finite loss whose gradient is not finite: the square root of nothing."""
    wrong = failing_loss(10, lambda loss: loss + (loss * 0).sqrt())
    monkeypatch.setitem(recipes.RECIPES, "dcgan", wrong)
    with pytest.raises(TrainingError, match="finite"):
        session.start(tiny(photos), run="r")
    (found,) = lines(Path("runs/r"), "health")
    assert found["finding"] == "not finite"
    assert [p.name for p in Path("runs/r/samples").glob("0*.png")] == ["000005.png"]


def test_findings_survive_a_resume(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ignore_latents(monkeypatch)
    folder = session.start(tiny(photos, steps=16), run="r")
    with (folder / runs.METRICS_FILE).open("a") as file:  # what a killed process would leave
        file.write('{"kind": "look", "step": 20, "spread": 1.0}\n{"kind": "look", "st')
    console = Console(record=True, width=10_000)
    session.resume("r", budget=Budget(steps=30), console=console)
    (found,) = lines(folder, "health")
    assert (found["step"], found["since_step"]) == (15, 5)
    printed = console.export_text().splitlines()
    assert [line[:20] for line in printed if "health" in line] == ["health: Since step 5"]
    assert printed[-2].startswith("health: ")
