"""Scores for generated pictures, made for small sets: features → statistics → number.

`evaluate` gives every number with its floor beside it: what the same measure says of one half of the real
pictures against the other half. A generator as good as the photos themselves scores like the floor.

Which numbers to trust with a hundred photos: KID, which is unbiased at any size. The Fréchet distance falls
as sets grow, and must not be compared between sets of different sizes. All of them reward copying: read them
with `copies.py` beside.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bonsaigan.errors import DataError
from bonsaigan.evaluation import metrics
from bonsaigan.evaluation.embedding import FILTER, INCEPTION, INCEPTION_FILTER, NETWORK, embed

if TYPE_CHECKING:
    from bonsaigan.evaluation.embedding import Features, Pictures

PICTURES_MIN = 8
REPEATS = 10
NEARNESS = (
    (0.010, "hard to tell from the real ones by this measure"),
    (0.040, "close to the real ones"),
    (0.120, "recognisable, but not yet close to the real ones"),
    (float("inf"), "still far from the real ones"),
)
"""Words for a KID of `NETWORK`, as we found them looking: 0.02 is bonsai trees after ten minutes of training,
0.04 butterflies, 0.37 the tutorial's blurs after 3,000 steps."""
NEIGHBOUR_MEASURES = (metrics.precision, metrics.recall, metrics.density, metrics.coverage)


def evaluate(
    generated: Pictures,
    real: Pictures,
    *,
    holdout: Pictures | None = None,
    seed: int = 0,
    network: str = NETWORK,
    device: str = "cpu",
) -> Scores:
    """Score generated pictures against the training pictures, and against held-out ones if there are any.

    Args:
        generated: uint8 (N, H, W, C), at least 8.
        real: uint8 (M, H, W, C), at least 8: the pictures trained on.
        holdout: uint8 (L, H, W, C), pictures kept out of training; scored when there are at least 8.
        seed: draws the random subsets; same inputs and seed, same numbers.
        network: one of `NETWORKS`; never the one used in training.
        device: where the network runs.

    Raises:
        ConfigError: unknown network, or `inception` without torch-fidelity and its weights.
        DataError: too few pictures, or arrays of another form.
    """
    held = None if holdout is None or not len(holdout) else holdout
    sides = [None if p is None else embed(p, network=network, device=device) for p in (generated, real, held)]
    assert sides[0] is not None
    assert sides[1] is not None
    return score(sides[0], sides[1], holdout=sides[2], seed=seed, network=network)


def score(
    generated: Features,
    real: Features,
    *,
    holdout: Features | None = None,
    seed: int = 0,
    network: str = NETWORK,
) -> Scores:
    """`evaluate` from features, as `embed` gives them: `network` only names where they come from."""
    for name, features in (("generated", generated), ("real", real)):
        if len(features) < PICTURES_MIN:
            raise DataError(f"{len(features)} {name} pictures: scores need at least {PICTURES_MIN}")
    held_count = 0 if holdout is None else len(holdout)
    held = holdout if held_count >= PICTURES_MIN else None
    half = len(real) // 2
    matched = min(half, len(generated))
    neighbours = min(metrics.NEIGHBOURS, half - 1)
    floor, floor_std = floors(real, neighbours=neighbours, seed=seed, frechet_count=matched)
    return Scores(
        numbers=compare(generated, real, neighbours=neighbours, seed=seed),
        kid_subsets=metrics.kid(generated, real, seed=seed),
        frechet_matched=_frechet_matched(generated, real, count=matched, seed=seed),
        frechet_count=matched,
        floor=floor,
        floor_std=floor_std,
        holdout=None if held is None else of_any_size(generated, held),
        generated_count=len(generated),
        real_count=len(real),
        holdout_count=held_count,
        floor_count=half,
        neighbour_count=min(len(generated), len(real)),
        neighbours=neighbours,
        repeats=REPEATS,
        network=network,
        filter=INCEPTION_FILTER if network == INCEPTION else FILTER,
        seed=seed,
        notes=_notes(len(generated), len(real), held_count),
    )


def compare(
    generated: Features, real: Features, *, neighbours: int = metrics.NEIGHBOURS, seed: int = 0
) -> Numbers:
    """Every measure once; the four that need equal counts are means over random subsets of equal size."""
    count = min(len(generated), len(real))
    draws = []
    for repeat in range(REPEATS if len(generated) != len(real) else 1):
        rng = np.random.default_rng((seed, repeat))
        sides = _draw(rng, generated, count), _draw(rng, real, count)
        near = metrics.nearness(*sides, neighbours=min(neighbours, count - 1))
        draws.append([measure(near) for measure in NEIGHBOUR_MEASURES])
    means = np.mean(draws, axis=0).tolist()
    return Numbers(
        kid=metrics.kid_full(generated, real),
        frechet=metrics.frechet(generated, real),
        precision=means[0],
        recall=means[1],
        density=means[2],
        coverage=means[3],
        diversity=metrics.diversity(generated, real),
    )


