"""A source becomes one array in the cache; and the only place where pixel values change their range.

On disk and between people: uint8 (N, H, W, C). In networks: float32 (B, C, H, W) from -1 to 1. Nobody else
converts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL import __version__ as pillow_version

from bonsaigan.config import PICTURES_MIN, DataConfig
from bonsaigan.data.doctor import Diagnosis, diagnose, listed
from bonsaigan.data.files import Progress, find_cache_dir, printable
from bonsaigan.data.resize import Resample
from bonsaigan.data.sources import Source
from bonsaigan.data.survey import Fingerprint, fingerprint
from bonsaigan.durable import replace_patiently
from bonsaigan.errors import DataError
from bonsaigan.locks import hold, machine

if TYPE_CHECKING:
    from torch import Tensor

LEFT_SEC = 24 * 3600
"""A workplace of another machine that is older than this was left behind."""
VERSION = 2
"""Raised when the same files would become other arrays; older cached sets are then not used."""


@dataclass(frozen=True, kw_only=True)
class PreparedSet:
    """A set ready for training."""

    pictures: np.ndarray
    """uint8 (N, H, W, C), memory-mapped and read-only, in natural order of the file names."""
    channels: int
    """C: 1 greyscale, 3 RGB, 4 RGBA."""
    train_index: np.ndarray
    """int64 places of the pictures to train on: ascending, or in the order of a run that began before."""
    holdout_index: np.ndarray
    """int64 places of the pictures kept out of training, ascending; chosen by content alone."""
    manifest: dict[str, Any]
    """What `data.json` in a run holds: source, licence, counts, files with SHA-256, what was left out."""
    digest: str
    """SHA-256 over names, contents and settings: equal digests, equal arrays."""


def prepare(
    source: Source,
    config: DataConfig,
    *,
    resample: Resample = "antialias",
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> PreparedSet:
    """Bring every usable picture of a source to one size and mode, or find that done in the cache.

    Files are hashed first. Only when no set of these contents and settings is in the cache are they decoded:
    once each, in parallel, in bounded memory. Processes that want the same set wait for the first of them,
    also on other machines where these share the cache. A set that is there is only read.

    Args:
        resample: `antialias`; or `bilinear`, which also stretches the whole array to the range 0 to 255, as
            the article does (differs: the result is rounded to uint8).
        cache_dir: see `find_cache_dir`.
        progress: called with the files done and, once they are counted, the files in all.

    Raises:
        DataError: fewer than 8 usable pictures, an unreadable source, or a cache that cannot be written.
    """
    prints = fingerprint(source, progress=progress)
    digest = _digest(prints, config, resample)
    folder = find_cache_dir(cache_dir) / "prepared" / digest[:40]
    stored = _load(folder, digest)
    if stored is None:
        try:
            with _workplace(folder) as work:
                if _load(folder, digest) is None:  # else another process was quicker
                    _build(work, source, prints, config, resample=resample, digest=digest, progress=progress)
                    _publish(work, folder, digest)
        except OSError as error:
            said = f"{printable(str(folder.parent))}: cannot be written ({error.strerror or error})"
            raise DataError(f"{said}; free some space or set BONSAIGAN_CACHE to another place") from None
        stored = _load(folder, digest)
        if stored is None:
            raise DataError(f"{printable(str(folder))}: what was just written cannot be read back")
    pictures, facts = stored
    return _complete(source, config, pictures, facts, digest)


def find_stored(digest: str, *, cache_dir: Path | None = None) -> np.ndarray | None:
    """The pictures of a digest, if they are in the cache still: no source is opened for them.

    Returns:
        As `PreparedSet.pictures`; None when they are not there.
    """
    if re.fullmatch(r"[0-9a-f]{64}", digest) is None:
        return None
    stored = _load(find_cache_dir(cache_dir) / "prepared" / digest[:40], digest)
    return stored[0] if stored is not None else None


def to_float(pictures: np.ndarray | Tensor) -> Tensor:
    """Pictures as the networks want them.

    Args:
        pictures: uint8 (N, H, W, C), an array or a tensor on any device.

    Returns:
        float32 (N, C, H, W) from -1 to 1, in channels-last memory.
    """
    import torch

    if isinstance(pictures, np.ndarray):
        pictures = torch.from_numpy(pictures if pictures.flags.writeable else pictures.copy())
    images = pictures.permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1.0)
    return images.contiguous(memory_format=torch.channels_last)


def to_rgb(pictures: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, C) → uint8 (N, H, W, 3): greyscale repeated, transparency over white."""
    channels = pictures.shape[3]
    if channels == 1:
        return np.repeat(pictures, 3, axis=3)
    if channels == 4:
        opacity = pictures[..., 3:].astype(np.float32) / 255
        return np.rint(pictures[..., :3] * opacity + 255 * (1 - opacity)).astype(np.uint8)
    return np.ascontiguousarray(pictures)


