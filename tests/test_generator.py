from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from typer.testing import CliRunner

from bonsaigan import cli, runs
from bonsaigan.config import NetworkConfig, Size
from bonsaigan.errors import ConfigError, RunError
from bonsaigan.explore.film import save_film
from bonsaigan.generator import (
    Generator,
    GeneratorSpec,
    load,
    read_generator,
    save_generator,
    seed_latents,
    slerp,
)
from bonsaigan.models import build_generator
from bonsaigan.plots import save_png


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    network = NetworkConfig(latent=16, width=64, discriminator_width=8)
    size = Size(width_px=48, height_px=32)
    spec = GeneratorSpec(family="fastgan", network=network, size=size, channels=3, recipe="projected", step=5)
    return Generator(build_generator("fastgan", network=network, size=size, channels=3), spec)


def test_a_seed_is_the_same_picture_whatever_the_batch(generator: Generator) -> None:
    many = generator.images(generator.latents(range(40)))
    for seed in (0, 7, 15, 16, 39):
        alone = generator.images(generator.latents([seed]))
        np.testing.assert_array_equal(alone[0], many[seed])
    assert len({picture.tobytes() for picture in many}) == 40


def test_it_comes_back_from_disk_the_same(generator: Generator, tmp_path: Path) -> None:
    save_generator(tmp_path, generator.network, generator.spec)
    again = read_generator(tmp_path)
    z = generator.latents(range(3))
    assert again.spec == generator.spec
    np.testing.assert_array_equal(again.images(z), generator.images(z))


def test_damaged_and_foreign_files_are_one_clear_error(generator: Generator, tmp_path: Path) -> None:
    save_generator(tmp_path, generator.network, generator.spec)
    good = json.loads((tmp_path / "generator.json").read_text())
    for change in (
        {"family": "__import__"},
        {"channels": 7},
        {"network": {}},
        {"surprise": 1},
        {"format": "x"},
    ):
        (tmp_path / "generator.json").write_text(json.dumps({**good, **change}))
        with pytest.raises(RunError):
            read_generator(tmp_path)
    (tmp_path / "generator.json").write_text(json.dumps({**good, "channels": 1}))
    with pytest.raises(RunError, match="does not fit"):
        read_generator(tmp_path)
    (tmp_path / "generator.json").write_text(json.dumps(good))
    (tmp_path / "generator.safetensors").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(RunError):
        read_generator(tmp_path)
    tensors = generator.network.state_dict()
    variance = next(name for name in tensors if name.endswith("running_var"))
    for value, said in ((-1.0, "is a variance, and below 0"), (float("nan"), "finite")):
        spoilt = {key: t.clone().contiguous() for key, t in tensors.items()}
        spoilt[variance][0] = value
        (tmp_path / "generator.safetensors").write_bytes(save(spoilt))
        with pytest.raises(RunError, match=said):
            read_generator(tmp_path)


def test_a_link_in_a_strangers_run_is_not_written_through(generator: Generator, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    for name in ("generator.json", "a.png", "b.webp"):
        (tmp_path / name).symlink_to(mine)
    save_generator(tmp_path, generator.network, generator.spec)
    pictures = generator.images(generator.latents([1, 2]))
    save_png(tmp_path / "a.png", pictures[0])
    save_film(tmp_path / "b.webp", pictures)
    assert mine.read_text() == "mine"
    assert not any((tmp_path / name).is_symlink() for name in ("generator.json", "a.png", "b.webp"))


def test_a_seed_is_the_same_latent_vector_for_ever() -> None:
    """Published pages and pictures that people shared hang on these numbers."""
    known = torch.tensor(
        [
            [0.9514791, -0.6695998, 0.2539142],
            [2.2719285, 0.4321371, -1.1065111],
            [-0.2015346, 1.1738111, -0.5987896],
        ]
    )
    found = seed_latents([0, 7, 2**32 - 1], latent=16)
    torch.testing.assert_close(found[:, :3], known, rtol=0, atol=1e-6)


def test_interpolation_begins_and_ends_at_its_ends(generator: Generator) -> None:
    frames = generator.interpolate(3, 9, frames=5)
    ends = generator.images(generator.latents([3, 9]))
    assert np.abs(frames[0].astype(int) - ends[0]).max() <= 1
    assert np.abs(frames[-1].astype(int) - ends[1]).max() <= 1
    of_numpy = generator.interpolate(np.int64(3), generator.latents([9]), frames=5)  # pyright: ignore
    np.testing.assert_array_equal(of_numpy, frames)


def test_slerp_keeps_the_length_of_equally_long_vectors() -> None:
    a, b = torch.randn(2, 32)
    b = b * (a.norm() / b.norm())
    lengths = slerp(a, b, torch.linspace(0, 1, 9)).norm(dim=1)
    torch.testing.assert_close(lengths, a.norm().expand(9))


def test_truncation_brings_pictures_nearer_together(generator: Generator) -> None:
    def spread(truncation: float) -> float:
        return float(torch.pdist(generator.latents(range(50), truncation=truncation)).mean())

    assert spread(0.3) < spread(0.7) < spread(1.0)
    with pytest.raises(ConfigError, match="--truncation"):
        generator.latents([0], truncation=1.5)
    with pytest.raises(ConfigError, match="--seed"):
        generator.latents([-1])


def test_the_starter_draws_at_once_and_its_folder_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = runs.find_run("starter:bonsai")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in card
    assert "Caltech 101" in card
    before = sorted(folder.iterdir())
    for command in (
        ["generate", "starter:bonsai", "-n", "3", "--grid"],
        ["directions", "starter:bonsai", "-k", "2"],
        ["mix", "1", "2", "starter:bonsai"],
        ["report", "starter:bonsai"],
        ["export", "starter:bonsai"],
    ):
        done = CliRunner().invoke(cli.app, command)
        assert done.exit_code == 0, done.output
    assert (tmp_path / "generator-bonsai/directions.png").is_file()
    assert [path.name for path in (tmp_path / "generator-bonsai/generated").iterdir()] == [
        "grid-seed000000-n3.png"
    ]
    report = (tmp_path / "generator-bonsai/report.html").read_text(encoding="utf-8")
    assert "bonsaigan generate starter:bonsai" in report
    assert str(folder) not in report
    exported = (tmp_path / "generator-bonsai/export/safetensors/README.md").read_text(encoding="utf-8")
    for said in ("Please cite: Li, F.-F.", "CC BY 4.0", "| KID ×1000 | 6.6 |", "By whoever trained it"):
        assert said in exported
    assert sorted(folder.iterdir()) == before
    pictures = load("starter:bonsai").images(load("starter:bonsai").latents(range(8)))
    assert pictures.std(axis=0).mean() > 20
    with pytest.raises(RunError, match="choose one of bonsai"):
        runs.find_run("starter:oak")
