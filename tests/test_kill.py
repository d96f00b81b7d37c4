"""Killed at random moments again and again, a run ends with the weights of one left alone."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bonsaigan.training import checkpoint, session
from bonsaigan.training.session import Wishes
from tests.tiny import assert_equal, make_photos, weights

KILLS, STEPS = 10, 400
CODE = """
import sys
from bonsaigan.training import loop, session
from bonsaigan import runs
loop.SAVE_EVERY_SEC = 0.2
wishes = session.Wishes(size="32", steps=400, batch=4, width=64, precision="fp32", evaluate=False)
if (runs.RUNS_DIR / "killed" / "config.json").exists():
    session.resume("killed")
else:
    session.start(session.plan(sys.argv[1], wishes), run="killed")
"""


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BONSAIGAN_CACHE", str(tmp_path / "cache"))
    photos = make_photos(tmp_path / "photos")
    wishes = Wishes(size="32", steps=STEPS, batch=4, width=64, precision="fp32", evaluate=False)
    whole = session.start(session.plan(str(photos), wishes), run="whole")
    rng = random.Random(0)
    killed = 0
    while killed < KILLS:
        child = subprocess.Popen([sys.executable, "-c", CODE, str(photos)])
        time.sleep(rng.uniform(2.5, 6.0))
        assert child.poll() is None, "the run ended before it was killed"
        child.kill()
        child.wait()
        killed += 1
    assert checkpoint.exists(Path("runs/killed/checkpoint")), "no kill came after a save"
    session.resume("killed")
    assert_equal(weights(whole), weights(Path("runs/killed")))
