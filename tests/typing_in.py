"""Commands as a user types them, in this process: a new one would import torch again, which takes seconds."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from bonsaigan import cli


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `bonsaigan ARGUMENTS` in a folder: its status, and what it printed."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["bonsaigan", *arguments])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as end:
                status = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())
