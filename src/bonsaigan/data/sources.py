"""DATA, as a user writes it, becomes a source: a name, a licence line, and files to read one at a time.

Folders, archives, `caltech101:CATEGORY`, `hf:OWNER/NAME` and `demo:bonsai` all look the same from here on.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from bonsaigan.config import PICTURES_MIN, Size
from bonsaigan.data import archives
from bonsaigan.data.download import Download, fetch
from bonsaigan.data.files import (
    FILE_MAX_BYTES,
    Progress,
    Refused,
    SourceFile,
    expanded,
    find_cache_dir,
    is_clutter,
    natural_key,
    printable,
    refuse,
    too_large,
)
from bonsaigan.errors import DataError
from bonsaigan.runs import CONFIG_FILE, DATA_FILE

CALTECH_URL = "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip?download=1"
CALTECH_MD5 = "3138e1922a9193bfa496528edbbc45d0"
CALTECH_LICENCE = "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/"
CALTECH_CITATION = (
    "Li, F.-F., Andreeto, M., Ranzato, M., & Perona, P. (2022). Caltech 101 (1.0) [Data set]. CaltechDATA. "
    "https://doi.org/10.22002/D1.20086"
)
CALTECH = "caltech101:"
PUBLIC = (CALTECH, "hf:", "demo:")
"""How DATA begins that anybody can find; all other is a path on this machine."""
RUN_FILES = {CONFIG_FILE, DATA_FILE}
"""A folder that has both is a run."""
CALTECH_ENTRY = "101_ObjectCategories"
DEMO_COUNT, DEMO_COUNT_MAX = 256, 100_000
FORMS = "a folder, a .zip or .tar(.gz) archive, caltech101:CATEGORY, hf:OWNER/NAME or demo:bonsai"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where pictures come from."""

    name: str
    """Short, safe in a path, good for the name of a run."""
    description: str
    """One line for people, safe to print."""
    licence: str | None = None
    """The terms of the pictures, where known."""
    citation: str | None = None
    """How to cite them, where known."""
    files: Callable[[], Iterator[SourceFile]]
    """Walks through the files, the same ones in the same order each time. Raises `DataError`."""


def open_source(
    data: str,
    *,
    archive: str | None = None,
    cache_dir: Path | None = None,
    size: Size | None = None,
    progress: Progress | None = None,
) -> Source:
    """Find DATA.

    Args:
        data: a folder, an archive, `caltech101:CATEGORY`, `hf:OWNER/NAME` or `demo:bonsai[:COUNT]`.
        archive: a local copy of the Caltech-101 archive; else `$BONSAIGAN_CALTECH101`, else it is downloaded.
        cache_dir: where downloads are kept; see `find_cache_dir`.
        size: the size at which `demo:` pictures are drawn; 64 x 64 if not given.
        progress: called during a download with the bytes so far and in all.

    Raises:
        DataError: DATA is not there or of no known form; one line that names the nearest thing there is.
        DownloadError: a download failed.
        MissingExtraError: `hf:` without the extra `hub`.
    """
    if not data.strip():
        raise DataError(f"DATA is empty; pass {FORMS}")
    path = expanded(data)
    kind, colon, rest = data.partition(":")
    if archive is not None and kind != "caltech101":
        raise DataError(
            f"--archive {printable(archive)}: it goes with DATA of the form caltech101:CATEGORY only"
        )
    if colon and kind == "caltech101":
        return _caltech(rest, archive, cache_dir, progress)
    if colon and kind == "hf":
        from bonsaigan.data.hub import open_hub

        return open_hub(rest, cache_dir=cache_dir, progress=progress)
    if colon and kind == "demo":
        return _demo(rest, size or Size(width_px=64, height_px=64))
    if not _exists(path):
        near = difflib.get_close_matches(kind.lower(), ["caltech101", "hf", "demo"], n=1)
        if re.fullmatch(r"[A-Za-z0-9_-]{2,20}", kind) and colon and near:
            raise DataError(f"DATA {printable(data)!r}: did you mean {near[0]}:{printable(rest)}?")
        raise DataError(_not_found(path, printable(data)))
    return _folder(path) if path.is_dir() else _archive(path)


def typed_in(started: Path, data: str) -> str | None:
    """DATA, or a path, typed in the folder `started`, as one types it here; None if it is not there."""
    if data.startswith(PUBLIC):
        return data
    places = (str(started / expanded(data)), data)
    return next((place for place in places if _exists(expanded(place))), None)


