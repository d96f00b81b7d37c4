"""The pictures that a run was trained on, found again in the background for the page."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np

from bonsaigan import runs
from bonsaigan.appraise import REAL_MAX, read_real
from bonsaigan.config import read_json
from bonsaigan.data.prepare import find_stored
from bonsaigan.data.selection import spread_places
from bonsaigan.errors import BonsaiganError, RunError
from bonsaigan.evaluation.copies import CopyDetector
from bonsaigan.report import facts

LOOK_AGAIN_SEC = 10.0


class TrainingPictures:
    """A run's training pictures, once they are found again and measured."""

    def __init__(self, folder: Path, *, device: str):
        """
        Args:
            folder: the run.
            device: where they are measured.
        """
        self.folder, self.device = folder, device
        self.state = "asleep"
        """`asleep`, `looking`, `ready`, or why there are none."""
        self.pictures: np.ndarray | None = None
        """uint8 (N, H, W, C)."""
        self.names: list[str] = []
        """Their files' names."""
        self.total = 0
        """How many were trained on: more than there are in `pictures` where these are a sample."""
        self.detector: CopyDetector | None = None
        """Finds the nearest of them."""
        self._lock = threading.Lock()
        self._failed_at: float | None = None

    def found(self) -> TrainingPictures:
        """Itself; the first call begins the search, and one some time after it failed begins another."""
        with self._lock:
            again = self._failed_at is not None and time.monotonic() - self._failed_at > LOOK_AGAIN_SEC
            if self.state == "asleep" or again:
                self.state, self._failed_at = "looking", None
                threading.Thread(target=self._find, daemon=True).start()
        return self

    def _find(self) -> None:
        try:
            self.pictures, self.names, self.total = find_training(self.folder)
            self.detector = CopyDetector(self.pictures, total=self.total, device=self.device)
            self.state = "ready"
        except BonsaiganError as error:
            self._fail(str(error))
        except Exception as error:  # whatever it is, the page must not wait for ever
            self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, why: str) -> None:
        self.state, self._failed_at = why, time.monotonic()


def find_training(folder: Path) -> tuple[np.ndarray, list[str], int]:
    """The training pictures uint8 (N, H, W, C), their names, and how many were trained on, if more.

    Nothing is asked of the network for them.

    Raises:
        BonsaiganError: they are not on this machine.
    """
    if not (folder / runs.DATA_FILE).is_file():
        raise RunError("this generator came without them")
    manifest = read_json(folder / runs.DATA_FILE, limit_bytes=runs.DATA_MAX_BYTES)
    files = facts.items(manifest, "files")
    trained = [place for place, file in enumerate(files) if not facts.mapping(file).get("holdout")]
    names = [facts.text(files[place], "name") for place in trained]
    stored = find_stored(facts.text(manifest, "digest"))
    if stored is not None and len(stored) == len(files):
        places = spread_places(len(trained), REAL_MAX)
        pictures = np.asarray(stored[np.array(trained)[places]])
        return pictures, [names[place] for place in places], len(trained)
    data = runs.read_config(folder).data
    if data.archive is None and data.source.startswith(("caltech101:", "hf:")):
        raise RunError(
            f"they are not on this machine; `bonsaigan evaluate {runs.typed(folder)}` fetches them"
        )
    real = read_real(folder)
    return np.asarray(real.training), [names[place] for place in real.places], real.training_count
