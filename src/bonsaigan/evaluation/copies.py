"""Is it copying my photos? The nearest training pictures, and a verdict in a sentence.

A generated picture is held against every training picture and its mirror image in two ways: by pixels, with
small shifts and zooms forgiven (`pixels.py`), and by the features of a frozen network. For each,

    ratio = distance to the nearest / mean distance to the 50 next nearest

says how much one training picture stands out. It needs no fixed distance, so a blurry picture, which is near
to everything, is not taken for a copy. (Yoon et al., "Diffusion Probabilistic Models Generalize when They
Fail to Memorize", 2023; Carlini et al., "Extracting Training Data from Diffusion Models", 2023.)

A picture looks like a copy when its pixel ratio is below the pixel limit; or when its feature ratio is below
the feature limit and its pixel ratio at least halfway down to the pixel limit. Features find copies that were
turned or moved too far for the pixels; alone they would take four photos of one kind of butterfly for one.
The limits are calibrated on the training pictures themselves: see `Limit`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bonsaigan.errors import DataError
from bonsaigan.evaluation.embedding import embed
from bonsaigan.evaluation.metrics import distances
from bonsaigan.evaluation.pixels import pixel_distances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bonsaigan.evaluation.embedding import Features, Pictures

    Floats = NDArray[np.floating]
    Flags = NDArray[np.bool_]
    Places = NDArray[np.int64]

PIXEL_LIMIT = 1 / 3
"""Yoon et al.'s constant. Replayed photos stay below 1/4; different photos seldom come below 1/2."""
FEATURE_LIMIT = 1 / 2
TAIL_SIGMAS = 4
NEXT_NEAREST = 50
CALIBRATION_MAX = 500
"""Training pictures held against the others for the limits: enough for a median, and the work is linear."""
DIFFERENT_MIN = 4
NAMES_SHOWN, PAIRS_SHOWN = 20, 16


# ---------------------------------------------------------------------------------------------------------
# Results


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """For each of N pictures the nearest training picture by one kind of distance."""

    index: Places
    """(N,) which training picture."""
    mirrored: Flags
    """(N,) whether its mirror image is the nearer."""
    distance: Floats
    """(N,) distance to it."""
    ratio: Floats
    """(N,) that distance over the mean to the next nearest: small for a copy, about 0.8 for a new picture."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A ratio that says copy: 1/3 for pixels, 1/2 for features, or less: typical · exp(-4 spread).

    Median and median absolute deviation ignore the few near-duplicates that real sets contain. In a set whose
    pictures are all near each other, such as frames of a film, the limit falls: there, being near to one of
    them is nothing special.
    """

    value: float
    """The limit."""
    typical: float
    """Median ratio of the training pictures, each against the others."""
    spread: float
    """1.4826 times the median absolute deviation of its logarithm."""

    @property
    def halfway(self) -> float:
        """Between typical and the limit, in the logarithm."""
        return (self.value * self.typical) ** 0.5


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The same measures for pictures that are no copies."""

    name: str
    """Whose: `training pictures`, each against the others, or `held-out pictures`."""
    count: int
    """How many."""
    flagged: int
    """How many of them the rule takes for copies: near-duplicates within the set, or false alarms."""
    pixel_distance: float
    """Median pixel distance to the nearest training picture."""
    feature_distance: float
    """Median feature distance to the nearest."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A generated picture and the training picture it is nearest to."""

    generated: int
    """Place of the generated picture."""
    training: int
    """Place of the training picture."""
    mirrored: bool
    """Whether the training picture's mirror image is the nearer."""
    closeness: float
    """`CopyReport.closeness`: below 1 looks like a copy."""
    flagged: bool
    """Whether it looks like a copy."""


