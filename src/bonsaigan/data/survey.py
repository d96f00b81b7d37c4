"""One pass over a set, in parallel and in bounded memory; `doctor` and `prepare` both stand on it."""

from __future__ import annotations

import functools
import hashlib
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from bonsaigan.config import DataConfig
from bonsaigan.data.files import Progress, Refused, SourceFile, natural_key, printable
from bonsaigan.data.picture import Examined, Finding, examine
from bonsaigan.data.resize import Resample
from bonsaigan.data.sources import Source
from bonsaigan.errors import DataError

WORKERS_MAX = 8
IN_FLIGHT_BYTES, BATCH_BYTES = 256 << 20, 8 << 20
NEAR_BITS = 4
"""Two pictures whose 64-bit hashes differ in at most this many bits count as near duplicates."""


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """One file and what was found."""

    name: str
    """Safe to print."""
    size_bytes: int
    sha256: str
    """Of the content, hexadecimal; empty where it could not be read."""
    width_px: int
    """Width when upright; 0 where unknown."""
    height_px: int
    """Height when upright; 0 where unknown."""
    findings: tuple[Finding, ...]

    @property
    def used(self) -> bool:
        """Whether the picture is in the prepared set."""
        return all(finding.severity != "left out" for finding in self.findings)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a pass over a set found."""

    mode: str
    """Colour mode for the whole set: L, RGB or RGBA."""
    files: tuple[FileReport, ...]
    """In natural order of the names."""


# --- what the files are: hashes, no decoding ---------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """A file by content."""

    name: str
    size_bytes: int
    identity: str
    """Equal for equal content."""
    sha256: str
    """Of the content, or empty where `identity` stands for it or it cannot be read."""
    refusal: Finding | None
    """Why it cannot be read."""


def fingerprint(source: Source, *, progress: Progress | None = None) -> list[Fingerprint]:
    """Hash every file of a source, in the source's order.

    Raises:
        DataError: the source cannot be read, or holds no files.
    """
    prints: list[Fingerprint] = []
    with ThreadPoolExecutor(_workers()) as pool:
        for found in _in_order(pool, _hash_batch, _batches(source.files(), 64, _bytes_of)):
            prints += found
            if progress:
                progress(len(prints), None)
    if not prints:
        raise DataError(f"{source.description}: holds no files")
    return prints


def _hash_batch(files: list[SourceFile]) -> list[Fingerprint]:
    return [_fingerprint(file) for file in files]


def _fingerprint(file: SourceFile) -> Fingerprint:
    digest, refusal = "", file.refusal
    if refusal is None and file.identity is None:
        try:
            digest = hashlib.sha256(file.read()).hexdigest()
        except Refused as error:
            refusal = error
    return Fingerprint(
        name=file.name,
        size_bytes=file.size_bytes,
        identity=f"{refusal.kind}: {refusal}" if refusal else file.identity or digest,
        sha256=digest,
        refusal=refusal and Finding(kind=refusal.kind, severity="left out", message=printable(str(refusal))),
    )


# --- one pass over the pictures ----------------------------------------------------------------------------


def survey(
    source: Source,
    prints: list[Fingerprint],
    config: DataConfig,
    *,
    keep: Callable[[int, np.ndarray], None] | None,
    resample: Resample = "antialias",
    progress: Progress | None = None,
) -> Survey:
    """Examine every file once.

    Args:
        prints: what `fingerprint` found.
        keep: called, from this thread, with a file's place in the survey and its picture, uint8 (H, W, C)
            with as many channels as the file has; in the source's order, not the survey's.
        progress: called with the files done and in all.

    Raises:
        DataError: the files are no longer those of `prints`, or the source cannot be read.
    """
    order = sorted(range(len(prints)), key=lambda i: natural_key(prints[i].name))
    place = {index: rank for rank, index in enumerate(order)}
    first_of: dict[str, int] = {}
    for index in order:
        if prints[index].refusal is None:
            first_of.setdefault(prints[index].identity, index)
    reports: list[FileReport | None] = [None] * len(prints)
    examined: dict[int, Examined] = {}

    def work(batch: list[tuple[int, SourceFile]]) -> list[tuple[int, str, Examined]]:
        return [(i, *_examine_one(file, prints[i], config, resample)) for i, file in batch]

    wanted = (
        (index, file)
        for index, file in _same_files(source, prints)
        if prints[index].refusal is None and first_of[prints[index].identity] == index
    )
    done = 0
    with ThreadPoolExecutor(_workers()) as pool, warnings.catch_warnings():
        # Pillow warns of what becomes a finding; the filter is set once, here, for all threads.
        warnings.simplefilter("ignore")
        for batch in _in_order(pool, work, _batches(wanted, 8, lambda pair: _bytes_of(pair[1]))):
            for index, digest, result in batch:
                if result.picture is not None and keep:
                    keep(place[index], result.picture)
                examined[index] = replace(result, picture=None)
                reports[place[index]] = _report(prints[index], digest, result)
            done += len(batch)
            if progress:
                progress(done, len(first_of))
    for index in order:
        if reports[place[index]] is None:
            reports[place[index]] = _unexamined(prints, index, first_of)
    files = _with_near_duplicates([r for r in reports if r], {place[i]: e.look for i, e in examined.items()})
    mode = config.mode if config.mode != "auto" else _common_mode(list(examined.values()))
    return Survey(mode=mode, files=files)


def _same_files(source: Source, prints: list[Fingerprint]) -> Iterator[tuple[int, SourceFile]]:
    count = 0
    for index, file in enumerate(source.files()):
        if index >= len(prints) or file.name != prints[index].name:
            raise changed(source.description)
        count += 1
        yield index, file
    if count != len(prints):
        raise changed(source.description)


def _examine_one(
    file: SourceFile, known: Fingerprint, config: DataConfig, resample: Resample
) -> tuple[str, Examined]:
    try:
        data = file.read()
    except Refused:
        raise changed(printable(file.name)) from None
    digest = hashlib.sha256(data).hexdigest()
    if known.sha256 and digest != known.sha256:
        raise changed(printable(file.name))
    return digest, examine(data, size=config.size, fit=config.fit, resample=resample)


def changed(what: str) -> DataError:
    """The error for a file that is no longer what it was a moment ago."""
    return DataError(f"{what}: changed while it was being read; start again when nothing writes to it")


def _report(known: Fingerprint, digest: str, result: Examined) -> FileReport:
    return FileReport(
        name=printable(known.name),
        size_bytes=known.size_bytes,
        sha256=digest,
        width_px=result.width_px,
        height_px=result.height_px,
        findings=result.findings,
    )


def _unexamined(prints: list[Fingerprint], index: int, first_of: dict[str, int]) -> FileReport:
    known = prints[index]
    finding = known.refusal
    if finding is None:
        first = printable(prints[first_of[known.identity]].name)
        finding = Finding(kind="duplicate", severity="left out", message=f"the same file as {first}")
    return _report(known, known.sha256, Examined(findings=(finding,)))


def _common_mode(examined: list[Examined]) -> str:
    """RGBA when at least half of the pictures have transparent parts, L when none has colour, else RGB."""
    usable = [e for e in examined if e.width_px]
    if usable and 2 * sum(e.transparent for e in usable) >= len(usable):
        return "RGBA"
    return "L" if usable and all(e.grey for e in usable) else "RGB"


# --- near duplicates ---------------------------------------------------------------------------------------


def _with_near_duplicates(files: list[FileReport], looks: dict[int, int]) -> tuple[FileReport, ...]:
    places = [place for place in sorted(looks) if files[place].used]
    for later, earlier in _near_pairs(np.array([looks[place] for place in places], dtype=np.uint64)):
        report = files[places[later]]
        message = f"looks like {files[places[earlier]].name}"
        finding = Finding(kind="near duplicate", severity="note", message=message)
        files[places[later]] = replace(report, findings=(*report.findings, finding))
    return tuple(files)


def _near_pairs(looks: np.ndarray) -> list[tuple[int, int]]:
    """For each of the uint64 hashes that has a near one before it: (its index, the first such index)."""
    pairs = []
    for index in range(1, len(looks)):
        near = np.flatnonzero(_bit_count(looks[:index] ^ looks[index]) <= NEAR_BITS)
        if len(near):
            pairs.append((index, int(near[0])))
    return pairs


@functools.cache
def _bits_of_16() -> np.ndarray:
    return np.array([n.bit_count() for n in range(1 << 16)], dtype=np.uint8)  # before NumPy 2


def _bit_count(values: np.ndarray) -> np.ndarray:
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(values)
    return _bits_of_16()[values.view(np.uint16)].reshape(len(values), 4).sum(axis=1)


# --- work in parallel, in order, in bounded memory ---------------------------------------------------------

T = TypeVar("T")
R = TypeVar("R")


def _workers() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return min(WORKERS_MAX, len(affinity(0)) if affinity else os.cpu_count() or 1)


def _bytes_of(file: SourceFile) -> int:
    return file.size_bytes


def _batches(items: Iterable[T], count: int, cost: Callable[[T], int]) -> Iterator[tuple[list[T], int]]:
    """Lists of up to `count` items, and their cost: a thread is woken for several small files at once."""
    batch: list[T] = []
    total = 0
    for item in items:
        batch.append(item)
        total += cost(item)
        if len(batch) >= count or total >= BATCH_BYTES:
            yield batch, total
            batch, total = [], 0
    if batch:
        yield batch, total


def _in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[list[T]], list[R]],
    batches: Iterable[tuple[list[T], int]],
) -> Iterator[list[R]]:
    """`work` over the batches, in their order, a few at a time and within `IN_FLIGHT_BYTES`."""
    pending: deque[tuple[Future[list[R]], int]] = deque()
    in_flight = 0
    try:
        for batch, size in batches:
            while pending and (in_flight + size > IN_FLIGHT_BYTES or len(pending) >= 3 * _workers()):
                future, freed = pending.popleft()
                in_flight -= freed
                yield future.result()
            pending.append((pool.submit(work, batch), size))
            in_flight += size
        while pending:
            yield pending.popleft()[0].result()
    finally:
        for future, _ in pending:
            future.cancel()
