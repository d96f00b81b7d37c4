"""The commands that walk in what a generator learnt, on a tiny one."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from bonsaigan import cli, cli_explore, plots, runs
from bonsaigan.errors import BonsaiganError
from bonsaigan.explore import timelapse as lapse
from bonsaigan.generator import Generator, load, save_generator
from tests.test_explore import make, read_film, small

__all__ = ["small"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explore") / "run"
    generator = make()
    save_generator(folder, generator.network, generator.spec)
    pictures = generator.images(generator.latents(range(4)))
    for step in (5, 10):
        plots.save_grid(folder / runs.SAMPLES_DIR / f"{step:06d}.png", pictures // step, columns=2)
    return folder


def call(*arguments: object) -> Result:
    result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    if isinstance(result.exception, BonsaiganError):
        return result
    assert result.exit_code == 0, result.output
    return result


def test_walk_writes_a_film_and_says_how_even_it_is(folder: Path) -> None:
    said = call("walk", folder, "--seeds", "3,9", "--seconds", 1, "--fps", 12).output
    assert said.startswith(f"12 frames in {folder}/walk.mp4; steps from frame to frame vary by")
    assert len(read_film(folder / "walk.mp4")) == 12
    target = folder / "films" / "grid.webp"
    call("walk", folder, "--grid", "2x1", "--stops", 2, "--seconds", 0.5, "--fps", 8, "--out", target)
    with Image.open(target) as film:
        assert film.n_frames == 4  # pyright: ignore[reportAttributeAccessIssue]
        assert film.width / film.height == pytest.approx(98 / 32, rel=0.01)


def test_timelapse_writes_a_film(folder: Path) -> None:
    said = call("timelapse", folder, "--seconds", 1, "--fps", 9).output
    assert said == f"9 frames in {folder}/timelapse.mp4\n"
    assert (folder / "timelapse.mp4").stat().st_size > 500


def test_invert_shows_target_nearest_and_find(folder: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    Image.effect_mandelbrot((90, 60), (-2, -1, 1, 1), 50).save(photo)
    said = call("invert", photo, folder, "--steps", 2).output
    assert "of the distance between two different pictures" in said
    with Image.open(folder / "inverted-photo.png") as picture:
        assert picture.size == (3 * 50 - 2, 32)


def test_directions_are_told_and_drawn(folder: Path) -> None:
    lines = call("directions", folder, "-k", 2).output.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["0", "1"]
    with Image.open(folder / "directions.png") as picture:
        assert picture.size == (7 * 50 - 2, 2 * 34 - 2)


def test_mix_draws_what_python_draws(folder: Path) -> None:
    path = call("mix", 3, 4, folder, "--levels", "0").output.strip()
    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), load(folder).mix(3, 4, levels=[0]))


def test_what_cannot_be_written_is_told_before_the_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("walk", "invert", "directions"):
        monkeypatch.setattr(Generator, name, None)
    monkeypatch.setattr(lapse, "timelapse", None)
    (tmp_path / "file").touch()
    for command, out in (
        (["walk"], "file/a.mp4"),
        (["timelapse"], "file/a.webp"),
        (["invert", tmp_path / "file"], "file/a.png"),
        (["directions"], "file/a.png"),
    ):
        result = call(*command, folder, "--out", tmp_path / out)
        assert re.search(r"--out '.*': cannot write there: ", str(result.exception)), command
    monkeypatch.setattr(cli_explore.os, "access", lambda _path, _mode: False)
    assert "Permission denied" in str(call("walk", folder, "--out", tmp_path / "a.mp4").exception)
    (tmp_path / "a.png").mkdir()
    monkeypatch.undo()
    assert "Is a directory" in str(call("directions", folder, "--out", tmp_path / "a.png").exception)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["walk", "RUN", "--out", "a.avi"], r"a\.avi.*\.mp4"),
        (["walk", "RUN", "--seeds", "3,x"], "--seeds '3,x'"),
        (["walk", "RUN", "--seeds", "3"], "two or more"),
        (["walk", "RUN", "--grid", "0x2"], "--grid '0x2'"),
        (["walk", "RUN", "--grid", "00x3"], "--grid '00x3'"),
        (["walk", "RUN", "--seconds", "0.1"], "2 frames for 5 stops"),
        (["walk", "RUN", "--seconds", "600", "--fps", "60", "--grid", "8x8"], "MiB, at most 1024 fit"),
        (["walk", "RUN", "--out", "a.gif", "--fps", "60"], "--fps 60: must be above 0 up to 50"),
        (["invert", "no-such.jpg", "RUN"], "no-such.jpg"),
        (["invert", "no-such.jpg", "no-such-run"], "no-such-run"),
        (["directions", "RUN", "-k", "99"], "99 directions"),
        (["mix", "1", "2", "RUN", "--levels", "7"], "--levels 7"),
        (["mix", "1", "2", "RUN", "--out", "a.jpg"], r"a\.jpg"),
    ],
)
def test_a_mistake_is_one_line(folder: Path, arguments: list[str], said: str) -> None:
    result = call(*[str(folder) if a == "RUN" else a for a in arguments])
    assert result.exception is not None
    with pytest.raises(BonsaiganError, match=said):
        raise result.exception
    assert "\n" not in str(result.exception)
