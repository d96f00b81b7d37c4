"""Zip and tar archives, read member by member; nothing is ever unpacked to disk.

An archive may come from a stranger. Links, devices, sparse and encrypted members and names that point
outside are left out and listed; sizes are bounded before anything is decompressed, so that a bomb costs a
bounded time and little memory and ends in one clear error.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from bonsaigan.data.files import (
    FILE_MAX_BYTES,
    Refused,
    SourceFile,
    is_clutter,
    printable,
    refuse,
    too_large,
)
from bonsaigan.errors import DataError, first_line

MEMBERS_MAX = 250_000
DIRECTORY_MAX_BYTES = 64 << 20
HEADER_MAX_BYTES = 1 << 20
UNPACKED_MIN_BYTES, UNPACKED_MAX_RATIO = 1 << 30, 100
"""An archive may unpack to 1 GiB in any case, and to 100 times its own size; pictures do not shrink more."""
XZ_MEMORY_BYTES = 128 << 20

DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,  # zipfile: a password is needed; RecursionError: chained tar headers
    NotImplementedError,
    ValueError,
    struct.error,
    OverflowError,
)
"""What the readers of the standard library raise on a damaged or hostile archive."""


class Readable(Protocol):
    """All that is asked of a stream."""

    def read(self, size: int, /) -> bytes: ...


def archive_kind(path: Path) -> str | None:
    """`zip`, `tar`, `gz`, `bz2` or `xz` by the first bytes of the file, whatever its name; else None."""
    with path.open("rb") as file:
        head = file.read(512)
    for kind, magic in {"zip": b"PK\x03\x04", "gz": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ\0"}.items():
        if head.startswith(magic):
            return kind
    if head.startswith(b"PK\x05\x06"):
        return "zip"  # an empty one
    return "tar" if head[257:262] == b"ustar" or _is_old_tar(head) else None


def archive_files(path: Path, kind: str) -> Iterator[SourceFile]:
    """The files inside the archive at `path`, in its order; `kind` is what `archive_kind` found.

    Raises:
        DataError: the archive is damaged, has too many members, or would unpack to far more than its size.
    """
    if kind == "zip":
        return _zip_files(path)
    return _tar_file_on_disk(path, kind)


def tar_files(stream: Readable, *, kind: str, packed_bytes: int, where: str) -> Iterator[SourceFile]:
    """The files of a tar archive, read forwards once; each is already in memory when it is handed out.

    Args:
        stream: the archive, compressed as `kind` says (`tar`, `gz`, `bz2`, `xz`).
        packed_bytes: size of the archive; what it may unpack to follows from that.
        where: how to name the archive in an error, already printable.

    Raises:
        DataError: as for `archive_files`.
    """
    openers: dict[str, Callable[[Any], Readable]] = {
        "tar": lambda s: s,
        "gz": lambda s: gzip.GzipFile(fileobj=s),
        "bz2": lambda s: bz2.BZ2File(s),
        "xz": lambda s: io.BufferedReader(_XzReader(s)),
    }
    bounded = _Forward(openers[kind](stream), limit_bytes=unpacked_limit(packed_bytes), where=where)
    count = 0
    try:
        with tarfile.TarFile(fileobj=bounded, mode="r", errorlevel=2) as archive:  # pyright: ignore[reportArgumentType]
            while member := _next_member(archive, bounded):
                count += 1
                if count > MEMBERS_MAX:
                    raise _too_many(where)
                if file := _tar_member(archive, member, bounded):
                    yield file
            if bounded.last_read.strip(b"\0"):  # tarfile takes a damaged header for the end
                raise tarfile.ReadError("a damaged header")
            bounded.drain()
    except DAMAGE as error:
        raise DataError(f"{where}: damaged after {count} members ({_said(error)})") from None


def unpacked_limit(packed_bytes: int) -> int:
    """How many bytes an archive of `packed_bytes` may unpack to before it counts as a bomb."""
    return max(UNPACKED_MIN_BYTES, UNPACKED_MAX_RATIO * packed_bytes)


def unsafe_name(name: str) -> str | None:
    """Why a member's name must not be used, or None when it stays inside the archive."""
    if re.match(r"[/\\]|[A-Za-z]:[/\\]", name):
        return "its name is an absolute path"
    if ".." in name.replace("\\", "/").split("/"):
        return "its name points outside the archive"
    return None


