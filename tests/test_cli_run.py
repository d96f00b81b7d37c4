"""The commands that use a run, on one that was really trained for two steps."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import bonsaigan
from bonsaigan.cli_run import EXPORTS
from tests.tiny import make_photos
from tests.typing_in import run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    quick = ("--size", "32", "--steps", "2", "--width", "64", "--no-evaluate")
    made = run("train", "demo:bonsai:24", *quick, "--run", "r", cwd=folder)
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[-1] == "report: runs/r/report.html"
    return folder


def test_evaluate_says_scores_floors_and_copies(place: Path) -> None:
    first = run("evaluate", "r", "-n", "24", cwd=place)
    assert first.returncode == 0, first.stderr
    for word in ("KID", "coverage", "efficientnet-lite2", "copy"):
        assert word in first.stdout
    result = json.loads((place / "runs/r/metrics.json").read_text())
    assert result["scores"]["generated_count"] == 24
    with Image.open(place / "runs/r/closest.png") as pairs:
        assert pairs.width == 4 * 66 + 3 * 10
    assert run("evaluate", "r", "-n", "24", cwd=place).stdout == first.stdout


def test_a_report_is_written_on_demand(place: Path) -> None:
    page = place / "runs/r/report.html"
    page.unlink()
    result = run("report", cwd=place)
    assert (result.returncode, result.stdout) == (0, "runs/r/report.html\n"), result.stderr
    assert "bonsaigan generate r" in page.read_text(encoding="utf-8")


def test_a_grid_that_memory_does_not_hold_is_refused(place: Path) -> None:
    result = run("generate", "r", "-n", "200000", "--grid", cwd=place)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "bonsaigan: -n 200000 in one --grid: 585 MiB, at most 256 fit\n"


def test_generate_can_leave_out_copies(place: Path) -> None:
    result = run("generate", "r", "-n", "4", "--avoid-copies", "--out", "kept", cwd=place)
    assert result.returncode == 0, result.stderr
    assert len(list((place / "kept").glob("*.png"))) == 4


@pytest.mark.parametrize("recipe", ["article", "projected"])
def test_diagram_tells_the_layers(place: Path, recipe: str) -> None:
    result = run("diagram", recipe, "--out", f"d-{recipe}", cwd=place)
    assert result.returncode == 0, result.stderr
    if recipe == "article":
        assert "3,750,275" in result.stdout
        assert "660,929" in result.stdout
    assert {"generator.dot", "discriminator.dot", "combined.dot"} <= {
        p.name for p in (place / f"d-{recipe}").iterdir()
    }


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own
def test_a_generator_goes_to_keras(place: Path) -> None:
    pytest.importorskip("keras")
    result = run("export", "r", "--to", "keras", "--out", "g.keras", cwd=place)
    assert result.returncode == 0, result.stderr
    assert "compared in Keras" in result.stdout
    assert (place / "g.keras").stat().st_size > 10_000
    assert run("export", "r", "--to", "tflite", cwd=place).returncode == 2


def test_a_file_that_is_not_from_keras_is_refused(place: Path) -> None:
    (place / "bad.keras").write_bytes(b"PK\x03\x04 nonsense")
    result = run("import-keras", "bad.keras", cwd=place)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.filterwarnings("ignore")  # the libraries' own
def test_what_goes_out_says_nothing_of_this_machine(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs the extra onnx")
    pytest.importorskip("h5py", reason="needs the extra keras")
    photos = make_photos(tmp_path / "private" / "trees")
    quick = ("--recipe", "dcgan", "--size", "32", "--width", "32", "--steps", "1", "--no-evaluate")
    made = run("train", str(photos), *quick, "--run", "r", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    for to in EXPORTS:
        done = run("export", "r", "--to", to, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    files = [p for p in (tmp_path / "runs/r/export").rglob("*") if p.is_file()]
    assert {p.suffix for p in files} >= {".safetensors", ".json", ".md", ".onnx", ".html", ".pt2", ".keras"}
    here = (str(tmp_path), "private", str(Path(bonsaigan.__file__).parent), sys.prefix)
    for path in (*files, tmp_path / "runs/r/generator.json"):
        parts = [path.read_bytes()]
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as packed:
                parts += [packed.read(name) for name in packed.namelist()]
        assert not [place for place in here for part in parts if place.encode() in part], path


def test_a_generator_goes_out_and_comes_back(place: Path) -> None:
    pytest.importorskip("onnx", reason="needs the extra onnx")
    for to in ("safetensors", "web"):
        result = run("export", "r", "--to", to, cwd=place)
        assert result.returncode == 0, result.stderr
        assert "8 pictures compared" in result.stdout
        assert (place / "runs/r/export" / to).is_dir()
    card = (place / "runs/r/export/safetensors/README.md").read_text(encoding="utf-8")
    for said in ("24 pictures, demo:bonsai:24", "CC0 1.0", "Recipe `projected`, step 2", "## Copies"):
        assert said in card
    page = (place / "runs/r/export/web/README.md").read_text(encoding="utf-8")
    assert "any web server" in page
    assert "bonsaigan.load" not in page
    assert (
        json.loads((place / "runs/r/generator.json").read_text())["source"] == "24 pictures, demo:bonsai:24"
    )
    result = run("generate", "runs/r/export/safetensors", "-n", "2", "--out", "back", cwd=place)
    assert result.returncode == 0, result.stderr
    assert len(list((place / "back").glob("*.png"))) == 2
    result = run("export", "r", "--push", "trees", cwd=place)
    assert (result.returncode, "expected OWNER/NAME" in result.stderr) == (2, True)
