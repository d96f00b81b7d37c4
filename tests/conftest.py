"""What tests share: threads, a cache, and a browser."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Workers of pytest-xdist share the cores: one thread each, for them and for the processes they start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, which is later
# Whoever runs the tests keeps a cache of their own, and servers of the tests are not reached by a proxy.
_cache = tempfile.TemporaryDirectory(prefix="bonsaigan-tests-", ignore_cleanup_errors=True)
os.environ["BONSAIGAN_CACHE"] = _cache.name
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"
os.environ["_TYPER_FORCE_DISABLE_TERMINAL"] = "1"
settings.register_profile("bonsaigan", deadline=None)  # a busy machine is no fault
settings.load_profile("bonsaigan")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium, where it is installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs: pip install playwright")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        root = os.name == "posix" and os.geteuid() == 0  # Chromium's sandbox refuses root
        opened = started.chromium.launch(executable_path=program, args=["--no-sandbox"] if root else [])
        yield opened
        opened.close()
