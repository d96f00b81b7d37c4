"""Files that survive: flushed to the disk, and replaced whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from bonsaigan.errors import CheckpointError


def write_durably(path: Path, data: bytes) -> None:
    """Write and flush to the disk itself."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that a reader sees the old content or the new, never a part.

    Raises:
        CheckpointError: the disk is full or not writable; the old file is untouched.
    """
    fresh = path.with_name(f"{path.name}.writing")
    try:
        write_durably(fresh, data)
        fresh.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise CheckpointError(f"cannot save {path}: {error.strerror}; the old file is kept") from None
