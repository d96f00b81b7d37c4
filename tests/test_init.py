"""`--init`: a training that starts from another run's networks."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

import bonsaigan
from bonsaigan.config import ComponentsConfig
from bonsaigan.errors import ConfigError
from bonsaigan.training import checkpoint, session
from bonsaigan.training.trainer import Trainer
from tests.tiny import assert_equal, own_folders, photos, tiny, weights

__all__ = ["own_folders", "photos"]


def test_a_run_starts_from_the_networks_of_another(photos: Path) -> None:
    wishes = tiny(recipe="projected", width=32)
    first = session.start(session.plan(str(photos), wishes), run="first")
    plan = session.plan(str(photos), dataclasses.replace(wishes, init="first", seed=1, width=None))
    assert plan.config.network.width == 32
    assert plan.config.components == ComponentsConfig()  # it has a start already
    trainer = Trainer(plan.config, device=torch.device("cpu"))
    assert plan.config.init is not None
    trainer.begin_from(Path(plan.config.init))
    before = weights(first)
    players = {"generator": trainer.generator, "discriminator": trainer.discriminator}
    for name, value in checkpoint.pack(players).items():
        assert torch.equal(value, before[name]), name
    folder = session.start(plan, run="second")
    assert not torch.equal(weights(folder)["generator.start.weight"], before["generator.start.weight"])
    assert checkpoint.load(folder / "checkpoint")[1].step == 4


def test_what_a_run_starts_from_may_go_once_it_has_begun(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.start(session.plan(str(photos), tiny(width=32)), run="first")
    plan = session.plan(str(photos), tiny(init="first", width=None))
    whole = weights(session.start(plan, run="whole"))

    def killed(*_: object) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as before_the_first_step:
        before_the_first_step.setattr(Trainer, "step", killed)
        with pytest.raises(SystemExit):
            session.start(plan, run="second")
    shutil.rmtree("runs/first")
    assert_equal(weights(session.resume("second")), whole)


def test_pictures_kept_away_are_none_that_the_first_run_saw(photos: Path) -> None:
    for run, share in (("all", 0.0), ("most", 0.2)):
        session.start(session.plan(str(photos), tiny(width=32, steps=1, holdout=share)), run=run)
    wishes = tiny(width=None, holdout=0.2)
    with pytest.raises(ConfigError, match=r"--holdout 0\.2: --init '.*all' was trained on 2 of the 2"):
        session.plan(str(photos), dataclasses.replace(wishes, init="all"))
    assert session.plan(str(photos), dataclasses.replace(wishes, init="most")).config.init is not None


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"recipe": "r3gan"}, "its recipe is dcgan, that of this training r3gan"),
        ({"size": "64"}, "its size is 32, that of this training 64"),
        ({"width": 64}, "its width is 32, that of this training 64"),
        ({"init": "frist"}, "did you mean first"),
    ],
)
def test_networks_that_do_not_fit_are_refused(photos: Path, wish: dict[str, object], said: str) -> None:
    session.start(session.plan(str(photos), tiny(width=32, steps=1)), run="first")
    with pytest.raises(bonsaigan.BonsaiganError, match=said):
        session.plan(str(photos), dataclasses.replace(tiny(width=None, init="first"), **wish))  # pyright: ignore


def test_a_run_without_a_saved_state_is_no_start_and_leaves_no_run(photos: Path) -> None:
    first = session.start(session.plan(str(photos), tiny(steps=1)), run="first")
    for name in ("checkpoint", "checkpoint.previous"):
        shutil.rmtree(first / name)
    with pytest.raises(bonsaigan.BonsaiganError, match="no saved state"):
        session.plan(str(photos), tiny(width=None, init="first"))
    (first / "config.json").unlink()  # as where a generator was imported
    with pytest.raises(bonsaigan.BonsaiganError, match="no saved state"):
        session.plan(str(photos), tiny(width=None, init="first"))
