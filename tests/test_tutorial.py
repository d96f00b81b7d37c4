"""The tutorial's code runs, block after block, and its figures are there, small, and right."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial"
TEXT = (TUTORIAL / "README.md").read_text(encoding="utf-8")
FIGURE_MAX_BYTES = 600_000


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)


def test_python_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONSAIGAN_CACHE", str(tmp_path))
    code = blocks("python")
    assert len(code) >= 5
    names: dict[str, object] = {}
    for number, block in enumerate(code):
        exec(compile(block, f"tutorial block {number}", "exec"), names)


@pytest.mark.slow
def test_commands_run_in_order(tmp_path: Path) -> None:
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(commands) >= 4
    environment = os.environ | {"BONSAIGAN_CACHE": str(tmp_path / "cache")}
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "bonsaigan"
        call = [sys.executable, "-m", "bonsaigan", *words]
        done = subprocess.run(
            call, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert len(list(tmp_path.glob("runs/*/generated/grid-*.png"))) == 2


def test_every_figure_is_there_and_small() -> None:
    shown = re.findall(r"!\[(.*?)\]\((.*?)\)", TEXT)
    assert len(shown) >= 7
    for alternative, path in shown:
        assert len(alternative) > 20, f"{path}: say what it shows"
        assert 0 < (TUTORIAL / path).stat().st_size < FIGURE_MAX_BYTES


def test_every_section_is_listed() -> None:
    listed = re.findall(r"^\d\. \[.*?\]\(#(.*?)\)$", TEXT, flags=re.MULTILINE)
    titles = re.findall(r"^## (.*)$", TEXT, flags=re.MULTILINE)
    assert listed == [title.lower().replace(".", "").replace(" ", "-") for title in titles]


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tutorial_figures", TUTORIAL / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_stamps_are_transposed_convolutions(figures: ModuleType) -> None:
    small = torch.from_numpy(figures.SMALL)[None, None].float()
    for stamp, stride in ((figures.STAMP, 1), (figures.WIDE_STAMP, 2)):
        theirs = F.conv_transpose2d(small, torch.from_numpy(stamp)[None, None].float(), stride=stride)
        np.testing.assert_array_equal(figures.stamped(stamp, stride=stride), theirs[0, 0].numpy())


def test_figures_are_drawn_again(
    figures: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["figures.py", str(tmp_path)])
    monkeypatch.setattr(figures, "draw_networks", lambda folder: None)  # `diagrams` has its own tests
    figures.main()
    for name, frames in (("convolution", 9), ("transposed_stride_1", 5), ("transposed_stride_2", 5)):
        with (
            Image.open(tmp_path / f"{name}.gif") as drawn,
            Image.open(TUTORIAL / f"figures/{name}.gif") as kept,
        ):
            assert drawn.n_frames == kept.n_frames == frames  # pyright: ignore[reportAttributeAccessIssue]
            assert drawn.size == kept.size
    assert (tmp_path / "game.svg").stat().st_size > 5000
