"""Files that survive: flushed to the disk, and replaced whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import IO, BinaryIO

from bonsaigan.errors import CheckpointError

PAUSES_SEC = (0.02, 0.1, 0.5, 1.0) if os.name == "nt" else ()
"""Windows does not replace a file that someone reads just now: it is tried again after so long."""


def fresh_name(path: Path) -> Path:
    """A name beside `path` for what will replace it: no other process writes there."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(4)}.writing{path.suffix}")


def open_to_add(path: Path, mode: str) -> IO[bytes]:
    """A file to write on in, made if need be; an OSError where a stranger's folder has a link or a pipe.

    Args:
        path: where.
        mode: `ab` or `r+b`.
    """
    plain = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return open(path, mode, opener=lambda name, flags: os.open(name, flags | plain, 0o666))


def open_new(path: Path) -> BinaryIO:
    """A new file to write, never the one that a link there leads to: the folder may be a stranger's."""
    path.unlink(missing_ok=True)
    return path.open("xb")


def write_durably(path: Path, data: bytes) -> None:
    """Write and flush to the disk itself."""
    with open_new(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that a reader sees the old content or the new, never a part.

    Raises:
        CheckpointError: the disk is full or not writable; the old file is untouched.
    """
    fresh = fresh_name(path)
    try:
        write_durably(fresh, data)
        replace_patiently(fresh, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise CheckpointError(f"cannot save {path}: {error.strerror}; the old file is kept") from None


def replace_patiently(fresh: Path, path: Path) -> None:
    """`fresh.replace(path)`, of a file or a folder, again after a pause where Windows refuses it.

    Raises:
        OSError: it cannot be done.
    """
    for pause_sec in PAUSES_SEC:
        try:
            fresh.replace(path)
        except PermissionError:
            time.sleep(pause_sec)
        else:
            return
    fresh.replace(path)
