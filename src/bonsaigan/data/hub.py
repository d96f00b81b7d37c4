"""`hf:OWNER/NAME`: a data set of the Hugging Face hub, fetched once into a plain zip in the cache."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bonsaigan.data import archives
from bonsaigan.data.files import FILE_MAX_BYTES, Progress, find_cache_dir, printable
from bonsaigan.data.sources import Source, slug
from bonsaigan.durable import replace_patiently
from bonsaigan.errors import DataError, DownloadError, MissingExtraError, first_line
from bonsaigan.hub import OWNER_NAME
from bonsaigan.locks import hold, machine

HUB_PICTURES_MAX = 100_000
PAUSES_SEC = (1.0, 4.0)
"""Before a picture is asked for again."""
ON_THE_HUB = re.compile(r"((zip|tar|gzip|bz2|xz|zstd)://[^:]*::)*hf://datasets/[^:]+")
"""Where a picture of a data set may lie: a file of the hub, or a part of an archive there (`fsspec`)."""
DISK_TROUBLE = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EACCES, errno.EROFS}
"""What an error of our own disk is, among those of the network."""


def open_hub(name: str, *, cache_dir: Path | None, progress: Progress | None) -> Source:
    """Open `OWNER/NAME`, fetching its training split when it is not in the cache.

    Raises:
        DataError: the name has another form, or the data set has no pictures.
        DownloadError: the hub cannot be reached or refuses.
        MissingExtraError: the extra `hub` is not installed.
    """
    if not OWNER_NAME.fullmatch(name):
        raise DataError(f"hf:{printable(name)}: expected hf:OWNER/NAME")
    path = find_cache_dir(cache_dir) / "hub" / f"{name.replace('/', '--')}.zip"
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with hold(path.with_name(path.name + ".lock")):
                if not path.exists():  # who held it before may have fetched it
                    _fetch(name, path, progress)
        except OSError as error:
            raise DownloadError(f"hf:{name}: cannot keep it in {path.parent}: {error.strerror}") from None
    with archives.open_zip(path) as archive:
        about = _about(archive.comment)
    return Source(
        name=slug(name.partition("/")[2]),
        description=f"the data set {name} of the Hugging Face hub, kept in {printable(str(path))}",
        licence=about.get("licence"),
        citation=about.get("citation"),
        files=lambda: archives.archive_files(path, "zip"),
    )


def _about(comment: bytes) -> dict[str, str]:
    try:
        found = json.loads(comment or b"{}")
    except (ValueError, RecursionError):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}


def _fetch(name: str, path: Path, progress: Progress | None) -> None:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(feature=f"DATA of the form hf:{name}", extra="hub") from None
    if Path(name).is_dir():
        raise DataError(
            f"hf:{name}: a folder {name} is here, which would be taken for it; pass that folder as DATA, or "
            "go to another place"
        )
    part = path.with_name(f"{path.name}.{machine()}.part")
    try:
        rows, info = _open_rows(datasets, name)
        with zipfile.ZipFile(part, "w") as archive:
            for index, (suffix, data) in enumerate(_pictures(rows, name)):
                archive.writestr(f"{index:06d}{suffix}", data)
                if progress:
                    progress(index + 1, None)
            about = {"licence": getattr(info, "license", None), "citation": getattr(info, "citation", None)}
            archive.comment = json.dumps({k: v[:5000] for k, v in about.items() if v}).encode()
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        replace_patiently(part, path)
    except DataError:
        part.unlink(missing_ok=True)
        raise
    except Exception as error:  # the hub's client raises errors of several libraries
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in DISK_TROUBLE:
            raise
        said = printable(first_line(error, otherwise=type(error).__name__))
        raise DownloadError(
            f"hf:{name}: {said}. Check the name and the network, or use demo:bonsai"
        ) from None


def _open_rows(datasets: Any, name: str) -> tuple[Any, Any]:
    """The training split (or the first there is), its pictures left as bytes, and what is known about it."""
    splits = datasets.load_dataset(name, streaming=True)
    rows = splits["train"] if "train" in splits else splits[next(iter(splits))]
    counts = getattr(rows.info, "splits", None) or {}
    count = getattr(counts.get(str(getattr(rows, "split", ""))), "num_examples", None)
    if isinstance(count, int) and count > HUB_PICTURES_MAX:  # told before hours of fetching
        raise _too_many(name)
    features = rows.features
    columns = [key for key, kind in (features or {}).items() if isinstance(kind, datasets.Image)]
    if features is not None and not columns:
        raise DataError(f"hf:{name}: no column of pictures; it has {', '.join(map(printable, features))}")
    column = columns[0] if columns else "image"
    return rows.select_columns([column]).cast_column(column, datasets.Image(decode=False)), rows.info


def _too_many(name: str) -> DataError:
    return DataError(
        f"hf:{name}: more than {HUB_PICTURES_MAX:,} pictures; download a part and pass its folder"
    )


def _pictures(rows: Any, name: str) -> Iterator[tuple[str, bytes]]:
    for index, row in enumerate(rows):
        if index >= HUB_PICTURES_MAX:
            raise _too_many(name)
        value = next(iter(row.values()))
        if value is None:
            continue
        suffix = Path(value.get("path") or "").suffix
        suffix = suffix.lower() if re.fullmatch(r"\.[A-Za-z0-9]{1,5}", suffix) else ".img"
        yield suffix, value.get("bytes") or _read_remote(value["path"], name)


def _read_remote(path: str, name: str) -> bytes:
    """A picture that the rows only point to. A row may point anywhere, but a stranger's data set has no
    business with files of this machine or of its network: only what lies on the hub is read."""
    import fsspec  # comes with `datasets`

    if not ON_THE_HUB.fullmatch(path):
        raise DataError(
            f"hf:{name}: a picture of it lies elsewhere ({printable(path[:200])}); it is not read"
        )
    for pause_sec in PAUSES_SEC:  # of many thousands, one will fail
        with contextlib.suppress(OSError), fsspec.open(path, "rb") as file:
            return file.read(FILE_MAX_BYTES)  # pyright: ignore[reportAttributeAccessIssue, reportReturnType]
        time.sleep(pause_sec)
    with fsspec.open(path, "rb") as file:
        return file.read(FILE_MAX_BYTES)  # pyright: ignore[reportAttributeAccessIssue, reportReturnType]