def of_any_size(generated: Features, real: Features) -> QuickScore:
    """The two measures that sets of any two sizes have without favour: few held-out pictures would flatter
    the others, for among few everything is a neighbour."""
    return QuickScore(kid=metrics.kid_full(generated, real), diversity=metrics.diversity(generated, real))


def floors(
    real: Features,
    *,
    neighbours: int = metrics.NEIGHBOURS,
    seed: int = 0,
    frechet_count: int | None = None,
) -> tuple[Numbers, Numbers]:
    """Mean and standard deviation of every measure between two random halves of the real pictures.

    The Fréchet distance can be had between `frechet_count` of each half, for it depends on the count.
    """
    half = len(real) // 2
    size = half if frechet_count is None else frechet_count
    values = []
    for repeat in range(REPEATS):
        order = np.random.default_rng((seed, repeat)).permutation(len(real))
        one, other = real[order[:half]], real[order[half : 2 * half]]
        numbers = compare(one, other, neighbours=neighbours, seed=seed)
        if size < half:
            numbers = dataclasses.replace(numbers, frechet=metrics.frechet(one[:size], other[:size]))
        values.append(dataclasses.astuple(numbers))
    names = [field.name for field in dataclasses.fields(Numbers)]
    mean, std = np.mean(values, axis=0).tolist(), np.std(values, axis=0).tolist()
    return Numbers(**dict(zip(names, mean))), Numbers(**dict(zip(names, std)))


class RealReference:
    """The real pictures' side, computed once: scoring generated ones costs little but embedding them."""

    def __init__(self, real: Pictures, *, device: str = "cpu"):
        """See `evaluate` for the arguments and errors."""
        if len(real) < PICTURES_MIN:
            raise DataError(f"{len(real)} real pictures: scores need at least {PICTURES_MIN}")
        self.device = device
        self.features = embed(real, device=device)
        self._within = metrics.mean_off_diagonal(metrics.polynomial_kernel(self.features, self.features))
        self._spread = metrics.mean_distance(self.features)

    def embed(self, generated: Pictures) -> Features:
        """Features of uint8 (N, H, W, C), as `score` takes them."""
        return embed(generated, device=self.device)

    def score(self, features: Features) -> QuickScore:
        """The same numbers as `kid_full` and `diversity` give, for at least 2 generated pictures."""
        within = metrics.mean_off_diagonal(metrics.polynomial_kernel(features, features))
        between = float(metrics.polynomial_kernel(features, self.features).mean())
        return QuickScore(
            kid=within + self._within - 2 * between,
            diversity=metrics.ratio(metrics.mean_distance(features), self._spread),
        )


@dataclass(frozen=True, kw_only=True)
class QuickScore:
    """The two measures that do not depend on how many pictures there are."""

    kid: float
    """`Numbers.kid`."""
    diversity: float
    """`Numbers.diversity`."""


