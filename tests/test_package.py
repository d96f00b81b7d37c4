"""The wheel and the sdist: complete, and at work outside the repository."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
USE = """
import sys
sys.path.insert(0, sys.argv[1])
import bonsaigan
assert bonsaigan.__file__.startswith(sys.argv[1]), bonsaigan.__file__
run = bonsaigan.train("demo:bonsai:16", size="32", steps=2, width=64, evaluate=False, device="cpu")
from bonsaigan.cli import app
app(["generate", str(run), "-n", "3", "--out", "new"], standalone_mode=False)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build", reason="needs: pip install build")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_both_hold_what_the_repository_holds(built: Path) -> None:
    source = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src").rglob("*") if p.is_file()}
    source = {name for name in source if "__pycache__" not in name}
    assert "bonsaigan/py.typed" in source
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        assert source <= set(wheel.namelist())
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {f"src/{name}" for name in source} <= names
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml"} <= names
    assert not any(name.startswith(("runs", "benchmarks", ".")) and name != ".gitignore" for name in names)


def test_pins_hold_only_where_there_is_such_a_release() -> None:
    """The oldest Python that is promised must not be asked for releases that were not made for it."""
    promised = re.search(
        r'^requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert promised is not None
    known = 0
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        pin = Requirement(line)
        try:
            needed = metadata.metadata(pin.name)["Requires-Python"]
        except metadata.PackageNotFoundError:
            continue
        known += 1
        if pin.marker is None or pin.marker.evaluate({"python_version": promised[1]}):
            assert f"{promised[1]}.99" in SpecifierSet(needed or ""), f"{line}: made for {needed}"
    assert known > 10


@pytest.mark.slow
def test_the_wheel_trains_and_draws_outside_the_repository(built: Path, tmp_path: Path) -> None:
    """Its own files alone; what it depends on comes from this environment."""
    place = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place)]
    subprocess.run([*pip, str(next(built.glob("*.whl")))], check=True, capture_output=True)
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-I", "-c", USE, str(place)],
        cwd=tmp_path / "elsewhere",
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "elsewhere" / "new").glob("*.png"))) == 3