@dataclass(frozen=True, kw_only=True)
class CopyReport:
    """What `CopyDetector.check` found, for N generated pictures."""

    nearest: Places
    """(N,) nearest training picture: by pixels or by features, whichever speaks more for a copy."""
    mirrored: Flags
    """(N,) whether its mirror image is meant."""
    closeness: Floats
    """(N,) ratio over limit, by the rule above: below 1 looks like a copy."""
    flagged: Flags
    """(N,) which look like copies."""
    pixels: Nearest
    """By pixel distance."""
    features: Nearest
    """By feature distance."""
    pixel_limit: Limit
    """For `pixels.ratio`."""
    feature_limit: Limit
    """For `features.ratio`."""
    baselines: tuple[Baseline, ...]
    """What to hold the distances against: training pictures, and held-out ones if there are any."""
    seeds: tuple[int, ...] | None
    """(N,) the seed of each generated picture, where known."""
    sampled: tuple[int, int] | None = None
    """(training pictures looked at, training pictures there are) where these differ."""

    @property
    def verdict(self) -> str:
        """How many look like copies, and which, in a sentence; and `bluntness`."""
        places, total = np.flatnonzero(self.flagged), len(self.flagged)
        blunt = f" {self.bluntness}" if self.bluntness else ""
        looked = f" ({self.sampled[0]:,} of {self.sampled[1]:,} were looked at)" if self.sampled else ""
        if not len(places):
            return f"None of {total} looks like a copy of a training picture{looked}.{blunt}"
        names = [str(self.seeds[i] if self.seeds is not None else i) for i in places]
        listed = ", ".join(names[:NAMES_SHOWN])
        if len(names) > NAMES_SHOWN:
            listed += f" and {len(names) - NAMES_SHOWN} more"
        noun = "picture" if self.seeds is None else "seed"
        if len(names) == 1:
            return f"1 of {total} looks like a copy of a training picture{looked}: {noun} {listed}.{blunt}"
        return (
            f"{len(names)} of {total} look like copies of training pictures{looked}: {noun}s {listed}.{blunt}"
        )

    @property
    def bluntness(self) -> str:
        """A sentence where the limit fell so low that copies would be missed; else empty."""
        if self.pixel_limit.value >= PIXEL_LIMIT / 2:
            return ""
        return "So many training pictures have a near twin that only the closest copies can be told."

    @property
    def comparison(self) -> str:
        """The distances beside those of pictures that are no copies, in a few sentences."""
        own = np.median(self.pixels.distance), np.median(self.features.distance)
        parts = [f"generated {own[0]:.2f} by pixels and {own[1]:.1f} by features"]
        parts += [f"{b.name} {b.pixel_distance:.2f} and {b.feature_distance:.1f}" for b in self.baselines]
        text = f"Median distance to the nearest other training picture: {'; '.join(parts)}."
        for b in self.baselines:
            if b.flagged:
                text += f" The same rule marks {b.flagged} of {b.count} {b.name}."
        return text

    def closest(self, n: int) -> list[Pair]:
        """The n pairs that look most like copies, the most suspicious first."""
        order = np.argsort(self.closeness, kind="stable")[:n]
        return [
            Pair(
                generated=int(i),
                training=int(self.nearest[i]),
                mirrored=bool(self.mirrored[i]),
                closeness=float(self.closeness[i]),
                flagged=bool(self.flagged[i]),
            )
            for i in order
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: the sentences, the limits and baselines, and the flagged and closest pairs."""
        flagged = int(self.flagged.sum())
        return {
            "verdict": self.verdict,
            "comparison": self.comparison,
            "bluntness": self.bluntness,
            "generated_count": len(self.flagged),
            "flagged_count": flagged,
            "pixel_limit": vars(self.pixel_limit),
            "feature_limit": vars(self.feature_limit),
            "baselines": [vars(baseline) for baseline in self.baselines],
            "closest": [
                vars(pair) | {"seed": None if self.seeds is None else self.seeds[pair.generated]}
                for pair in self.closest(max(flagged, PAIRS_SHOWN))
            ],
        }


# ---------------------------------------------------------------------------------------------------------
# Finding copies


class CopyDetector:
    """The training pictures, ready for any number of `check`s."""

    def __init__(
        self,
        training: Pictures,
        *,
        total: int | None = None,
        holdout: Pictures | None = None,
        features: Features | None = None,
        holdout_features: Features | None = None,
        device: str = "cpu",
    ):
        """Embed the training pictures and their mirror images, and calibrate the limits on them.

        Args:
            training: uint8 (M, H, W, C).
            total: how many training pictures there are, where these are not all.
            holdout: uint8 (L, H, W, C), pictures kept out of training: the honest comparison.
            features: `embed(training)`, if known already.
            holdout_features: `embed(holdout)`, if known already.
            device: where the features' network runs.

        Raises:
            DataError: fewer than 4 different training pictures.
        """
        self.device = device
        self._sampled = None if total in (None, len(training)) else (len(training), total)
        self._places = _different(training)
        if len(self._places) < DIFFERENT_MIN:
            raise DataError(
                f"{len(self._places)} different training pictures: finding copies needs {DIFFERENT_MIN}"
            )
        self._training = training[self._places]
        self._features = (
            embed(self._training, device=device) if features is None else (features[self._places])
        )
        self._mirror_features = embed(np.ascontiguousarray(self._training[:, :, ::-1]), device=device)
        sample = np.random.default_rng(0).permutation(len(self._places))[:CALIBRATION_MAX]
        pixels, of_features = self._nearest(self._training[sample], self._features[sample], own=sample)
        self.pixel_limit = _limit(pixels.ratio, PIXEL_LIMIT)
        self.feature_limit = _limit(of_features.ratio, FEATURE_LIMIT)
        self.baselines = (self._baseline("training pictures", pixels, of_features),)
        if holdout is not None and len(holdout):
            if holdout_features is None:
                holdout_features = embed(holdout, device=device)
            held = self._nearest(holdout, holdout_features)
            self.baselines += (self._baseline("held-out pictures", *held),)

    def check(
        self, generated: Pictures, *, seeds: Sequence[int] | None = None, features: Features | None = None
    ) -> CopyReport:
        """Look for copies of training pictures.

        Args:
            generated: uint8 (N, H, W, C); sides and channels may differ from the training pictures'.
            seeds: (N,) the seed of each, to name them by in the verdict.
            features: `embed(generated)`, if known already.

        Raises:
            DataError: no pictures, or not as many seeds.
        """
        if seeds is not None and len(seeds) != len(generated):
            raise DataError(f"{len(seeds)} seeds for {len(generated)} pictures")
        if features is None:
            features = embed(generated, device=self.device)
        pixels, of_features = self._nearest(generated, features)
        closeness, by_pixels = self._closeness(pixels, of_features)
        return CopyReport(
            nearest=np.where(by_pixels, pixels.index, of_features.index),
            mirrored=np.where(by_pixels, pixels.mirrored, of_features.mirrored),
            closeness=closeness,
            flagged=closeness < 1,
            pixels=pixels,
            features=of_features,
            pixel_limit=self.pixel_limit,
            feature_limit=self.feature_limit,
            baselines=self.baselines,
            seeds=None if seeds is None else tuple(int(seed) for seed in seeds),
            sampled=self._sampled,
        )

    def _nearest(
        self, pictures: Pictures, features: Features, *, own: Places | None = None
    ) -> tuple[Nearest, Nearest]:
        """By pixels and by features; `own` says which training pictures these are, not to meet themselves."""
        straight, mirror = distances(features, self._features), distances(features, self._mirror_features)
        pixels = self._pick(*pixel_distances(pictures, self._training), own)
        return pixels, self._pick(np.minimum(straight, mirror), mirror < straight, own)

    def _pick(self, distance: Floats, mirrored: Flags, own: Places | None) -> Nearest:
        if own is not None:
            distance[np.arange(len(own)), own] = np.inf
        rows, place = np.arange(len(distance)), distance.argmin(axis=1)
        # At most half of the others, so that small sets keep a contrast; the same with `own` and without.
        count = min(NEXT_NEAREST, (len(self._places) - 1) // 2)
        ordered = np.partition(distance, range(count + 1), axis=1)[:, : count + 1]
        nearest, others = ordered[:, 0], ordered[:, 1:].mean(axis=1)
        return Nearest(
            index=self._places[place],
            mirrored=mirrored[rows, place],
            distance=nearest,
            ratio=nearest / np.maximum(others, 1e-9),
        )

    def _closeness(self, pixels: Nearest, features: Nearest) -> tuple[Floats, Flags]:
        """How near to being flagged, below 1 if so; and whether pixels (or else features) say it."""
        by_pixels = pixels.ratio / self.pixel_limit.value
        support = pixels.ratio / self.pixel_limit.halfway
        by_features = np.maximum(features.ratio / self.feature_limit.value, support)
        return np.minimum(by_pixels, by_features), by_pixels <= by_features

    def _baseline(self, name: str, pixels: Nearest, features: Nearest) -> Baseline:
        closeness, _ = self._closeness(pixels, features)
        return Baseline(
            name=name,
            count=len(closeness),
            flagged=int((closeness < 1).sum()),
            pixel_distance=float(np.median(pixels.distance)),
            feature_distance=float(np.median(features.distance)),
        )


def _limit(ratios: Floats, most: float) -> Limit:
    logs = np.log(np.maximum(ratios, 1e-9))
    typical = np.median(logs)
    spread = 1.4826 * np.median(np.abs(logs - typical))
    value = min(most, float(np.exp(typical - TAIL_SIGMAS * spread)))
    return Limit(value=value, typical=float(np.exp(typical)), spread=float(spread))


def _different(pictures: Pictures) -> Places:
    """Places of the pictures that repeat no earlier one, mirrored or not: repeats would hide their copies."""
    seen: set[bytes] = set()
    places = []
    for place, picture in enumerate(pictures):
        straight, mirror = (hashlib.sha256(p.tobytes()).digest() for p in (picture, picture[:, ::-1]))
        if straight not in seen and mirror not in seen:
            places.append(place)
            seen.add(straight)
    return np.array(places, np.int64)
