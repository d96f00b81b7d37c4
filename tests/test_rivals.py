"""The rivals of the benchmark: the protocol they share, and (slow) each of them for a few steps."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RIVALS = {
    "article_keras": (BENCHMARKS / "article_keras.py", "RIVALS_KERAS_PYTHON"),
    "gan_ada_keras": (BENCHMARKS / "rivals" / "gan_ada_keras.py", "RIVALS_KERAS_PYTHON"),
    "lightweight_gan": (BENCHMARKS / "rivals" / "lightweight_gan.py", "RIVALS_LIGHTWEIGHT_PYTHON"),
}
SMALLER = {
    "lightweight_gan": ["--batch", "2", "--accumulate", "1", "--fmap-max", "16", "--attention"],
    "gan_ada_keras": ["--batch", "4"],
}


@pytest.fixture(scope="module")
def protocol() -> Any:
    """The module `benchmarks/rivals/_protocol.py`."""
    spec = importlib.util.spec_from_file_location("_protocol", BENCHMARKS / "rivals" / "_protocol.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now_sec = 100.0

    def __call__(self) -> float:
        return self.now_sec


class Toy:
    """A method whose steps take as long as they are told, and whose pictures show how many there were."""

    def __init__(self, clock: Clock, step_sec: Iterator[float], *, samples: int) -> None:
        self.clock, self.step_sec, self.samples, self.steps = clock, step_sec, samples, 0

    def step(self) -> None:
        self.clock.now_sec += next(self.step_sec)
        self.steps += 1

    def draw(self) -> dict[str, np.ndarray]:
        self.clock.now_sec += 1000.0
        pictures = np.full((self.samples, 4, 6, 3), self.steps, np.uint8)
        return {"average": pictures, "generator": pictures + 100}

    def progress(self) -> dict[str, float]:
        self.clock.now_sec += 1000.0
        return {"loss": 0.5}


def run_toy(
    protocol: Any, folder: Path, step_sec: list[float], *arguments: str
) -> tuple[dict[str, Any], dict[str, int]]:
    """`steps.json`, and of each file of pictures the step it was drawn at."""
    command = ["--data", "x.npy", "--out", str(folder), "--samples", "2", *arguments]
    asked = protocol.asked(protocol.parser("toy").parse_args(command))
    about = protocol.About(
        method="toy", import_sec=0.1, parameters={"g": 1}, versions={}, settings={"batch": 8}
    )
    clock = Clock()
    protocol.run(Toy(clock, iter(step_sec), samples=2), asked, about, clock=clock)
    drawn = {file.name: int(np.load(file)[0, 0, 0, 0]) for file in folder.glob("*.npy")}
    for name, step in list(drawn.items()):
        if not name.endswith("-generator.npy"):
            assert drawn.pop(name.replace(".npy", "-generator.npy")) == step + 100
    return json.loads((folder / "steps.json").read_text()), drawn


def test_pictures_are_of_the_first_step_at_or_after_each_moment(protocol: Any, tmp_path: Path) -> None:
    steps, drawn = run_toy(protocol, tmp_path, [3.0, 2.0, 2.0, 2.0, 9.0], "--at", "9", "5", "6")
    assert drawn == {"at-5.npy": 2, "at-6.npy": 3, "at-9.npy": 4}
    assert [entry["train_sec"] for entry in steps["drawn"]] == [5.0, 5.0, 7.0, 7.0, 9.0, 9.0]
    assert [(entry["file"], entry["by"], entry["step"]) for entry in steps["drawn"][:2]] == [
        ("at-5.npy", "average", 2),
        ("at-5-generator.npy", "generator", 2),
    ]
    assert steps["steps"] == 4


def test_only_training_is_counted_and_the_first_step_apart(protocol: Any, tmp_path: Path) -> None:
    steps, _ = run_toy(protocol, tmp_path, [30.0, 1.0, 2.0, 3.0], "--at", "31", "36")
    assert (steps["train_sec"], steps["first_step_sec"], steps["median_step_sec"]) == (36.0, 30.0, 2.0)
    assert steps["sampling_sec"] == 2000.0
    assert steps["step_sec"] == [30.0, 1.0, 2.0, 3.0]
    assert steps["settings"] == {"batch": 8, "seed": 0, "samples": 2}
    assert steps["progress"][0] == {"step": 1, "train_sec": 30.0, "loss": 0.5}


def test_a_long_step_serves_all_the_moments_it_passes(protocol: Any, tmp_path: Path) -> None:
    steps, drawn = run_toy(protocol, tmp_path, [50.0, 50.0], "--at", "10", "20", "60")
    assert drawn == {"at-10.npy": 1, "at-20.npy": 1, "at-60.npy": 2}
    assert steps["sampling_sec"] == 2000.0


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        (["--steps", "2"], {"end.npy": 2}),
        (["--steps", "2", "--at", "1", "99"], {"at-1.npy": 1, "end.npy": 2}),
        (["--steps", "2", "--at", "2"], {"at-2.npy": 2}),
    ],
)
def test_a_limit_of_steps_leaves_the_last_pictures(
    protocol: Any, tmp_path: Path, arguments: list[str], files: dict[str, int]
) -> None:
    assert run_toy(protocol, tmp_path, [1.0, 1.0, 1.0], *arguments)[1] == files


def test_pictures_of_another_number_are_an_error(protocol: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="drew uint8"):
        run_toy(protocol, tmp_path, [1.0], "--at", "1", "--samples", "3")


@pytest.mark.parametrize("arguments", [[], ["--at"], ["--at", "0"], ["--steps", "-1"], ["--at", "soon"]])
def test_a_command_line_must_say_when_to_stop(protocol: Any, arguments: list[str]) -> None:
    parser = protocol.parser("toy")
    with pytest.raises(SystemExit):
        protocol.asked(parser.parse_args(["--data", "x.npy", "--out", "o", *arguments]))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.array([{}], dtype=object),
        None,
    ],
)
def test_other_data_is_refused_in_one_line(protocol: Any, tmp_path: Path, array: np.ndarray | None) -> None:
    path = tmp_path / "data.npy"
    if array is not None:
        np.save(path, array)
    with pytest.raises(SystemExit, match=r"--data .*data\.npy") as caught:
        protocol.load_pictures(path)
    assert "\n" not in str(caught.value)


def test_pictures_are_read_as_they_are(protocol: Any, tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), np.uint8)
    np.save(tmp_path / "data.npy", pictures)
    np.testing.assert_array_equal(protocol.load_pictures(tmp_path / "data.npy"), pictures)


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (3, 8), (8, 8), (1, 2)])
def test_batches_show_every_picture_equally_often(protocol: Any, count: int, batch: int) -> None:
    source = protocol.batches(count, batch, np.random.default_rng(0))
    drawn = np.concatenate([next(source) for _ in range(count)])
    assert (np.bincount(drawn, minlength=count) == batch).all()


def test_batches_are_shuffled_anew_and_follow_the_seed(protocol: Any) -> None:
    first, again = (protocol.batches(50, 50, np.random.default_rng(seed)) for seed in (1, 1))
    one, two = next(first), next(first)
    assert (one != two).any()
    np.testing.assert_array_equal(one, next(again))


def test_floats_become_bytes_rounded_and_clipped(protocol: Any) -> None:
    values = np.array([-1.0, 0.0, 0.4 / 255, 0.6 / 255, 1.0, 2.0])
    np.testing.assert_array_equal(protocol.to_uint8(values), np.array([0, 0, 0, 1, 255, 255], np.uint8))


@pytest.mark.parametrize("name", RIVALS)
def test_without_its_framework_a_rival_says_so_in_one_line(name: str, tmp_path: Path) -> None:
    for framework in ("keras", "torch"):
        (tmp_path / f"{framework}.py").write_text("raise ImportError('no framework here')\n")
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, str(RIVALS[name][0]), "--help"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no framework here" in done.stderr
    assert "rivals/README.md" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_trains_a_few_steps(name: str, tmp_path: Path) -> None:
    script, variable = RIVALS[name]
    python = os.environ.get(variable)
    if python is None:
        pytest.skip(f"{variable} names no Python with the environment of benchmarks/rivals/README.md")
    pictures = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)
    np.save(tmp_path / "data.npy", pictures)
    command = [python, str(script), "--data", str(tmp_path / "data.npy"), "--out", str(tmp_path / "out")]
    command += ["--at", "1", "--steps", "2", "--samples", "5", *SMALLER.get(name, [])]
    subprocess.run(command, check=True, timeout=1800)
    steps = json.loads((tmp_path / "out" / "steps.json").read_text())
    assert steps["method"] == name
    assert set(steps["parameters"]) == {"generator", "discriminator"}
    assert steps["drawn"]
    for entry in steps["drawn"]:
        drawn = np.load(tmp_path / "out" / entry["file"])
        assert drawn.dtype == np.uint8
        assert drawn.shape == (5, 64, 64, 3)
        assert drawn.std() > 0