# --- folders and archives ----------------------------------------------------------------------------------


def _folder(path: Path) -> Source:
    return Source(
        name=slug(path.resolve().name),
        description=f"the folder {printable(str(path))}",
        files=lambda: _walk(path),
    )


def _archive(path: Path) -> Source:
    kind = _kind_of_file(path)
    if kind is None:
        raise DataError(f"DATA {printable(str(path))!r} is a single file and not an archive; pass {FORMS}")
    stem = re.sub(r"(?i)(\.tar)?\.[a-z0-9]+$", "", path.name)
    return Source(
        name=slug(stem),
        description=f"the archive {printable(str(path))}",
        files=lambda: archives.archive_files(path, kind),
    )


def _walk(root: Path) -> Iterator[SourceFile]:
    """Every file below `root` in natural order, but for runs that were made there.

    A folder reached twice, through links, is entered once.
    """
    seen: set[tuple[int, int]] = set()
    pending = [(root, "")]
    while pending:
        folder, prefix = pending.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda e: natural_key(e.name))
        except OSError as error:
            if folder == root:
                raise DataError(f"{printable(str(root))}: cannot be read ({error.strerror})") from None
            yield refuse(
                prefix.rstrip("/"), f"a folder that cannot be read: {error.strerror}", kind="unreadable"
            )
            continue
        if folder != root and {entry.name for entry in found} >= RUN_FILES:
            continue  # not a word of it: each run that is made here would make it another set
        below = []
        for entry in found:
            if is_clutter(entry.name):
                continue
            if _is_dir(entry):
                below.append((Path(entry.path), f"{prefix}{entry.name}/"))
            else:
                yield _file_on_disk(entry, prefix + entry.name)
        pending += reversed(below)


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself; it is named when it cannot be read


def _file_on_disk(entry: os.DirEntry[str], name: str) -> SourceFile:
    try:
        status = entry.stat()
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        return refuse(name, "a broken link" if entry.is_symlink() else reason, kind="unreadable")
    if not stat.S_ISREG(status.st_mode):
        return refuse(name, "a pipe, socket or device, not a file")
    if status.st_size > FILE_MAX_BYTES:
        return too_large(name, status.st_size)
    path = entry.path

    def read() -> bytes:
        try:
            with Path(path).open("rb") as file:
                return file.read(FILE_MAX_BYTES)
        except OSError as error:
            raise Refused(f"cannot be read: {error.strerror}", kind="unreadable") from None

    return SourceFile(name=name, size_bytes=status.st_size, read=read)


# --- Caltech-101 -------------------------------------------------------------------------------------------


def _caltech(category: str, archive: str | None, cache_dir: Path | None, progress: Progress | None) -> Source:
    given = archive or os.environ.get("BONSAIGAN_CALTECH101")
    if given:
        path = expanded(given)
        flag = "--archive" if archive else "BONSAIGAN_CALTECH101"
        if not _exists(path):
            raise DataError(_not_found(path, f"{flag} {printable(given)}", plain=True))
        if path.is_dir() or _kind_of_file(path) not in ("zip", "gz"):
            raise DataError(f"{flag} {printable(given)}: not the archive caltech-101.zip")
    else:
        path = fetch(_caltech_download(), find_cache_dir(cache_dir) / "caltech-101.zip", progress=progress)
    return Source(
        name=slug(category),
        description=f"Caltech-101, category {printable(category)}",
        licence=CALTECH_LICENCE,
        citation=CALTECH_CITATION,
        files=lambda: _caltech_files(path, category),
    )


def _caltech_download() -> Download:
    return Download(
        url=CALTECH_URL,
        md5=CALTECH_MD5,
        limit_bytes=200_000_000,  # the right file has 137.4 MB
        otherwise=("Download it by hand and pass --archive FILE, or use demo:bonsai, which needs no network"),
    )


def _caltech_files(path: Path, category: str) -> Iterator[SourceFile]:
    """One category out of `caltech-101/101_ObjectCategories.tar.gz` inside the zip, or out of that tar.gz."""
    categories: set[str] = set()
    found = False
    for file in _caltech_members(path):
        top, _, rest = file.name.partition("/")
        folder, slash, name = rest.partition("/")
        if top != CALTECH_ENTRY or not slash:
            continue
        categories.add(folder)
        if folder == category:
            found = True
            yield dataclasses.replace(file, name=name)
    if not categories:
        raise DataError(f"{printable(str(path))}: no {CALTECH_ENTRY} inside; is it caltech-101.zip?")
    if not found:
        raise DataError(_unknown_category(category, categories))


