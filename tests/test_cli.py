"""The commands as a user types them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bonsaigan import cli
from bonsaigan.training import session
from tests.hostile import make_folder
from tests.typing_in import run

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "no-such-folder"], "no-such-folder"),
        (["train", "demo:bonsai", "--recipe", "projectd"], "did you mean projected"),
        (["train", "demo:bonsai", "--size", "65"], "--size 65"),
        (["train", "demo:bonsai", "--minutes", "0"], "--minutes"),
        (["train", "demo:bonsai", "--minutes", "1", "--steps", "1"], "exactly one"),
        (["train", "demo:bonsai", "--fit", "bend"], "--fit 'bend'"),
        (["train", "~no-such-user/photos"], "no-such-user"),
        (["train", "demo:bonsai", "--device", "cuda9"], "--device 'cuda9'"),
        (["walk", "starter:bonsai", "--device", "cuda:0"], "--device cuda: there is none here"),
        (["walk", "starter:bonsai", "--device", "a:b"], "--device 'a:b'"),
        (["train", "demo:bonsai:8", "--recipe", "r3gan", "--precision", "fp16"], "--precision fp16"),
        (["train", "demo:bonsai:8", "--batch", "1"], "--batch 1"),
        (["train", "demo:bonsai:8", "--batch", "8", "--accumulate", "3"], "--batch 8: --accumulate 3"),
        (["train", "demo:bonsai:8", "--patience", "3", "--no-evaluate"], "--patience 3"),
        (["train", "demo:bonsai:8", "--resume"], "--run NAME"),
        (["train", "demo:bonsai:8", "--steps", "1", "--run", ""], "--run ''"),
        (["generate", "no-such-run"], "no-such-run"),
        (["resume"], "no runs"),
        (["resume", "starter:bonsai"], "not trained here"),
        (["train", "demo:bonsai:8", "--init", "starter:bonsai"], "no saved state"),
        (["train", "demo:bonsai:8", "--width", "5000"], "--width 5000"),
        (["report"], "no runs"),
        (["report", "no-such-run"], "no-such-run"),
        (["doctor", "no-such-folder"], "no-such-folder"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments: list[str], said: str, tmp_path: Path) -> None:
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_resume_goes_on_with_the_same_data_or_not_at_all(tmp_path: Path) -> None:
    own = ("--run", "r", "--size", "32", "--width", "32", "--no-evaluate")
    assert run("train", "demo:bonsai:8", *own, "--steps", "1", cwd=tmp_path).returncode == 0
    before = (tmp_path / "runs" / "r" / "config.json").read_bytes()
    for more, said in (
        (("demo:bonsai:9",), "DATA 'demo:bonsai:9': not the pictures that runs/r began with (1 new, 0 gone)"),
        (("demo:bonsai:8", "--dry-run"), "--dry-run: --run 'r' is there already"),
        (("demo:bonsai:8", "--seed", "3"), "--seed 3: --run 'r' is there already"),
        (("demo:bonsai:8", "--size", "64"), "--size 64: "),
        (("demo:bonsai:8", "--no-flip"), "--no-flip: "),
        (("demo:bonsai:8", "--evaluate"), "--evaluate: "),
    ):
        result = run("train", *own, "--resume", *more, "--steps", "3", cwd=tmp_path)
        assert (result.returncode, said in result.stderr) == (2, True), result.stderr
    assert (tmp_path / "runs" / "r" / "config.json").read_bytes() == before
    again = run("train", "./demo:bonsai:8", *own, "--resume", "--steps", "1", cwd=tmp_path)
    assert again.returncode == 0, again.stderr


def test_doctor_keeps_its_picture_away_from_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    make_folder(folder, good=8)
    inside = run("doctor", ".", "--out", "sheet.png", cwd=folder)
    assert (inside.returncode, "lies among the pictures" in inside.stderr) == (2, True)
    assert run("doctor", ".", cwd=folder).returncode == 0
    assert (tmp_path / "doctor.png").is_file()
    assert not (folder / "doctor.png").exists()


def test_a_link_in_a_circle_and_a_format_that_is_only_read_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    make_folder(tmp_path / "photos", good=8)
    for arguments, said in (
        (("doctor", "circle"), "circle"),
        (("doctor", "photos", "--out", "sheet.psd"), "cannot write there: no such format"),
    ):
        result = run(*arguments, cwd=tmp_path)
        assert result.returncode == 2
        assert said in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr


def test_what_cannot_be_written_is_one_line_too(tmp_path: Path) -> None:
    (tmp_path / "generator-bonsai").touch()  # where the report of the starter goes
    result = run("report", "starter:bonsai", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.splitlines() == ["bonsaigan: generator-bonsai: File exists"]


def test_hostile_files_are_left_out_and_named(tmp_path: Path) -> None:
    kinds = make_folder(tmp_path / "photos", good=100)
    assert len(kinds) == 30
    quick = ("--recipe", "dcgan", "--width", "32", "--steps", "1", "--no-evaluate")
    result = run("train", "photos", *quick, "--run", "r", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    examined = run("doctor", "photos", cwd=tmp_path)
    assert examined.returncode == 0, examined.stderr
    assert (tmp_path / "doctor.png").exists()
    known = json.loads((tmp_path / "runs" / "r" / "data.json").read_text(encoding="utf-8"))
    assert known["left_out"]
    in_table = " ".join(examined.stdout.split())
    in_data = json.dumps(known, ensure_ascii=False)
    for name in kinds:
        assert " ".join(name.split()) in in_table, name
        assert json.dumps(name, ensure_ascii=False)[1:-1] in in_data, name
    assert "\x1b" not in result.stdout + examined.stdout


def test_from_drawn_pictures_to_new_ones(tmp_path: Path) -> None:
    """Commands in processes of their own, as users have them."""

    def start(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bonsaigan", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)

    made = start("train", "demo:bonsai:16", "--size", "32", "--width", "64", "--steps", "2", "--no-evaluate")
    assert made.returncode == 0, made.stderr
    for command, extra, count in ((start, [], 65), (partial(run, cwd=tmp_path), ["--grid"], 1)):
        result = command("generate", "-n", "65", *extra, "--out", f"out{count}")
        assert result.returncode == 0, result.stderr
        assert len(list((tmp_path / f"out{count}").glob("*.png"))) == count
    assert (tmp_path / "out65" / "seed000064.png").exists()
    refused = start("train", "nowhere")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert refused.stderr.startswith("bonsaigan: DATA 'nowhere': no such folder or archive")


def test_a_dry_run_tells_the_time_and_writes_no_run(tmp_path: Path) -> None:
    result = run("train", "demo:bonsai:8", "--size", "32", "--steps", "100", "--dry-run", cwd=tmp_path)
    assert "minutes" in result.stdout, result.stderr
    assert '"recipe": "projected"' in result.stdout
    assert not (tmp_path / "runs").exists()


def test_recipes_are_listed(tmp_path: Path) -> None:
    assert "article" in run("recipes", cwd=tmp_path).stdout


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
def test_every_command_and_flag_in_the_documents_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    group = typer.main.get_command(cli.app)
    assert hasattr(group, "commands")
    commands = group.commands  # pyright: ignore[reportAttributeAccessIssue]
    shown = re.findall(r"bonsaigan\s+([a-z-]+)((?:[^`\n#|]|\n(?=--))*)", text)
    named = [(name, words) for name, words in shown if name in commands]
    if page == "README.md":
        assert {name for name, _ in named} == set(commands)
    for name, words in named:
        flags = {flag for parameter in commands[name].params for flag in parameter.opts}
        for flag in re.findall(r"(?<!\S)--[a-z-]+", words):
            assert flag in flags, f"bonsaigan {name} has no {flag}"
    # A command line of a block starts with a command that there is.
    for name in re.findall(r"^    bonsaigan ([a-z-]+)", text, re.MULTILINE):
        assert name in commands


def test_help_says_every_word_and_every_default() -> None:
    group = typer.main.get_command(cli.app)
    for name, command in group.commands.items():  # pyright: ignore[reportAttributeAccessIssue]
        shown = CliRunner().invoke(cli.app, [name, "--help"], env={"COLUMNS": "400"}).output
        for parameter in command.params:
            assert parameter.help in shown, f"bonsaigan {name}: {parameter.name}"
            if isinstance(parameter.show_default, str):
                assert f"[default: ({parameter.show_default})]" in shown, (
                    f"bonsaigan {name}: {parameter.name}"
                )
    minutes = next(p for p in group.commands["train"].params if p.name == "minutes")  # pyright: ignore
    assert float(minutes.show_default) == session.DEFAULT_MINUTES


def test_doctor_examines_the_installation(tmp_path: Path) -> None:
    result = run("doctor", "--self", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for said in ("torch", "cache", "efficientnet_lite0", "one step", "works: "):
        assert said in result.stdout
    assert list(tmp_path.iterdir()) == []
    assert "either DATA" in run("doctor", cwd=tmp_path).stderr
