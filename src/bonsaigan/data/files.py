"""What a source hands out: files by name, read one at a time. And how to order and show their names."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bonsaigan.errors import DataError

FILE_MAX_BYTES = 256 << 20
"""A picture file larger than this is left out unread."""

RefusedKind = Literal["refused", "gigantic", "unreadable"]
Progress = Callable[[int, "int | None"], None]
"""Called with what is done and, where it is known, with how much there is in all."""


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file of a source; nothing is read before `read` is called."""

    name: str
    """Path inside the source with forward slashes, as it was found: show it only through `printable`."""
    size_bytes: int
    """Size as the file system or the archive states it."""
    read: Callable[[], bytes]
    """The whole content, from any thread. Raises `Refused` when the file must be left out."""
    identity: str | None = None
    """Stands for the content where reading it is dear (drawn pictures); else the content is hashed."""
    refusal: Refused | None = None
    """Why it must be left out, when that is known without reading."""


class Refused(DataError):
    """One file cannot or must not be read; the others are not affected."""

    def __init__(self, message: str, *, kind: RefusedKind = "refused"):
        super().__init__(message)
        self.kind: RefusedKind = kind


def refuse(name: str, reason: str, *, kind: RefusedKind = "refused") -> SourceFile:
    """A file that says `reason` instead of its content."""

    def read() -> bytes:
        raise Refused(reason, kind=kind)

    return SourceFile(name=name, size_bytes=0, read=read, refusal=Refused(reason, kind=kind))


def too_large(name: str, size_bytes: int) -> SourceFile:
    """A file that is left out for its size alone."""
    limit = f"{FILE_MAX_BYTES >> 20} MiB"
    return refuse(
        name, f"{size_bytes / 2**20:,.0f} MiB; the limit for one picture is {limit}", kind="gigantic"
    )


def printable(name: str) -> str:
    """`name` with every character escaped that could act on a terminal, hide, or reorder the text around it.

    Control and format characters, lone surrogates (bytes that are not UTF-8), odd spaces and the backslash
    itself become `\\n`, `\\x1b`, `\\u202e` and the like. Different names stay different.
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(_escape(c) if c == "\\" or not c.isprintable() else c for c in name)


def visible(text: str) -> str:
    """`text` with everything escaped that `printable` escapes, but backslashes and the ends of its lines.

    For the last step before a terminal: what may hold a name from anywhere, escaped already or not.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else _escape(c) for c in text)


def natural_key(name: str) -> tuple[object, ...]:
    """Sort key that puts `a2` before `a10` and ignores letter case where that does not decide."""
    parts = re.split(r"([0-9]+)", name.casefold())
    # A number is compared by its length without leading zeros, then digit by digit: no limit on its size.
    ranks = [(len(p.lstrip("0")), p.lstrip("0")) if i % 2 else p for i, p in enumerate(parts)]
    return tuple(ranks), name


def is_clutter(name: str) -> bool:
    """Whether a path is one of the hidden or helper files that systems leave behind, not a picture."""
    clutter = {"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"}
    return any(part.startswith(".") or part.casefold() in clutter for part in name.split("/"))


def expanded(path: str | Path) -> Path:
    """The path with `~` replaced; as it is where there is no such user, for a name may begin with it too."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def find_cache_dir(given: Path | None = None) -> Path:
    """Where downloads and prepared sets are kept: `given`, `$BONSAIGAN_CACHE`, or the system's own place.

    Raises:
        DataError: the system has no place for this user.
    """
    if given is not None:
        return Path(given)
    if chosen := os.environ.get("BONSAIGAN_CACHE"):
        return expanded(chosen)
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        raise DataError("this user has no home folder to keep a cache in; set BONSAIGAN_CACHE") from None
    return base / "bonsaigan"


def _escape(character: str) -> str:
    short = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    code = ord(character)
    if character in short:
        return short[character]
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"  # Python's stand-in for a byte that is not UTF-8
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
