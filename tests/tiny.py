"""Tiny runs: a folder of pictures and settings that train in seconds, for tests that want a real training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bonsaigan import runs
from bonsaigan.training import checkpoint, session
from bonsaigan.training.session import Wishes


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BONSAIGAN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos")


def make_photos(folder: Path, *, mode: str = "RGB", count: int = 10) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    for number in range(count):
        picture = rng.integers(0, 256, (6, 6, channels), dtype=np.uint8)
        image = Image.fromarray(picture[:, :, 0] if mode == "L" else picture)
        image.resize((80, 70), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def tiny(**changes: object) -> Wishes:
    """Wishes for a training of seconds, by the recipe of the quickest steps unless another one is meant."""
    wishes = Wishes(recipe="dcgan", size="32", steps=4, batch=4, width=64, precision="fp32", device="cpu")
    wishes = dataclasses.replace(wishes, evaluate=False)
    return dataclasses.replace(wishes, **changes)  # pyright: ignore[reportArgumentType]


def slim(plan: session.Plan, width: int) -> session.Plan:
    network = dataclasses.replace(plan.config.network, width=width, discriminator_width=width)
    return dataclasses.replace(plan, config=dataclasses.replace(plan.config, network=network))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    tensors, _, warning = checkpoint.load(folder / runs.CHECKPOINT_DIR)
    assert warning is None
    return tensors


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