def to_uint8(images: Tensor) -> np.ndarray:
    """Images as people want them; the inverse of `to_float`.

    Args:
        images: floating (N, C, H, W), -1 to 1; what lies outside is cut off.

    Returns:
        uint8 (N, H, W, C).
    """
    import torch

    values = images.detach().to(torch.float32).add(1.0).mul_(127.5).round_().clamp_(0, 255)
    return values.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


# --- the cache ---------------------------------------------------------------------------------------------


def _digest(prints: list[Fingerprint], config: DataConfig, resample: Resample) -> str:
    # Pillow's version: what one cannot read, the next one may.
    settings = [VERSION, pillow_version, config.size.width_px, config.size.height_px]
    settings += [config.fit, config.mode, resample]
    files = sorted((p.name, p.identity) for p in prints)
    return hashlib.sha256(json.dumps([settings, files]).encode()).hexdigest()


def _load(folder: Path, digest: str) -> tuple[np.ndarray, dict[str, Any]] | None:
    """The stored array and its facts, or None when they are not there or not whole."""
    try:
        facts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        pictures = np.load(folder / "pictures.npy", mmap_mode="r", allow_pickle=False)
        whole = (
            facts["digest"] == digest
            and list(pictures.shape) == facts["shape"]
            and pictures.dtype == np.uint8
        )
        return (pictures, facts) if whole else None
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


@contextlib.contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A folder of our own beside `folder`, removed in any case; and an end to what killed processes left."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob("*.part"):
        with contextlib.suppress(OSError):
            ours = f".{machine()}." in left.name  # else its lock may be one that is not seen from here
            if ours or time.time() - left.stat().st_mtime > LEFT_SEC:
                with hold(_lock_of(left), wait=False) as nobody_works_there:
                    if nobody_works_there:
                        shutil.rmtree(left, ignore_errors=True)
    with hold(_lock_of(folder)):
        work = folder.with_name(f"{folder.name}.{machine()}.{uuid.uuid4().hex[:12]}.part")
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _lock_of(folder: Path) -> Path:
    """The lock of a set, for its folder or for a workplace beside it."""
    locks = folder.parent.parent / "locks"
    locks.mkdir(exist_ok=True)
    return locks / folder.name.partition(".")[0]


def _publish(work: Path, folder: Path, digest: str) -> None:
    try:
        replace_patiently(work, folder)
    except OSError:
        if _load(folder, digest) is None:  # else another process was quicker, and its set is as good
            shutil.rmtree(folder, ignore_errors=True)
            replace_patiently(work, folder)


