"""Health: made histories of runs in, findings out; healthy histories say nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st

from bonsaigan.cli import app
from bonsaigan.config import Size, TrainConfig
from bonsaigan.training.health import Change, Health
from bonsaigan.training.history import read_history
from bonsaigan.training.recipes import RECIPES, default_config, find
from bonsaigan.training.watches import Finding

Lines = list[dict[str, Any]]
LOOKS = [10, 15, 22, 34, 51, 76, 114, 171, 250, 500, 750, 1000, 1250, 1500, 1750, 2000]


def config(recipe: str = "projected") -> TrainConfig:
    return default_config(find(recipe), Size.parse("64"))


def health(recipe: str = "projected", *, guessing_loss: float = 2.0) -> Health:
    return Health(config(recipe), guessing_loss=guessing_loss)


def step(
    at: int, *, loss: float = 3.0, real: float = 0.9, fake: float = 0.9, over: int = 250
) -> dict[str, Any]:
    means = {"mean_loss_discriminator": loss, "mean_accuracy_real": real, "mean_accuracy_fake": fake}
    return {"kind": "step", "step": at, "mean_steps": over, **means}


def look(at: int, spread: float) -> dict[str, Any]:
    return {"kind": "look", "step": at, "spread": spread}


def evaluation(at: int, kid: float, *, diversity: float = 0.85, **leaks: float) -> dict[str, Any]:
    return {"kind": "evaluation", "step": at, "kid": kid, "diversity": diversity, **leaks}


def steps(**values: float) -> Lines:
    return [step(b, over=b - a, **values) for a, b in zip([0, *LOOKS], LOOKS)]  # pyright: ignore[reportArgumentType]


def tell(health: Health, lines: Iterable[dict[str, Any]]) -> list[Change]:
    return [change for line in lines for change in health.observe(line)]


def only(changes: list[Change]) -> Finding:
    assert [change.over for change in changes] == [False]
    return changes[0].finding


# A run of `projected` on the bonsai photographs and one of `article`, as they were measured.
PROJECTED: Lines = [
    *steps(loss=2.5, real=0.88, fake=0.94),
    *[look(at, s) for at, s in zip(LOOKS, [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.85, 0.86, 0.96, 1.12, 0.9])],
    evaluation(300, 0.186, diversity=0.73, leak_colour=0.17, leak_colour_likeness=0.13),
    evaluation(600, 0.049, diversity=0.85, leak_colour=0.65, leak_colour_likeness=0.31),
    evaluation(900, 0.034, diversity=0.84, leak_colour=0.37, leak_colour_likeness=0.30),
    evaluation(1200, 0.031, diversity=0.80, leak_colour=0.80, leak_colour_likeness=0.44),
]
ARTICLE: Lines = [
    *steps(loss=0.1, real=0.97, fake=0.99),
    *[
        look(at, s)
        for at, s in zip(LOOKS, [0.0, 0.0, 0.05, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2, 1.3, 0.9, 0.85, 0.9])
    ],
    evaluation(500, 0.558, diversity=0.59),
    evaluation(1000, 0.443, diversity=0.60),
    evaluation(1250, 0.321, diversity=0.55),
    evaluation(2000, 0.370, diversity=0.50),
    evaluation(3000, 0.368, diversity=0.55),
]


@pytest.mark.parametrize(("recipe", "lines"), [("projected", PROJECTED), ("article", ARTICLE)])
def test_measured_runs_are_healthy(recipe: str, lines: Lines) -> None:
    assert tell(health(recipe), sorted(lines, key=lambda line: line["step"])) == []


# ---------------------------------------------------------------------------------------------------------
# Collapse


def test_equal_pictures_are_a_collapse_and_pass() -> None:
    watched = health()
    changes = tell(watched, [look(at, 0.05) for at in LOOKS[:10]])
    found = only(changes)
    assert (found.name, found.since_step) == ("collapse", 10)
    assert "Since step 10 the generated pictures are all but equal" in found.what
    assert "0.05" in found.what
    assert "--lr 0.0004 or --batch 16" in found.advice
    assert tell(watched, [look(750, 0.3)]) == []
    (passed,) = tell(watched, [look(1000, 0.5)])
    assert (passed.over, passed.finding.name, watched.standing) == (True, "collapse", [])


@pytest.mark.parametrize("kind", ["look", "evaluation"])
def test_fewer_different_pictures_are_a_collapse(kind: str) -> None:
    def line(at: int, value: float) -> dict[str, Any]:
        return look(at, value) if kind == "look" else evaluation(at, 1 / at, diversity=value)

    watched = health()
    values = [0.9, 0.85, 0.9, 0.5, 0.45, 0.45]
    found = only(tell(watched, [line(at, value) for at, value in zip(range(250, 1750, 250), values)]))
    assert (found.name, found.since_step) == ("collapse", 1000)
    assert "came to 0.85" in found.what
    assert tell(watched, [line(1750, 0.8)])[0].over


def test_pictures_of_noise_set_no_standard() -> None:
    values = [2.0, 2.0, 0.8, 0.8, 0.8]
    assert tell(health(), [look(at, value) for at, value in zip(LOOKS[8:], values)]) == []


@given(st.lists(st.floats(0.7, 1.0), min_size=3, max_size=40), st.data())
def test_one_look_never_makes_a_collapse(values: list[float], data: st.DataObject) -> None:
    values[data.draw(st.integers(0, len(values) - 1))] = 0.0
    assert tell(health(), [look(250 * n, value) for n, value in enumerate(values, start=1)]) == []


# ---------------------------------------------------------------------------------------------------------
# The discriminator wins


def test_a_discriminator_that_wins_outright_is_noticed() -> None:
    watched = health("article", guessing_loss=0.693)
    lines = steps(loss=0.001, real=1.0, fake=1.0)
    found = only(tell(watched, lines))
    assert (found.name, found.since_step) == ("discriminator wins", 1)
    assert "right about 100% of the photographs and 100% of the generated pictures" in found.what
    assert "at a loss of 0.001 where guessing costs 0.69" in found.what
    assert "--recipe projected" in found.advice
    assert tell(watched, [step(2250, loss=0.015, real=0.98, fake=1.0)]) == []
    assert tell(watched, [step(2500, loss=0.2, real=0.98, fake=1.0)])[0].over


def test_winning_must_last() -> None:
    assert tell(health(), steps(loss=0.0, real=1.0, fake=1.0)[:8]) == []


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=20))
def test_a_loss_or_an_accuracy_alone_is_no_win(periods: list[tuple[bool, bool]]) -> None:
    lines = [
        step(250 * n, loss=0.0 if low else 3.0, real=0.9 if low else 1.0, fake=1.0 if right else 0.5)
        for n, (low, right) in enumerate(periods, start=1)
    ]
    assert tell(health(), lines) == []


# ---------------------------------------------------------------------------------------------------------
# Augmentation leaks


def leaking(at: int, share: float, likeness: float, *, name: str = "colour") -> dict[str, Any]:
    return evaluation(at, 1 / at, **{f"leak_{name}": share, f"leak_{name}_likeness": likeness})


@pytest.mark.parametrize(
    ("name", "sign"), [("colour", "changed colours"), ("translation", "smeared borders")]
)
def test_a_leak_is_noticed_at_the_second_evaluation(name: str, sign: str) -> None:
    watched = health()
    assert tell(watched, [leaking(300, 0.1, 0.1, name=name), leaking(600, 0.9, 0.95, name=name)]) == []
    found = only(tell(watched, [leaking(900, 0.8, 0.95, name=name)]))
    assert (found.name, found.since_step) == ("augmentation leaks", 600)
    assert sign in found.what
    assert "0.8 of the way" in found.what
    left = [n for n in config().augment if n != name]
    assert f'set "augment" to {json.dumps(left)}' in found.advice
    assert tell(watched, [leaking(1200, 0.1, 0.95, name=name)])[0].over


@pytest.mark.parametrize(("share", "likeness"), [(0.3, 1.0), (0.9, 0.6), (2.3, 0.95), (-0.9, -0.9)])
def test_other_differences_are_no_leak(share: float, likeness: float) -> None:
    assert tell(health(), [leaking(300 * n, share, likeness) for n in range(1, 9)]) == []


# ---------------------------------------------------------------------------------------------------------
# Stalled


def scored(*kids: float, every: int = 300) -> Lines:
    return [evaluation(every * n, kid / 1000) for n, kid in enumerate(kids, start=1)]


def test_a_good_run_that_stalls_is_done() -> None:
    watched = health()
    found = only(tell(watched, scored(180, 50, 20, 20.5, 19.9, 21, 22, 20)))
    assert (found.name, found.since_step) == ("stalled", 900)
    assert "5 evaluations on, KID x1000 still stands at 20.0" in found.what
    assert found.advice.startswith("Stop here")
    assert tell(watched, [evaluation(2700, 0.017)])[0].over


def test_a_bad_run_that_stalls_should_begin_again() -> None:
    found = only(tell(health("dcgan"), scored(400, 300, 310, 305, 300, 299, 320)))
    assert found.since_step == 600
    assert found.advice.startswith("Begin again with --lr 0.0001 or --batch 32, with --recipe projected")


def test_the_same_step_scored_twice_counts_once() -> None:
    lines = scored(180, 50, 20, 20, 20, 20, 20)
    assert tell(health(), [line for line in lines for _ in range(2)]) == []


def test_slow_gains_are_no_stall() -> None:
    assert tell(health(), scored(*[100 * 0.98**n for n in range(60)])) == []


def test_a_third_of_the_steps_must_have_gone_by() -> None:
    late = [evaluation(3000 + 10 * n, 0.02) for n in range(1, 20)]
    assert tell(health(), [*scored(180, 100, 50), *late]) == []


@given(st.floats(0.005, 0.5), st.lists(st.floats(-0.04, 0.2), min_size=9, max_size=40))
def test_noise_does_not_hide_a_stall(best: float, noise: list[float]) -> None:
    watched = health()
    found = only(tell(watched, scored(best * 1000, *[1000 * best * (1 + n) for n in noise])))
    assert (found.name, found.since_step) == ("stalled", 300)


# ---------------------------------------------------------------------------------------------------------
# Values that are not finite


def test_a_failure_says_why_and_passes_with_the_step() -> None:
    watched = health()
    (change,) = watched.failed(17, "The generator's loss became nan at step 17.")
    assert (change.finding.name, change.finding.since_step) == ("not finite", 17)
    assert change.finding.what == "The generator's loss became nan at step 17."
    assert "--lr 0.0004" in change.finding.advice
    resumed = health()
    assert resumed.catch_up([{"step": 17, **change.line()}]) == []
    assert tell(resumed, [step(15)]) == []
    assert tell(resumed, [step(22)])[0].over


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_advice_names_options_that_exist(recipe: str) -> None:
    watched = health(recipe, guessing_loss=0.693)
    watched.failed(17, "A loss became nan.")
    lines = [*steps(loss=0.0, real=1.0, fake=1.0), *[look(at, 0.0) for at in LOOKS]]
    lines += [leaking(3000 + n, 0.9, 0.9, name=name) for n in range(9) for name in config(recipe).augment]
    found = {c.finding.name: c.finding for c in tell(watched, sorted(lines, key=lambda line: line["step"]))}
    train = typer.main.get_command(app).commands["train"]  # pyright: ignore[reportAttributeAccessIssue]
    known = {option for param in train.params for option in param.opts}
    assert {"collapse", "discriminator wins", "not finite"} <= found.keys()
    for finding in found.values():
        assert set(re.findall(r"--[a-z]+", finding.advice)) <= known


# ---------------------------------------------------------------------------------------------------------
# The file


def test_a_line_keeps_what_the_report_reads() -> None:
    line = Change(finding=Finding(name="n", since_step=3, what="w", advice="a"), over=True).line()
    assert line == {
        "kind": "health",
        "finding": "n",
        "since_step": 3,
        "what": "w",
        "advice": "a",
        "over": True,
    }


def test_undone_and_half_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_history(path) == []
    lines = [
        look(250, 1.0),
        look(500, 0.1),
        evaluation(500, 0.1),
        {"kind": "begin", "step": 380},
        look(500, 0.2),
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    path.write_bytes(b'[1]\n{"step": "3"}\n{"kind": "look"}\n' + text.encode() + b'\n\xff\n{"step": 750, "ki')
    assert read_history(path) == [lines[0], lines[3], lines[4]]


def test_what_a_kill_left_unsaid_is_said_on_resume() -> None:
    lines = [look(at, 0.05) for at in LOOKS[:10]]
    said = {"step": 500, **tell(health(), lines)[0].line()}
    assert only(health().catch_up(lines)).name == "collapse"
    assert health().catch_up([*lines, said]) == []
    (passed,) = health().catch_up([*lines, said, look(750, 0.9)])
    assert passed.over
    assert health().catch_up([*lines, said, look(750, 0.9), {"step": 750, **passed.line()}]) == []


VALUES = st.one_of(st.floats(), st.none(), st.text(max_size=2), st.booleans(), st.integers(-2, 2))
NAMES = (
    *("spread", "kid", "diversity", "leak_colour", "leak_colour_likeness", "over", "since_step"),
    *("mean_steps", "mean_loss_discriminator", "mean_accuracy_real", "mean_accuracy_fake"),
)
LINES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["step", "look", "evaluation", "health", "begin", None]),
        "step": st.one_of(st.integers(0, 3000), st.none(), st.text(max_size=1)),
        "finding": st.sampled_from(["not finite", "collapse", 3]),
    },
    optional=dict.fromkeys(NAMES, VALUES),
)


@given(st.lists(LINES, max_size=30))
def test_any_lines_can_be_read_and_changes_add_up(lines: Lines) -> None:
    watched, standing = health(), set()
    for line in lines:
        for change in watched.observe(line):
            name = change.finding.name
            assert (name in standing) == change.over
            standing ^= {name}
            json.dumps(change.line())
    assert standing == {finding.name for finding in watched.standing}


SPREADS = st.lists(st.sampled_from([0.05, 0.3, 0.9]), min_size=1, max_size=16)


@given(SPREADS, SPREADS, st.integers(0, 15))
def test_a_resumed_run_is_told_the_same(before: list[float], after: list[float], saved: int) -> None:
    first = [look(at, value) for at, value in zip(LOOKS, before)]
    kept = [line for line in first if line["step"] <= LOOKS[saved]]
    again = [look(at, value) for at, value in zip(LOOKS[len(kept) :], after)]
    whole, resumed = health(), health()
    tell(whole, [*kept, *again])
    resumed.catch_up(kept)
    tell(resumed, again)
    assert whole.standing == resumed.standing
