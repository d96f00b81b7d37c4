"""A run → how good its generator is and whether it copies: scores, copies, and the files that keep them.

`bonsaigan evaluate`, the end of a training and `generate --avoid-copies` share what stands here.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bonsaigan import runs
from bonsaigan.errors import BonsaiganError, RunError
from bonsaigan.evaluation.copies import PAIRS_SHOWN, CopyDetector, CopyReport
from bonsaigan.evaluation.embedding import NETWORK, embed
from bonsaigan.evaluation.scores import Scores, score
from bonsaigan.generator import CHUNK, Generator, load
from bonsaigan.plots import pair_up, save_grid
from bonsaigan.training.checkpoint import write_atomically
from bonsaigan.training.recipes import find
from bonsaigan.training.session import check_same_data, prepare_data

if TYPE_CHECKING:
    from bonsaigan.data.prepare import PreparedSet
    from bonsaigan.evaluation.embedding import Pictures

COUNT = 500
"""Pictures drawn for scores: enough that drawing others changes little."""
PAIR_COLUMNS, PAIR_GAP_PX = 4, 10
GIVE_UP_AFTER = 20


@dataclass(frozen=True, kw_only=True)
class RealPictures:
    """What a generator is held against."""

    training: Pictures
    """uint8 (N, H, W, C), trained on."""
    holdout: Pictures
    """uint8 (M, H, W, C), kept out of training; M may be 0."""

    @classmethod
    def of(cls, prepared: PreparedSet) -> RealPictures:
        """Both parts of a prepared set, in memory."""
        pictures = np.asarray(prepared.pictures)
        if not len(prepared.holdout_index):
            return cls(training=pictures, holdout=pictures[:0])
        return cls(training=pictures[prepared.train_index], holdout=pictures[prepared.holdout_index])


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
    generator = load(folder, latest=latest, device=device)
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
    detector = CopyDetector(
        real.training,
        holdout=sides.get("holdout"),
        features=known["real"],
        holdout_features=known.get("holdout"),
        device=device,
    )
    copies = detector.check(generated, seeds=seeds, features=known["generated"])
    appraisal = Appraisal(step=generator.spec.step, scores=scores, copies=copies)
    _keep(folder, appraisal, generated, real.training)
    return appraisal


def read_real(
    folder: Path, *, archive: str | None = None, progress: Callable[[int, int | None], None] | None = None
) -> RealPictures:
    """The pictures a run was trained on, found and prepared again.

    Raises:
        RunError: the run was not trained here, or its pictures changed.
        DataError: its pictures are not there any more.
    """
    if not (folder / runs.CONFIG_FILE).is_file():
        raise RunError(f"{folder}: not trained here, so its pictures are not known")
    config = runs.read_config(folder)
    data = dataclasses.replace(config.data, archive=archive or config.data.archive)
    prepared = prepare_data(data, resample=find(config.recipe).resample, progress=progress)
    check_same_data(folder, prepared)
    return RealPictures.of(prepared)


def original_seeds(
    generator: Generator, training: Pictures, *, count: int, seed: int, truncation: float, device: str = "cpu"
) -> tuple[list[int], int]:
    """The first `count` seeds from `seed` on whose pictures do not look like copies, and how many were tried.

    Raises:
        BonsaiganError: every one of many looks like a copy.
    """
    detector = CopyDetector(training, device=device)
    kept: list[int] = []
    tried = 0
    while len(kept) < count:
        seeds = range(seed + tried, seed + tried + min(count, CHUNK))
        pictures = generator.images(generator.latents(seeds, truncation=truncation))
        report = detector.check(pictures, seeds=seeds)
        kept += [s for s, copied in zip(seeds, report.flagged) if not copied]
        tried += len(seeds)
        if tried >= GIVE_UP_AFTER * count and not kept:
            raise BonsaiganError(f"each of {tried} pictures looks like a copy; --avoid-copies leaves none")
    return kept[:count], tried


def _keep(folder: Path, appraisal: Appraisal, generated: Pictures, training: Pictures) -> None:
    """The closest pairs first: what `metrics.json` says of them is then never without its picture."""
    pairs = appraisal.copies.closest(PAIRS_SHOWN)
    near = [training[p.training][:, ::-1] if p.mirrored else training[p.training] for p in pairs]
    shown = pair_up(generated[[p.generated for p in pairs]], np.stack(near))
    path = folder / runs.CLOSEST_FILE
    try:
        save_grid(path, shown, columns=PAIR_COLUMNS, gap_px=PAIR_GAP_PX)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from None
    result = {
        "step": appraisal.step,
        "scores": appraisal.scores.to_dict(),
        "copies": appraisal.copies.to_dict(),
    }
    write_atomically(folder / runs.SCORES_FILE, json.dumps(result, indent=2).encode())
