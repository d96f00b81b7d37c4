"""Locks that are the system's: they end with the process that holds them, however it ends."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bonsaigan.durable import open_to_add


@contextmanager
def hold(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file `path`, which is made if need be and stays there, against every other process.

    Args:
        wait: for the process that holds it; else `BlockingIOError` says that there is one.

    Returns:
        Whether it is held: some network file systems have no locks, and then all go on without.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the file cannot be made.
    """
    with open_to_add(path, "ab") as file:
        yield _lock(file.fileno(), wait=wait)


def machine() -> str:
    """A short word for this machine. On some network file systems locks hold within it alone, so what a lock
    guards while it is being made carries the word in its name."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _lock(handle: int, *, wait: bool) -> bool:
    if os.name == "nt":
        return _lock_on_windows(handle, wait=wait)
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _lock_on_windows(handle: int, *, wait: bool) -> bool:
    import msvcrt

    while True:
        try:
            os.lseek(handle, 0, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EDEADLK):
                return False
            if not wait:
                raise BlockingIOError(error.errno, "held by another process") from None
            time.sleep(0.1)
        else:
            return True
