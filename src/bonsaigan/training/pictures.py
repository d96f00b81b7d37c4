"""A run's pictures: where they are, prepared, and whether they are the ones it began with."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bonsaigan import processes, runs
from bonsaigan.config import DataConfig, TrainConfig, read_json
from bonsaigan.data.files import expanded, printable
from bonsaigan.data.prepare import PreparedSet, prepare
from bonsaigan.data.sources import CALTECH, PUBLIC, open_source, typed_in
from bonsaigan.durable import write_atomically
from bonsaigan.errors import RunError

DataProgress = Callable[[int, "int | None"], None]


def prepare_data(config: DataConfig, *, resample: str, progress: DataProgress | None = None) -> PreparedSet:
    """Open and prepare DATA; see `open_source` and `prepare`."""
    with processes.first_of_machine_first():
        source = open_source(config.source, archive=config.archive, size=config.size, progress=progress)
        prepared = prepare(source, config, resample=resample, progress=progress)  # pyright: ignore[reportArgumentType]
    if progress is not None:
        progress(len(prepared.pictures), len(prepared.pictures))
    return prepared


def data_of(
    folder: Path, config: TrainConfig, *, moved: str | None = None, archive: str | None = None
) -> DataConfig:
    """Where a run's pictures are; a relative path is one from where the run was begun, if something is there.

    Args:
        folder: the run.
        config: its settings.
        moved: DATA, if they are not where they were.
        archive: a copy of the Caltech-101 archive, if it is not where it was.

    Raises:
        RunError: they are not there any more.
    """
    data, started = config.data, folder.absolute().parent.parent
    source = typed_in(started, data.source) if moved is None else moved
    if source is None:
        raise RunError(
            f"{folder}: the pictures it was trained on, {printable(data.source)!r}, are not there any more; "
            "put them back, or say where they are with --data, which resume and evaluate take"
        )
    if archive is None and data.archive is not None and source.startswith(CALTECH):
        archive = typed_in(started, data.archive) or data.archive
    return dataclasses.replace(data, source=source, archive=archive)


def remember(folder: Path, config: TrainConfig, data: DataConfig, prepared: PreparedSet) -> TrainConfig:
    """Write into a run where its pictures are now, as paths from anywhere; the settings with that in them."""
    source = data.source if data.source.startswith(PUBLIC) else str(expanded(data.source).absolute())
    archive = None if data.archive is None else str(expanded(data.archive).absolute())
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, source=source, archive=archive)
    )
    manifest = read_json(folder / runs.DATA_FILE, limit_bytes=runs.DATA_MAX_BYTES)
    manifest["source"] = prepared.manifest["source"]
    write_atomically(folder / runs.DATA_FILE, json.dumps(manifest, indent=2).encode())
    write_atomically(folder / runs.CONFIG_FILE, config.to_json().encode())
    return config


def listed(folder: Path) -> list[dict[str, str | bool]]:
    """The pictures of a run, each with its `sha256` and whether it was kept away (`holdout`).

    Raises:
        RunError: the run's list of them is damaged.
    """
    raw = read_json(folder / runs.DATA_FILE, limit_bytes=runs.DATA_MAX_BYTES)
    try:
        return [{"sha256": str(f["sha256"]), "holdout": bool(f.get("holdout"))} for f in raw["files"]]
    except (KeyError, TypeError, AttributeError):
        raise RunError(f"{folder / runs.DATA_FILE}: damaged; its pictures cannot be compared") from None


def as_it_began(folder: Path, prepared: PreparedSet, *, moved: str | None = None) -> PreparedSet:
    """A run's pictures in the order they had when it began: files may have other names by now.

    Args:
        folder: the run.
        prepared: its pictures as they are now.
        moved: DATA, if they are not where they were.

    Raises:
        RunError: by content, some are new or some are gone; or the run's list of them is damaged.
    """
    before = [str(file["sha256"]) for file in listed(folder)]
    now = {str(file["sha256"]): place for place, file in enumerate(prepared.manifest["files"])}
    new, gone = len(now.keys() - set(before)), len(set(before) - now.keys())
    if new or gone or len(before) != len(now):
        said = f"{folder}: its pictures changed since it began"
        if moved is not None:
            said = f"DATA {printable(moved)!r}: not the pictures that {folder} began with"
        raise RunError(
            f"{said} ({new} new, {gone} gone); put them back, or start a new run with: bonsaigan train"
        )
    held = set(prepared.holdout_index.tolist())
    places = [now[digest] for digest in before]
    return dataclasses.replace(
        prepared, train_index=np.array([p for p in places if p not in held], dtype=np.int64)
    )
