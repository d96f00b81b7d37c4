"""A run's pictures: where they are, prepared, and whether they are the ones it began with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bonsaigan import processes, runs
from bonsaigan.config import DataConfig, TrainConfig, read_json
from bonsaigan.data.files import printable
from bonsaigan.data.prepare import PreparedSet, prepare
from bonsaigan.data.sources import open_source, typed_in
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


def data_of(folder: Path, config: TrainConfig, *, archive: str | None = None) -> DataConfig:
    """Where a run's pictures are; a relative path is one from where the run was begun, if something is there.

    Raises:
        RunError: they are not there any more.
    """
    data, started = config.data, folder.absolute().parent.parent
    source = typed_in(started, data.source)
    if source is None:
        raise RunError(
            f"{folder}: the pictures it was trained on, {printable(data.source)!r}, are not there any more; "
            f"put them back, or write where they are into its {runs.CONFIG_FILE} (data.source)"
        )
    if archive is None and data.archive is not None:
        archive = typed_in(started, data.archive) or data.archive
    return dataclasses.replace(data, source=source, archive=archive)


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


def as_it_began(folder: Path, prepared: PreparedSet) -> PreparedSet:
    """A run's pictures in the order they had when it began: files may have other names by now.

    Raises:
        RunError: by content, some are new or some are gone; or the run's list of them is damaged.
    """
    before = [str(file["sha256"]) for file in listed(folder)]
    now = {str(file["sha256"]): place for place, file in enumerate(prepared.manifest["files"])}
    new, gone = len(now.keys() - set(before)), len(set(before) - now.keys())
    if new or gone or len(before) != len(now):
        raise RunError(
            f"{folder}: its pictures changed since it began ({new} new, {gone} gone); put them back, or "
            "start a new run with: bonsaigan train"
        )
    held = set(prepared.holdout_index.tolist())
    places = [now[digest] for digest in before]
    return dataclasses.replace(
        prepared, train_index=np.array([p for p in places if p not in held], dtype=np.int64)
    )