# ---------------------------------------------------------------------------------------------------------
# Results


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """One value for each measure."""

    kid: float
    """Unbiased kernel distance over all pictures; 0 for equal distributions, and may fall below."""
    frechet: float
    """Fréchet distance; biased upward, the more so the fewer pictures there are."""
    precision: float
    """Share of generated pictures among the real ones, 0 to 1."""
    recall: float
    """Share of real pictures among the generated ones, 0 to 1."""
    density: float
    """How many real neighbourhoods a generated picture lies in, over `neighbours`; about 1 is the ideal."""
    coverage: float
    """Share of real pictures with a generated one in their neighbourhood, 0 to 1."""
    diversity: float
    """Mean distance between generated pictures over that between real ones; well below 1 is collapse."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Generated against real pictures, the floor of each measure, and all that is needed to repeat it."""

    numbers: Numbers
    """Generated against real."""
    kid_subsets: metrics.Kid
    """KID's mean and spread over subsets smaller than the set."""
    frechet_matched: float
    """Fréchet distance at `frechet_count` pictures a side, mean over subsets: to hold against its floor."""
    frechet_count: int
    """Pictures a side for it and for its floor: `floor_count`, or fewer where fewer were generated."""
    floor: Numbers
    """Real against real: the mean over random halves."""
    floor_std: Numbers
    """Standard deviation over those halves."""
    holdout: QuickScore | None
    """Generated against pictures kept out of training; None without enough of them."""
    generated_count: int
    """Generated pictures."""
    real_count: int
    """Real pictures."""
    holdout_count: int
    """Pictures kept out of training."""
    floor_count: int
    """Pictures in each half of the floor: fewer than `real_count`, which lifts biased measures."""
    neighbour_count: int
    """Pictures a side for precision, recall, density and coverage: the smaller set's."""
    neighbours: int
    """The k of these four."""
    repeats: int
    """Random halves and random equal-sized subsets that were averaged."""
    network: str
    """The feature network."""
    filter: str
    """How pictures were resized for it, the same way on both sides."""
    seed: int
    """Seed of every random subset."""
    notes: tuple[str, ...]
    """What to keep in mind when reading, in sentences."""

    @property
    def nearness(self) -> str:
        """How near the generated pictures are to the real ones, in a few words; empty for other networks."""
        if self.network != NETWORK:
            return ""
        return next(words for limit, words in NEARNESS if self.numbers.kid < limit)

    @property
    def verdict(self) -> str:
        """How good the generated pictures are, in a sentence, or two where some were kept out of training."""
        kid, floor = self.numbers.kid * 1000, self.floor.kid * 1000
        measured = f"KID x1000 {kid:.3g} (halves of the real pictures: {floor:.2g})"
        likeness = f"The new pictures are {self.nearness}: {measured}" if self.nearness else measured
        covered = f"{self.numbers.coverage:.0%} of the real pictures have a new one near them"
        kept_away = ""
        if self.holdout is not None:
            held, against = self.holdout_count, self.holdout.kid * 1000
            kept_away = f" Against the {held} held-out pictures KID x1000 is {against:.3g}."
        return f"{likeness}; {covered} (halves: {self.floor.coverage:.0%}).{kept_away}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        words = {"nearness": self.nearness, "verdict": self.verdict}
        return words | dataclasses.asdict(self) | {"notes": list(self.notes)}

    def rows(self) -> list[tuple[str, str, str, str]]:
        """A table for people: measure, value, floor (real against real), and which way is better."""
        table = []
        for label, name, scale, better in ROWS:
            value = f"{getattr(self.numbers, name) * scale:.3g}"
            if name == "kid":
                value += f" ({self.kid_subsets.mean * scale:.3g} ± {self.kid_subsets.std * scale:.2g})"
            if name == "frechet":
                value += f" ({self.frechet_matched:.3g} at {self.frechet_count} a side)"
            low, spread = (getattr(side, name) * scale for side in (self.floor, self.floor_std))
            table.append((label, value, f"{low:.3g} ± {spread:.2g}", better))
        return table


ROWS = (
    ("KID x1000", "kid", 1000, "lower"),
    ("Fréchet distance", "frechet", 1, "lower"),
    ("precision", "precision", 1, "higher"),
    ("recall", "recall", 1, "higher"),
    ("density", "density", 1, "higher"),
    ("coverage", "coverage", 1, "higher"),
    ("diversity", "diversity", 1, "near 1"),
)


def _frechet_matched(generated: Features, real: Features, *, count: int, seed: int) -> float:
    values = []
    for repeat in range(REPEATS):
        rng = np.random.default_rng((seed, repeat))
        values.append(metrics.frechet(_draw(rng, generated, count), _draw(rng, real, count)))
    return float(np.mean(values))


def _draw(rng: np.random.Generator, features: Features, count: int) -> Features:
    if count == len(features):
        return features
    return features[rng.choice(len(features), count, replace=False)]


def _notes(generated_count: int, real_count: int, held_count: int) -> tuple[str, ...]:
    half = real_count // 2
    notes = [
        f"The floors compare halves of the real pictures, {half} each; only KID and diversity ignore that."
    ]
    if generated_count < half:
        notes.append(
            f"Precision, recall, density and coverage of {generated_count} pictures a side look better than "
            f"those of {half}: draw more to hold them against their floors."
        )
    if real_count < 2048:
        notes.append(f"Fréchet distances from {real_count} pictures compare only with ones from as many.")
    if held_count == 0:
        notes.append("Scored against the training pictures, which rewards copying: read the copy report too.")
    elif held_count < PICTURES_MIN:
        notes.append(f"{held_count} held-out pictures are too few for a score: it needs {PICTURES_MIN}.")
    return tuple(notes)