def _write_through(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


# --- building ----------------------------------------------------------------------------------------------


def _build(
    work: Path,
    source: Source,
    prints: list[Fingerprint],
    config: DataConfig,
    *,
    resample: Resample,
    digest: str,
    progress: Progress | None,
) -> None:
    """Write `pictures.npy` and `manifest.json` into `work`.

    The mode of the set is known only when every file has been seen, and archives have an order of their own.
    So the pictures first go to a spool as they come, and from there into the array.
    """
    with (work / "spool").open("w+b") as spool:
        entries: dict[int, tuple[int, int]] = {}

        def keep(place: int, picture: np.ndarray) -> None:
            entries[place] = (spool.tell(), picture.shape[2])
            spool.write(picture.tobytes())

        diagnosis = diagnose(source, prints, config, keep=keep, resample=resample, progress=progress)
        _check_enough(diagnosis)
        ordered = [entries[place] for place in sorted(entries)]
        shape = _write_array(work / "pictures.npy", spool, ordered, diagnosis, stretch=resample == "bilinear")
    (work / "spool").unlink()
    facts = {"digest": digest, "shape": shape, **_facts(diagnosis, resample)}
    with (work / "manifest.json").open("wb") as file:
        file.write(json.dumps(facts, indent=1).encode())
        _write_through(file)


def _check_enough(diagnosis: Diagnosis) -> None:
    if diagnosis.used >= PICTURES_MIN:
        return
    reasons: dict[str, int] = {}
    for file in diagnosis.files:
        for finding in file.findings:
            if finding.severity == "left out":
                reasons[finding.kind] = reasons.get(finding.kind, 0) + 1
    why = f" (left out: {listed(reasons)})" if reasons else ""
    counted = f"{diagnosis.used} usable pictures among {len(diagnosis.files)} files"
    raise DataError(f"{diagnosis.source}: {counted}{why}; at least {PICTURES_MIN} are needed")


def _write_array(
    path: Path, spool: IO[bytes], entries: list[tuple[int, int]], diagnosis: Diagnosis, *, stretch: bool
) -> list[int]:
    """Copy the spool's (offset, channels) entries into one .npy of the set's mode; returns its shape."""
    size = diagnosis.config.size
    channels = len(diagnosis.mode)
    shape = [len(entries), size.height_px, size.width_px, channels]

    def pictures() -> Iterator[np.ndarray]:
        for offset, stored in entries:
            spool.seek(offset)
            data = spool.read(size.height_px * size.width_px * stored)
            yield _in_mode(
                np.frombuffer(data, np.uint8).reshape(size.height_px, size.width_px, stored), channels
            )

    table = _stretching(pictures()) if stretch else np.arange(256, dtype=np.uint8)
    # Written, not memory-mapped: a full disk is then an error, not a signal that kills the process.
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for picture in pictures():
            file.write(table[picture].tobytes())
        _write_through(file)
    return shape


def _stretching(pictures: Iterator[np.ndarray]) -> np.ndarray:
    """uint8 (256,) table that takes the smallest value of all pictures to 0 and the largest to 255."""
    low, high = 255, 0
    for picture in pictures:
        low, high = min(low, int(picture.min())), max(high, int(picture.max()))
    values = (np.arange(256) - low) * (255 / max(high - low, 1))
    return np.rint(values.clip(0, 255)).astype(np.uint8)


def _in_mode(picture: np.ndarray, channels: int) -> np.ndarray:
    """uint8 (H, W, 1, 3 or 4) → uint8 (H, W, channels). See-through parts become white where they must go."""
    if picture.shape[2] == channels:
        return picture
    if channels == 4:
        rgb = np.broadcast_to(picture, (*picture.shape[:2], 3))
        return np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], axis=2)
    if picture.shape[2] == 4:
        return _in_mode(to_rgb(picture[None])[0], channels)
    if channels == 3:
        return np.repeat(picture, 3, axis=2)
    return np.asarray(Image.fromarray(picture).convert("L"))[..., None]


def _facts(diagnosis: Diagnosis, resample: Resample) -> dict[str, Any]:
    """What the manifest says of the files, whatever source they came through."""
    files, left_out = [], []
    for file in diagnosis.files:
        notes = [{"kind": f.kind, "what": f.message} for f in file.findings]
        if file.used:
            entry: dict[str, Any] = {"name": file.name, "sha256": file.sha256}
            entry |= {"width_px": file.width_px, "height_px": file.height_px}
            files.append(entry | ({"notes": notes} if notes else {}))
        else:
            why = next(f for f in file.findings if f.severity == "left out")
            left_out.append(
                {"name": file.name, "kind": why.kind, "reason": why.message, "sha256": file.sha256}
            )
    settings = {"mode": diagnosis.mode, "fit": diagnosis.config.fit, "resample": resample}
    return {**settings, "summary": diagnosis.summary, "files": files, "left_out": left_out}


# --- completing what the cache holds -----------------------------------------------------------------------


def _complete(
    source: Source, config: DataConfig, pictures: np.ndarray, facts: dict[str, Any], digest: str
) -> PreparedSet:
    held = _holdout([file["sha256"] for file in facts["files"]], config.holdout)
    holdout = np.array(sorted(held), dtype=np.int64)
    train = np.array([i for i in range(len(pictures)) if i not in held], dtype=np.int64)
    if len(train) < PICTURES_MIN:
        raise DataError(
            f"--holdout {config.holdout:g} leaves {len(train)} pictures; {PICTURES_MIN} are needed"
        )
    manifest = {
        "source": source.description,
        "name": source.name,
        "licence": source.licence,
        "citation": source.citation,
        "counts": {
            "files": len(facts["files"]) + len(facts["left_out"]),
            "used": len(pictures),
            "left_out": len(facts["left_out"]),
            "train": len(train),
            "holdout": len(holdout),
        },
        **facts,
        "files": [{**file, "holdout": i in held} for i, file in enumerate(facts["files"])],
    }
    return PreparedSet(
        pictures=pictures,
        channels=pictures.shape[3],
        train_index=train,
        holdout_index=holdout,
        manifest=manifest,
        digest=digest,
    )


def _holdout(hashes: list[str], share: float) -> set[int]:
    """Places of the pictures whose content hashes come first: the same ones whatever their names or order."""
    count = max(1, round(share * len(hashes))) if share > 0 else 0
    return set(sorted(range(len(hashes)), key=lambda place: hashes[place])[:count])
