"""Workers of pytest-xdist share the cores: one thread each, for them and for the processes they start."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, which is later
