"""Every command that README and docs tell a reader to type is typed: on few pictures, for two steps."""

from __future__ import annotations

import re
import shlex
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bonsaigan import cli
from bonsaigan.training import session
from tests.tiny import make_photos, tiny

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
TYPED_ELSEWHERE = {
    "bonsaigan studio": "test_studio.py",
    "bonsaigan import-keras": "test_cli_run.py",
    "--push": "test_hub.py",
    "hf:": "test_hub.py",
    "--bundle": "test_export_web.py",
}
SHORTER = [
    (r"--minutes \S+", "--steps 2"),
    (r"--batch \S+", ""),
    (r"--device cuda", ""),
    (r"-n \d+", "-n 9"),
    (r"/shared/photos", "photos"),
    (r"new/place", "photos"),
    (r"--init RUN --lr RATE", "--init mine --lr 0.0001"),
]


def commands(page: str) -> list[str]:
    """The lines of a page's code blocks that call bonsaigan, without their comments."""
    found, fenced = [], False
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif (fenced or line.startswith("    ")) and re.match(r"\s*(bonsaigan|torchrun) ", line):
            found.append(line.partition("#")[0].strip())
    return found


def shortened(command: str) -> list[str]:
    """The arguments after `bonsaigan`, for a small and short run."""
    command = command[command.index("bonsaigan ") + len("bonsaigan ") :]
    for pattern, instead in SHORTER:
        command = re.sub(pattern, instead, command)
    words = shlex.split(command)
    if words[0] == "train":
        words += ["--batch", "4", "--width", "32", "--precision", "fp32"]
        words += [] if "--patience" in words else ["--no-evaluate"]
        words += [] if "--steps" in words else ["--steps", "2"]
        words += [] if "--size" in words else ["--size", "32"]
    if words[0] == "evaluate":
        words += ["-n", "16"]
    return words


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_the_commands_of_a_page_work(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BONSAIGAN_CACHE", str(tmp_path / "cache"))
    for name, mode in (("photos", "RGB"), ("sprites", "RGBA"), ("scans", "L"), ("butterflies", "RGB")):
        make_photos(tmp_path / name, mode=mode)
    with zipfile.ZipFile("thousand.zip", "w") as archive:
        for path in sorted(Path("photos").iterdir()):
            archive.write(path)
    told = commands(page)
    if not any("--run mine" in command for command in told):
        session.start(session.plan("photos", tiny(recipe="projected", width=32, steps=2)), run="mine")
    for command in told:
        if not any(part in command for part in TYPED_ELSEWHERE):
            done = CliRunner().invoke(cli.app, shortened(command))
            assert done.exit_code == 0, f"{command}\n{done.output}\n{done.exception}"


@pytest.mark.parametrize(("part", "where"), TYPED_ELSEWHERE.items())
def test_what_is_typed_elsewhere_is(part: str, where: str) -> None:
    text = (ROOT / "tests" / where).read_text(encoding="utf-8")
    assert f'"{part.removeprefix("bonsaigan ")}' in text  # as an argument
