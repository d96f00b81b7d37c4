"""One file from the web: continued after a break, checked, and moved into place only when right."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import re
import socket
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from bonsaigan.data.files import Progress, printable
from bonsaigan.durable import replace_patiently
from bonsaigan.errors import DownloadError, first_line
from bonsaigan.locks import hold

CHUNK_BYTES = 1 << 18
PROGRESS_THAT_COUNTS_BYTES = 1 << 20
"""A try that brought this much was worth it: the count of failures starts again."""
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, kw_only=True)
class Download:
    """What to fetch and how patiently."""

    url: str
    """http(s); redirects are followed and the usual proxy variables obeyed."""
    md5: str
    """Checksum of the right file."""
    limit_bytes: int
    """More than this is refused, so that a wrong server cannot fill the disk."""
    otherwise: str
    """What the user can do instead, to end an error with."""
    timeout_sec: float = 30.0
    """A connection silent for this long is taken for broken."""
    tries: int = 4
    """Tries in a row that may bring nothing."""
    backoff_sec: float = 0.5
    """Pause after the first failure; it doubles from failure to failure."""


def fetch(download: Download, target: Path, *, progress: Progress | None = None) -> Path:
    """Bring the file to `target`, or find it there.

    What arrives is kept as `target` + `.part`; a later call goes on from it. Processes that fetch the same
    file wait for each other.

    Args:
        progress: called with the bytes so far and the bytes in all (None when the server does not say).

    Raises:
        DownloadError: in one line, what went wrong and what to do instead.
    """
    if target.exists():
        return target
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with hold(target.with_name(target.name + ".lock")):
            if not target.exists():
                _fill(download, part, progress)
                _check(download, part)
                replace_patiently(part, target)
    except OSError as error:
        raise DownloadError(_disk_trouble(error, target.parent)) from None
    return target


def _fill(download: Download, part: Path, progress: Progress | None) -> None:
    """Try until `part` is as long as the server says the file is."""
    failures, validator = 0, ""
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            validator = _one_try(download, part, validator, progress)
            return
        except _Broken as broken:
            validator = broken.validator or validator
            gained = (part.stat().st_size if part.exists() else 0) - before
            failures = 1 if gained >= PROGRESS_THAT_COUNTS_BYTES else failures + 1
            if failures >= download.tries or not broken.worth_trying:
                kept = part.stat().st_size if part.exists() else 0
                note = f"; {kept:,} bytes are kept for the next try" if kept else ""
                raise _error(download, f"{broken}{note}") from None
            time.sleep(download.backoff_sec * 2 ** (failures - 1))


class _Broken(Exception):
    """One try came to nothing."""

    validator = ""
    """The entity tag of what was being sent, so that the next try can ask for the rest of the same thing."""

    def __init__(self, message: str, *, worth_trying: bool = True):
        super().__init__(message)
        self.worth_trying = worth_trying


def _one_try(download: Download, part: Path, validator: str, progress: Progress | None) -> str:
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "bonsaigan", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    try:
        request = urllib.request.Request(download.url, headers=headers)
        with _opened(request, download.timeout_sec) as response:
            start, total = _span(response, have)
            if (total or 0) > download.limit_bytes:
                raise _Broken(f"the server offers {total:,} bytes, not what was expected", worth_trying=False)
            etag = response.headers.get("ETag", "")
            validator = "" if etag.startswith("W/") else etag
            _store(response, part, start=start, total=total, download=download, progress=progress)
    except urllib.error.HTTPError as error:
        with error:
            _judge_status(error, part, have)
    except urllib.error.URLError as error:
        reason = error.reason
        offline = isinstance(reason, socket.gaierror)
        said = "the address cannot be found (is this machine offline?)" if offline else _said(reason)
        raise _Broken(said, worth_trying=not offline) from None
    except http.client.HTTPException as error:
        raise _Broken(_said(error)) from None
    except ValueError as error:  # an address, in a redirect or a proxy's variable, that is none
        raise _Broken(_said(error), worth_trying=False) from None
    except _Broken as broken:
        broken.validator = validator
        raise
    return validator


def _opened(request: urllib.request.Request, timeout_sec: float) -> http.client.HTTPResponse:
    opener = urllib.request.build_opener()  # reads the proxies of the environment as they are now
    try:
        return opener.open(request, timeout=timeout_sec)
    except urllib.error.URLError:
        raise
    except OSError as error:  # the network's, for nothing of ours is open yet
        raise _Broken(_said(error)) from None


def _span(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """(Where the body begins in the file, size of the whole file) from the answer's headers."""
    length = response.headers.get("Content-Length", "")
    if response.status == 206:
        unit, _, span = response.headers.get("Content-Range", "").partition(" ")
        first, _, total = span.partition("/")
        if unit != "bytes" or first.partition("-")[0] != str(have):
            raise _Broken("the server sent another part than the one asked for", worth_trying=False)
        return have, _count(total)
    return 0, _count(length)


def _count(text: str) -> int | None:
    """A number of bytes as a server states it; None where it states none that could be."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _store(
    response: http.client.HTTPResponse,
    part: Path,
    *,
    start: int,
    total: int | None,
    download: Download,
    progress: Progress | None,
) -> None:
    done = start
    with part.open("r+b" if part.exists() else "wb") as file:
        file.truncate(start)
        file.seek(start)
        while chunk := _receive(response):
            file.write(chunk)
            done += len(chunk)
            if done > download.limit_bytes:
                raise _Broken("the server sends more than was expected", worth_trying=False)
            if progress:
                progress(done, total)
        file.flush()
        os.fsync(file.fileno())
    if total is not None and done != total:
        raise _Broken(f"the connection ended after {done:,} of {total:,} bytes")


def _receive(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK_BYTES)  # what there is: `read` loses what it collected before a stall
    except (http.client.HTTPException, OSError) as error:
        raise _Broken(_said(error)) from None


def _judge_status(error: urllib.error.HTTPError, part: Path, have: int) -> None:
    if error.code == 416 and have:
        if error.headers.get("Content-Range", "") == f"bytes */{have}":
            return  # everything had arrived before the break
        part.unlink()
        raise _Broken("the server refused to continue the download") from None
    said = printable(first_line(error.reason)[:200])
    raise _Broken(f"the server answered {error.code} {said}", worth_trying=error.code in TRANSIENT) from None


def _check(download: Download, part: Path) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with part.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != download.md5:
        size = part.stat().st_size
        part.unlink()
        said = f"the {size:,} bytes that arrived have the wrong checksum and were deleted"
        raise _error(download, said)


def _said(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "the server stopped answering"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(text[:200])


def _error(download: Download, said: str) -> DownloadError:
    return DownloadError(f"download of {download.url} failed: {said}. {download.otherwise}")


def _disk_trouble(error: OSError, folder: Path) -> str:
    where = printable(str(folder))
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return f"{where}: the disk is full; free some space or set BONSAIGAN_CACHE to another place"
    return f"{where}: cannot be written ({_said(error)}); set BONSAIGAN_CACHE to another place"