def _caltech_members(path: Path) -> Iterator[SourceFile]:
    where = printable(str(path))
    if _kind_of_file(path) == "gz":
        yield from archives.archive_files(path, "gz")
        return
    with archives.open_zip(path) as outer:
        inner = [m for m in outer.infolist() if m.filename.endswith(f"{CALTECH_ENTRY}.tar.gz")]
        if not inner:
            raise DataError(f"{where}: no {CALTECH_ENTRY}.tar.gz inside; is it caltech-101.zip?")
        try:
            with outer.open(inner[0]) as stream:
                packed = path.stat().st_size
                yield from archives.tar_files(stream, kind="gz", packed_bytes=packed, where=where)
        except archives.DAMAGE as error:
            raise DataError(f"{where}: damaged ({printable(str(error))})") from None


def _unknown_category(category: str, categories: set[str]) -> str:
    names = {name.lower(): name for name in sorted(categories)}
    near = [names[key] for key in difflib.get_close_matches(category.lower(), names, n=3, cutoff=0.5)]
    hint = f"nearest: {', '.join(near)}" if near else f"there are: {', '.join(sorted(categories)[:8])}, ..."
    return f"caltech101:{printable(category)}: no such category; {printable(hint)}"


# --- the embedded set --------------------------------------------------------------------------------------


def _demo(rest: str, size: Size) -> Source:
    name, _, count_text = rest.partition(":")
    if name != "bonsai":
        raise DataError(
            f"demo:{printable(rest)}: there is one embedded set, demo:bonsai (or demo:bonsai:COUNT)"
        )
    count = int(count_text) if re.fullmatch(r"[0-9]{1,7}", count_text) else DEMO_COUNT
    if (count_text and str(count) != count_text) or not PICTURES_MIN <= count <= DEMO_COUNT_MAX:
        limits = f"a number from {PICTURES_MIN} to {DEMO_COUNT_MAX:,}"
        raise DataError(f"demo:bonsai:{printable(count_text)}: COUNT must be {limits}")
    return Source(
        name="demo-bonsai",
        description=f"{count} bonsai trees drawn by bonsaigan itself",
        licence="CC0 1.0: drawn by this program, free of rights",
        files=lambda: _drawn(count, size),
    )


def _drawn(count: int, size: Size) -> Iterator[SourceFile]:
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("bonsai*.py")):
        code.update(path.read_bytes())
    for seed in range(count):
        yield SourceFile(
            name=f"bonsai-{seed:05d}.bmp",
            size_bytes=size.width_px * size.height_px * 3,
            read=lambda seed=seed: _draw_bmp(seed, size),
            identity=f"drawn {code.hexdigest()} {size.width_px}x{size.height_px} {seed}",
        )


def _draw_bmp(seed: int, size: Size) -> bytes:
    """In a format whose bytes are its pixels, whatever wrote it: runs know their pictures by them."""
    from PIL import Image

    from bonsaigan.data.bonsai import draw

    buffer = io.BytesIO()
    Image.fromarray(draw(seed, width_px=size.width_px, height_px=size.height_px)).save(buffer, "bmp")
    return buffer.getvalue()


# --- names -------------------------------------------------------------------------------------------------


def slug(name: str) -> str:
    """`name` as a short word that is safe in a path and on a terminal."""
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:40].strip("-.")
    return safe or "pictures"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        return False


def _kind_of_file(path: Path) -> str | None:
    try:
        if not path.is_file():
            return None
        return archives.archive_kind(path)
    except OSError as error:
        raise DataError(f"{printable(str(path))}: cannot be read ({error.strerror})") from None


def _not_found(path: Path, said: str, *, plain: bool = False) -> str:
    """One line for a path that is not there, with the nearest name beside the first part that is missing."""
    parent, missing = path.parent, path
    while not _exists(parent) and parent != parent.parent:
        parent, missing = parent.parent, parent
    try:
        names = [p.name for p in parent.iterdir() if not p.name.startswith(".")]
    except (OSError, ValueError):
        names = []
    near = difflib.get_close_matches(missing.name, names, n=1)
    start = f"{said}: no such file" if plain else f"DATA {said!r}: no such folder or archive"
    if near:
        return f"{start}; did you mean {printable(str(parent / near[0]))}?"
    return start if plain else f"{start}; DATA is {FORMS}"