# --- zip ---------------------------------------------------------------------------------------------------


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip, its directory bounded: a million entries would fill the memory before the first is read.

    Raises:
        DataError: not a zip, damaged, or with too many members.
    """
    file = _ZipOnDisk(str(path))
    try:
        return _Zip(file)
    except DAMAGE as error:
        file.close()
        where = printable(str(path))
        raise DataError(f"{where}: not a complete zip archive ({_said(error)}); copy it again") from None
    except DataError:
        file.close()
        raise


def _zip_files(path: Path) -> Iterator[SourceFile]:
    archive = open_zip(
        path
    )  # closed when the last of its files is dropped: they may be read from other threads
    members = [m for m in archive.infolist() if not m.filename.endswith("/")]
    total, limit = sum(m.file_size for m in members), unpacked_limit(path.stat().st_size)
    if total > limit:
        raise _bomb(printable(str(path)), limit)
    for member in members:
        if file := _zip_member(archive, member):
            yield file


def _zip_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> SourceFile | None:
    name = member.filename
    if reason := unsafe_name(name):
        return refuse(name, reason)
    name = _without_dots(name)
    if is_clutter(name):
        return None
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return refuse(name, "a link or a device, not a file")
    if member.flag_bits & 0x1:
        return refuse(name, "encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return refuse(
            name, "compressed in a rare way; pack the archive again"
        )  # zipfile cannot bound the others
    if member.file_size > FILE_MAX_BYTES:
        return too_large(name, member.file_size)

    def read() -> bytes:
        try:
            with archive.open(member) as file:
                return file.read(FILE_MAX_BYTES)
        except DAMAGE as error:
            raise Refused(f"damaged inside the archive ({_said(error)})", kind="unreadable") from None

    return SourceFile(name=name, size_bytes=member.file_size, read=read)


class _Zip(zipfile.ZipFile):
    """A zip that closes its file, which `zipfile` leaves to whoever opened it."""

    def __init__(self, file: _ZipOnDisk):
        self._file = file
        super().__init__(file)
        file.reading_directory = False

    def close(self) -> None:
        super().close()
        self._file.close()


class _ZipOnDisk(io.FileIO):
    """Bounds the directory at the moment `zipfile` reads it, so that no decoy can make the two disagree."""

    reading_directory = True

    def read(self, size: int | None = -1) -> bytes:
        size = -1 if size is None else size
        if self.reading_directory and size > DIRECTORY_MAX_BYTES:
            raise _too_many(printable(str(self.name)))
        data = super().read(size)
        if self.reading_directory and data.count(b"PK\x01\x02") > MEMBERS_MAX:
            raise _too_many(printable(str(self.name)))
        return data


# --- tar ---------------------------------------------------------------------------------------------------


class _Forward(io.RawIOBase):
    """A stream that only goes forwards, counts what passes, and refuses to read too much at once.

    `tarfile` reads an extended header of any declared size into memory; here the read itself is bounded.
    It also steps back by one byte to see whether a member is complete: that byte is remembered.
    """

    def __init__(self, stream: Readable, *, limit_bytes: int, where: str):
        super().__init__()
        self._stream, self._limit_bytes, self._where = stream, limit_bytes, where
        self._at, self._last, self._back = 0, b"", False
        self.read_max_bytes = HEADER_MAX_BYTES
        self.last_read = b""

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at - self._back

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset < self._at - 1 or (offset < self._at and not self._last):
            raise tarfile.ReadError("members out of order")
        self._back = False
        while self._at < offset and self._take(min(offset - self._at, 1 << 20)):
            pass
        self._back = offset == self._at - 1
        return self.tell()

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.read_max_bytes:
            raise tarfile.ReadError("a header of impossible size")
        parts = []
        if self._back and size:
            parts.append(self._last)
            self._back, size = False, size - 1
        while size and (part := self._take(size)):
            parts.append(part)
            size -= len(part)
        self.last_read = b"".join(parts)
        return self.last_read

    def drain(self) -> None:
        """Read to the end, where a compressed stream has the checksum of all that came before."""
        while self._take(1 << 20):
            pass

    def _take(self, size: int) -> bytes:
        data = self._stream.read(size)
        if data:
            self._at += len(data)
            self._last = data[-1:]
        if self._at > self._limit_bytes:
            raise _bomb(self._where, self._limit_bytes)
        return data


class _XzReader(io.RawIOBase):
    """`lzma.LZMAFile` with a limit on memory: a header of a few bytes may ask for a 4 GiB dictionary."""

    def __init__(self, stream: Readable):
        super().__init__()
        self._stream = stream
        self._pending = b""
        self._decompressor = self._fresh()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        while True:
            if self._decompressor.eof:
                self._pending = self._decompressor.unused_data.lstrip(b"\0") or self._stream.read(1 << 16)
                if not self._pending:
                    return 0
                self._decompressor = self._fresh()
            elif self._decompressor.needs_input and not self._pending:
                self._pending = self._stream.read(1 << 16)
                if not self._pending:
                    raise EOFError("the compressed data ends early")
            data = self._decompressor.decompress(self._pending, max_length=len(buffer))
            self._pending = b""
            if data:
                buffer[: len(data)] = data
                return len(data)

    @staticmethod
    def _fresh() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)


def _tar_file_on_disk(path: Path, kind: str) -> Iterator[SourceFile]:
    with path.open("rb") as file:
        size = path.stat().st_size
        yield from tar_files(file, kind=kind, packed_bytes=size, where=printable(str(path)))


def _next_member(archive: tarfile.TarFile, stream: _Forward) -> tarfile.TarInfo | None:
    stream.read_max_bytes = HEADER_MAX_BYTES
    member = archive.next()
    archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  # it would keep every header ever read
    return member


def _tar_member(archive: tarfile.TarFile, member: tarfile.TarInfo, stream: _Forward) -> SourceFile | None:
    name = member.name
    if member.isdir():
        return None
    if reason := unsafe_name(name):
        return refuse(name, reason)
    name = _without_dots(name)
    if is_clutter(name):
        return None
    if not member.isreg() or member.issparse():
        return refuse(name, "a link, a device or a file with holes, not a plain file")
    if member.size > FILE_MAX_BYTES:
        return too_large(name, member.size)
    stream.read_max_bytes = FILE_MAX_BYTES
    file = archive.extractfile(member)
    data = file.read(member.size) if file else b""
    if len(data) != member.size:
        raise tarfile.ReadError("the data ends early")
    return SourceFile(name=name, size_bytes=len(data), read=lambda: data)


def _is_old_tar(head: bytes) -> bool:
    """Whether the block's checksum is right: tar archives from before 1988 have no magic."""
    if len(head) < 512:
        return False
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _without_dots(name: str) -> str:
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def _too_many(where: str) -> DataError:
    return DataError(f"{where}: more than {MEMBERS_MAX:,} members; unpack it and pass the folder")


def _bomb(where: str, limit_bytes: int) -> DataError:
    size = f"{limit_bytes / 2**30:.3g} GiB"
    return DataError(
        f"{where}: unpacks to more than {size}, far more than pictures do; if that is right, unpack it"
    )


def _said(error: BaseException) -> str:
    return printable(first_line(error, otherwise=type(error).__name__))
