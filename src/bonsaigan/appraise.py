"""A run → how good its generator is and whether it copies: scores, copies, and the files that keep them.

`bonsaigan evaluate`, the end of a training and `generate --avoid-copies` share what stands here.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bonsaigan import runs
from bonsaigan.data.selection import spread_places
from bonsaigan.durable import write_atomically
from bonsaigan.errors import BonsaiganError, RunError
from bonsaigan.evaluation.copies import PAIRS_SHOWN, CopyDetector, CopyReport
from bonsaigan.evaluation.embedding import NETWORK, check_network, embed
from bonsaigan.evaluation.scores import Scores, score
from bonsaigan.generator import CHUNK, Generator, load
from bonsaigan.plots import pair_up, save_grid
from bonsaigan.training.pictures import as_it_began, data_of, prepare_data, remember
from bonsaigan.training.recipes import find

if TYPE_CHECKING:
    from bonsaigan.data.prepare import PreparedSet
    from bonsaigan.evaluation.embedding import Pictures

COUNT = 500
"""Pictures drawn for scores: enough that drawing others changes little."""
REAL_MAX = 5000
"""Real pictures that they are held against; of more, so many, spread evenly over the set."""
PAIR_COLUMNS, PAIR_GAP_PX = 4, 10
GIVE_UP_AFTER = 20


@dataclass(frozen=True, kw_only=True)
class RealPictures:
    """What a generator is held against."""

    training: Pictures
    """uint8 (N, H, W, C), trained on: all of them, or `REAL_MAX`."""
    places: np.ndarray
    """int64 (N,), their places among all that were trained on, ascending."""
    training_count: int
    """How many were trained on."""
    holdout: Pictures
    """uint8 (M, H, W, C), kept out of training: all of them, or `REAL_MAX`; M may be 0."""

    @classmethod
    def of(cls, prepared: PreparedSet) -> RealPictures:
        """Both parts of a prepared set, in memory: the same pictures every time."""
        places = spread_places(len(prepared.train_index), REAL_MAX)
        held = prepared.holdout_index[spread_places(len(prepared.holdout_index), REAL_MAX)]
        return cls(
            training=np.asarray(prepared.pictures[prepared.train_index[places]]),
            places=places,
            training_count=len(prepared.train_index),
            holdout=np.asarray(prepared.pictures[held]),
        )

    @property
    def note(self) -> str:
        """A sentence where these are not all; else empty."""
        if len(self.training) == self.training_count:
            return ""
        return (
            f"Of the {self.training_count:,} training pictures {len(self.training):,} were looked at, spread "
            "evenly over the set: scores hold for all, but a copy of another would not be noticed."
        )


@dataclass(frozen=True, kw_only=True)
class Appraisal:
    """What `appraise` found."""

    step: int
    """Training step of the generator."""
    scores: Scores
    """How good it is."""
    copies: CopyReport
    """Whether it copies."""


def appraise(
    folder: Path,
    real: RealPictures,
    *,
    count: int = COUNT,
    seed: int = 0,
    network: str = NETWORK,
    latest: bool = False,
    device: str = "cpu",
) -> Appraisal:
    """Draw pictures, score them, look for copies, and keep it as `metrics.json` and `closest.png` in the run.

    Every set of pictures goes through the feature network once.

    Args:
        folder: the run.
        real: from `read_real`, or `RealPictures.of` what is in memory already.
        count: pictures to draw, at least 8.
        seed: seed of the first picture, and of the random subsets.
        network: for the scores; copies are always looked for with the same one, whose limits are known.
        latest: the latest weights instead of the best.
        device: where to compute.

    Raises:
        RunError: there is no generator, or the files cannot be written.
        DataError: there are too few different pictures.
        ConfigError: unknown network.
    """
    check_network(network)
    generator = load(folder, latest=latest, device=device)
    if not os.access(folder, os.W_OK):  # before minutes of work, not after them
        raise RunError(f"cannot write into {folder}: {os.strerror(errno.EACCES)}")
    seeds = range(seed, seed + count)
    generated = generator.images(generator.latents(seeds))
    sides = {"generated": generated, "real": real.training}
    if len(real.holdout):
        sides["holdout"] = real.holdout
    known = {name: embed(pictures, device=device) for name, pictures in sides.items()}
    scored = known
    if network != NETWORK:
        scored = {name: embed(pictures, network=network, device=device) for name, pictures in sides.items()}
    scores = score(
        scored["generated"], scored["real"], holdout=scored.get("holdout"), seed=seed, network=network
    )
    if real.note:
        scores = dataclasses.replace(scores, notes=(*scores.notes, real.note))
    detector = CopyDetector(
        real.training,
        total=real.training_count,
        holdout=sides.get("holdout"),
        features=known["real"],
        holdout_features=known.get("holdout"),
        device=device,
    )
    copies = detector.check(generated, seeds=seeds, features=known["generated"])
    appraisal = Appraisal(step=generator.spec.step, scores=scores, copies=copies)
    _keep(folder, appraisal, generated, real)
    return appraisal


def read_real(
    folder: Path,
    *,
    moved: str | None = None,
    archive: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> RealPictures:
    """The pictures a run was trained on, found and prepared again.

    Args:
        folder: the run.
        moved: DATA, if they are not where they were; from then on the run knows.
        archive: a copy of the Caltech-101 archive, if it is not where it was; likewise.
        progress: called with files or bytes done, and how many there are.

    Raises:
        RunError: the run was not trained here, or its pictures changed or are not there any more.
        DataError: its pictures cannot be read.
    """
    if not (folder / runs.CONFIG_FILE).is_file():
        raise RunError(f"{folder}: not trained here, so its pictures are not known")
    config = runs.read_config(folder)
    data = data_of(folder, config, moved=moved, archive=archive)
    prepared = prepare_data(data, resample=find(config.recipe).resample, progress=progress)
    prepared = as_it_began(folder, prepared, moved=moved)
    if (moved is not None or archive is not None) and os.access(folder, os.W_OK):
        remember(folder, config, data, prepared)
    return RealPictures.of(prepared)


def original_seeds(
    generator: Generator, real: RealPictures, *, count: int, seed: int, truncation: float, device: str = "cpu"
) -> tuple[list[int], int, str]:
    """The first `count` seeds from `seed` on whose pictures do not look like copies, and how many were tried.

    Returns:
        Seeds; how many were tried; and `CopyReport.bluntness`.

    Raises:
        BonsaiganError: every one of many looks like a copy; where nearly all do, fewer come back.
    """
    detector = CopyDetector(real.training, total=real.training_count, device=device)
    kept: list[int] = []
    tried, bluntness = 0, ""
    while len(kept) < count:
        seeds = range(seed + tried, seed + tried + min(count, CHUNK))
        pictures = generator.images(generator.latents(seeds, truncation=truncation))
        report = detector.check(pictures, seeds=seeds)
        kept += [s for s, copied in zip(seeds, report.flagged) if not copied]
        bluntness = report.bluntness
        tried += len(seeds)
        if tried >= GIVE_UP_AFTER * count:
            break
    if not kept:
        raise BonsaiganError(f"each of {tried} pictures looks like a copy; --avoid-copies leaves none")
    return kept[:count], tried, bluntness


def _keep(folder: Path, appraisal: Appraisal, generated: Pictures, real: RealPictures) -> None:
    """The closest pairs first: what `metrics.json` says of them is then never without its picture."""
    pairs = appraisal.copies.closest(PAIRS_SHOWN)
    near = [real.training[p.training][:, :: -1 if p.mirrored else 1] for p in pairs]
    shown = pair_up(generated[[p.generated for p in pairs]], np.stack(near))
    path = folder / runs.CLOSEST_FILE
    try:
        save_grid(path, shown, columns=PAIR_COLUMNS, gap_px=PAIR_GAP_PX)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from None
    copies = appraisal.copies.to_dict()
    for pair in copies["closest"]:
        pair["training"] = int(real.places[pair["training"]])
    result = {"step": appraisal.step, "scores": appraisal.scores.to_dict(), "copies": copies}
    write_atomically(folder / runs.SCORES_FILE, json.dumps(result, indent=2).encode())
