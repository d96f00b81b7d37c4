"""The report: what it shows, what it survives, and that it needs nothing but itself."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import bonsaigan
from bonsaigan import conclude as concluding
from bonsaigan import plots, runs
from bonsaigan.conclude import conclude
from bonsaigan.report import charts, words
from bonsaigan.report.facts import read_facts
from bonsaigan.report.figures import FRAMES_MAX
from bonsaigan.report.images import cells_of, lay_out, to_uri
from bonsaigan.report.page import lead, write_report
from bonsaigan.training import monitor, session
from bonsaigan.training.session import Wishes

COUNT = 12
VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """The elements of a page, in order, with the text that is shown."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text, self.open, self.unbalanced = "", [], 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced += 1

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps that was scored while it trained and at its end."""
    place = tmp_path_factory.mktemp("report")
    wishes = Wishes(size="32", steps=2, batch=4, width=64, precision="fp32", device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BONSAIGAN_CACHE", str(place / "cache"))
        patch.setattr(monitor, "EVALUATE_COUNT", COUNT)
        patch.setattr(concluding, "COUNT", COUNT)
        plan = session.plan("demo:bonsai:24", wishes)
        return session.start(plan, run=str(place / "small trees"), device="cpu", conclude=conclude)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(made, tmp_path / made.name, ignore=shutil.ignore_patterns("checkpoint*"))


def change(path: Path, edit: Callable[[dict], object]) -> None:
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


def add_lines(folder: Path, *lines: dict[str, object]) -> None:
    with (folder / runs.METRICS_FILE).open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


# --- what it shows -----------------------------------------------------------------------------------------


def test_it_says_how_good_whether_it_copies_and_how_to_go_on(run: Path) -> None:
    page = page_of(run)
    for said in (
        "small trees",
        "The new pictures are still far from the real ones, and none of 12 looks like a copy",
        "KID ×1000",
        "Fréchet distance",
        "looks like a copy of a training picture.",
        "24 trained on",
        "network.latent",
        "PyTorch",
        f"bonsaigan generate {runs.typed(run)}",
    ):
        assert said in page.text, said
    assert page.unbalanced == 0
    assert not page.open


def test_the_large_grid_is_what_generate_draws(run: Path) -> None:
    picture = next(image for image in page_of(run).all("img") if "drawn by the generator" in image["alt"])
    data = base64.b64decode(picture["src"].removeprefix("data:image/webp;base64,"))
    shown = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    generator = bonsaigan.load(run)
    drawn = lay_out(list(generator.images(generator.latents(range(64)))), columns=8, gap_px=1)
    assert shown.shape == drawn.shape == (8 * 33 - 1, 8 * 33 - 1, 4)
    solid = drawn[:, :, 3] == 255
    np.testing.assert_array_equal(shown[:, :, 3] == 255, solid)
    assert np.abs(shown[solid].astype(int) - drawn[solid]).mean() < 12


def test_pairs_name_their_pictures(run: Path) -> None:
    copies = json.loads((run / runs.SCORES_FILE).read_text())["copies"]["closest"]
    files = json.loads((run / runs.DATA_FILE).read_text())["files"]
    pairs = [image["alt"] for image in page_of(run).all("img") if " beside " in image["alt"]]
    first = copies[0]
    assert pairs[0] == f"New picture of seed {first['seed']} beside {files[first['training']]['name']}"
    assert len(pairs) == 8


def test_copies_are_marked(run: Path) -> None:
    def mark(values: dict) -> None:
        values["copies"] |= {"flagged_count": 2, "verdict": "2 of 12 look like copies: seeds 1, 2."}
        for pair in values["copies"]["closest"][:2]:
            pair["flagged"] = True

    change(run / runs.SCORES_FILE, mark)
    page = page_of(run)
    assert sum(figure.get("class") == "flagged" for figure in page.all("figure")) == 2
    assert "but 2 of 12 look like copies of real ones" in page.text


def test_health_is_told_by_its_last_word(run: Path) -> None:
    line = {"kind": "health", "step": 2, "train_sec": 9.0, "since_step": 1}
    add_lines(
        run,
        {**line, "finding": "collapse", "what": "All alike.", "advice": "Try more pictures.", "over": False},
        {**line, "finding": "stalled", "what": "No better.", "advice": "Stop.", "over": False},
        {**line, "finding": "collapse", "what": "All alike.", "advice": "Try more pictures.", "over": True},
    )
    text = " ".join(page_of(run).text.split())
    assert "Stalled since step 1. No better. Stop." in text
    assert "Collapse since step 1, over by now. All alike." in text
    assert text.index("Stalled") < text.index("Collapse")


def test_an_unfinished_run_says_how_far_it_is(run: Path) -> None:
    change(run / runs.CONFIG_FILE, lambda values: values["budget"].update(steps=8))
    page = page_of(run)
    assert "So far 25% of the training is done." in page.text
    assert f"bonsaigan resume {runs.typed(run)}" in page.text


def test_scores_of_another_moment_are_called_so(run: Path) -> None:
    change(run / runs.SCORES_FILE, lambda values: values.update(step=1))
    assert "These scores are of step 1" in page_of(run).text


def test_a_path_among_the_settings_keeps_its_folders_to_itself(run: Path) -> None:
    change(run / runs.CONFIG_FILE, lambda values: values["data"].update(archive="/home/ann/private/a.zip"))
    page = page_of(run)
    assert "…/a.zip" in page.text
    assert "ann" not in page.text.split("All settings")[1].split()


# --- what it needs and what it survives --------------------------------------------------------------------


def test_it_needs_nothing_but_itself(run: Path) -> None:
    change(run / runs.DATA_FILE, lambda v: v.update(licence="CC BY, https://example.org/by", citation="x"))
    html = write_report(run).read_text(encoding="utf-8")
    page = Page(html)
    for tag, attributes in page.elements:
        for name in ("src", "srcset", "href", "data", "action", "poster", "background"):
            address = attributes.get(name, "data:")
            assert address.startswith("data:") or (tag == "a" and name == "href"), (tag, name, address[:50])
    assert [a["href"] for a in page.all("a")] == ["https://example.org/by"]
    assert not re.search(r"url\(|@import", html.partition("</style>")[0])
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:;")
    scripts = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert len(scripts) == 1
    assert f"script-src 'sha256-{digest}'" in policy


HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}\u202egpj\x00\ud83d"


def test_hostile_names_stay_text(run: Path) -> None:
    def spoil(values: dict) -> None:
        values |= {"source": HOSTILE, "summary": HOSTILE, "licence": f"javascript:alert(1) {HOSTILE}"}
        values["citation"] = f"https://example.org/\"onmouseover='alert(1)' {HOSTILE}"
        values["left_out"] = [{"name": HOSTILE, "reason": HOSTILE}]
        for file in values["files"]:
            file |= {"name": HOSTILE, "notes": [{"kind": "x", "what": HOSTILE}]}

    def spoil_scores(values: dict) -> None:
        values["scores"] |= {"nearness": HOSTILE, "notes": [HOSTILE], "network": HOSTILE}
        values["copies"] |= {"verdict": HOSTILE, "comparison": HOSTILE}

    change(run / runs.DATA_FILE, spoil)
    change(run / runs.SCORES_FILE, spoil_scores)
    change(run / runs.CONFIG_FILE, lambda values: values.update({"recipe": HOSTILE, HOSTILE: {HOSTILE: 1}}))
    texts = {"finding": HOSTILE, "what": HOSTILE, "advice": HOSTILE}
    add_lines(run, {"kind": "health", "step": 2, "train_sec": 1.0, "since_step": 1, "over": False, **texts})
    versions = {"versions": {"torch": HOSTILE}, "device": HOSTILE}
    add_lines(run, {"kind": "begin", "step": 2, "train_sec": 1.0, **versions})
    page = page_of(run.rename(run.with_name("<b>bold<")))
    assert page.unbalanced == 0
    assert len(page.all("script")) == 1
    assert not page.all("b") or all("src" not in b for b in page.all("b"))
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert not attributes.get("href", "").startswith("javascript")
        if tag == "img":
            assert attributes["src"].startswith("data:image/webp;base64,")
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert not {"\u202e", "\x00", "\ud83d"} & set(page.text)
    assert "<b>bold<" in page.text


PARTS = [
    runs.DATA_FILE,
    runs.METRICS_FILE,
    runs.SCORES_FILE,
    runs.CLOSEST_FILE,
    runs.REALS_FILE,
    runs.SAMPLES_DIR,
    runs.BEST_DIR,
    runs.GENERATOR_FILE,
    runs.CONFIG_FILE,
]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("spoil", ["gone", "damaged", "another form"])
def test_any_part_may_be_missing_or_damaged(run: Path, part: str, spoil: str) -> None:
    path = run / part
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    if spoil == "damaged":
        path.write_bytes(b"\x89PNG\r\n\x1a\n\xff{")
    if spoil == "another form":
        path.write_text('[{"scores": {"numbers": [1, "2", null, {}]}, "step": "3"}]\n[]\n7\n')
    page = page_of(run)
    assert page.unbalanced == 0
    assert "small trees" in page.text


@pytest.mark.parametrize(
    "values",
    [
        {"scores": {"numbers": {"kid": "x", "coverage": None, "recall": 1e400}, "floor": 3, "notes": [1]}},
        {"copies": {"closest": [1, {"training": -5, "seed": 1e308, "closeness": "no"}], "flagged_count": {}}},
        {"scores": {"numbers": {"kid": float("nan"), "frechet": 10**400}}},
    ],
)
def test_values_of_another_kind_count_as_missing(run: Path, values: dict[str, object]) -> None:
    (run / runs.SCORES_FILE).write_text(json.dumps(values))
    assert page_of(run).unbalanced == 0


def test_a_run_without_anything_but_settings_says_so(run: Path) -> None:
    for path in run.iterdir():
        if path.name != runs.CONFIG_FILE:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = page_of(run).text
    assert "Training has not shown anything yet. So far 0% of the training is done." in text
    assert "There are no new pictures yet." in text
    assert "Not scored yet." in text


def test_an_imported_generator_shows_its_pictures(run: Path) -> None:
    kept = {runs.GENERATOR_FILE, runs.WEIGHTS_FILE}
    for path in run.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = page_of(run)
    assert "not trained here" in page.text
    assert len(page.all("img")) == 1
    assert "bonsaigan resume" not in page.text


def test_a_long_run_stays_small(run: Path) -> None:
    change(run / runs.CONFIG_FILE, lambda values: values["data"]["size"].update(width_px=64, height_px=64))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)
    shutil.rmtree(run / runs.SAMPLES_DIR)
    plots.save_grid(run / runs.SAMPLES_DIR / "000003.png", noise, columns=8)
    plots.save_grid(run / runs.REALS_FILE, noise, columns=8)
    for step in range(4, 2 * FRAMES_MAX + 20):
        shutil.copy(run / runs.SAMPLES_DIR / "000003.png", run / runs.SAMPLES_DIR / f"{step:06d}.png")
    line = {"kimg": 1.0, "accuracy_real": 0.5, "accuracy_fake": 0.5, "diversity": 1.0, "kid": 0.1}
    add_lines(run, *({"kind": "evaluation", "step": s, "train_sec": s, **line} for s in range(3, 20_000)))
    path = write_report(run)
    page = Page(path.read_text(encoding="utf-8"))
    frames = [image for image in page.all("img") if "data-at" in image]
    assert len(frames) == FRAMES_MAX
    assert frames[-1]["alt"].startswith("step 79")
    assert path.stat().st_size < 4e6


def test_lines_that_a_crash_made_void_do_not_count(run: Path) -> None:
    line = {"kind": "evaluation", "kimg": 1.0}
    add_lines(
        run,
        {**line, "step": 50, "train_sec": 50.0, "kid": 0.001},
        {**line, "step": 10, "train_sec": 11.0, "kid": 0.3},
        {**line, "step": 20, "train_sec": 21.0, "kid": 0.2},
        {**line, "step": 20, "train_sec": 22.0, "kid": float("nan")},
    )
    with (run / runs.METRICS_FILE).open("a") as file:
        file.write('{"step": 30, "train_sec": 3')
    facts = read_facts(run)
    assert [m.step for m in facts.evaluations][-2:] == [10, 20]
    assert facts.best is not None
    assert facts.best.values["kid"] == 0.3
    assert facts.last is not None
    assert facts.last.train_sec == 22.0


def test_the_best_moment_is_named_when_it_was_not_the_last(run: Path) -> None:
    line = {"kind": "evaluation", "kimg": 1.0, "kid": 9.0}
    assert lead(read_facts(run)).endswith("It was best at the very end, so more time may make it better.")
    add_lines(run, {**line, "step": 3, "train_sec": 600.0})
    assert re.search(r"came after \d\.\d of 10\.0 minutes, at step 2\.$", lead(read_facts(run)))


# --- numbers, axes, pictures -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (words.count(1234567.4), "1,234,567"),
        (words.share(0.9375), "94%"),
        (words.span(48), "48 s"),
        (words.span(492), "8.2 min"),
        (words.span(2700), "45 min"),
        (words.span(5 * 3600), "5.0 h"),
        (words.span_of(405, 600), "6.8 of 10.0 minutes"),
        (words.number(-0.48), "−0.48"),
        (words.number(123456.0), "123,456"),
        (words.measure("kid", 0.0169), "16.9"),
        (words.measure("kid", 0.3135), "314"),
        (words.plus_minus("kid", -0.00001, 0.0025), "0.0 ± 2.5"),
        (words.plus_minus("coverage", 0.97, 0.02), "97% ± 2"),
        (words.plus_minus("diversity", 1.0, 0.014), "1.00 ± 0.01"),
    ],
)
def test_numbers_read_well(said: str, expected: str) -> None:
    assert said == expected


finite = st.floats(-1e6, 1e6)
positive = st.floats(1e-3, 1e4)


@given(st.lists(st.tuples(st.floats(0, 1e5), finite), min_size=1, max_size=600), st.floats(-10, 10))
def test_every_point_of_a_chart_lies_in_it(points: list[tuple[float, float]], level: float) -> None:
    points = sorted(points)
    chart = charts.draw(
        [charts.Series(name="a", points=points), charts.Series(name="none")],
        title="t",
        note="n",
        total_sec=points[-1][0],
        axis=charts.linear_axis([v for _, v in points], include=(level,)),
        best=points[0],
        floor=level,
        below_is_good=True,
    )
    (line,) = chart.lines
    numbers = [float(n) for n in re.split("[ ML]", line.path) if n]
    assert len(numbers) // 2 == min(len(points), charts.POINTS_MAX)
    marks = [(t.at, 100) for t in chart.x_ticks] + [(100, t.at) for t in chart.y_ticks]
    for x, y in [*zip(numbers[::2], numbers[1::2]), *marks]:
        assert charts.LEFT <= x <= charts.WIDTH - charts.RIGHT
        assert charts.TOP <= y <= charts.HEIGHT - charts.BOTTOM
    assert chart.x_ticks[0].label == "0"
    assert 2 <= len(chart.y_ticks) <= 8


@given(st.lists(positive, min_size=1, max_size=50))
def test_a_logarithmic_axis_takes_every_value(values: list[float]) -> None:
    axis = charts.log_axis([*values, -3.0], lowest=0.5)
    assert 0 < axis.low < axis.high
    assert 1 <= len(axis.ticks) <= 8
    assert all(0 <= axis.share(v) <= 1 for v in (*values, *axis.ticks, -3.0))


@given(st.integers(0, 200), st.integers(2, 40))
def test_a_choice_keeps_both_ends(count: int, most: int) -> None:
    places = charts.evenly(count, most)
    assert len(places) == len(set(places)) == min(count, most)
    assert places == sorted(places)
    assert not places or (places[0], places[-1]) == (0, count - 1)


@given(st.integers(1, 20), st.integers(1, 5), st.sampled_from([1, 3, 4]), st.integers(1, 3))
def test_a_grid_can_be_cut_again(count: int, columns: int, channels: int, gap_px: int) -> None:
    pictures = np.random.default_rng(count).integers(0, 255, (count, 4, 3, channels), dtype=np.uint8)
    grid = plots.make_grid(pictures, columns=columns, gap_px=gap_px)
    cells = cells_of(grid, height=4, width=3, columns=columns, gap_px=gap_px)
    np.testing.assert_array_equal(np.stack(cells), pictures)
    assert cells_of(grid[:-1], height=4, width=3, columns=columns, gap_px=gap_px) == []


def test_a_picture_is_made_to_fit() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 500, 4), dtype=np.uint8)
    for limit in (3000, 30_000):
        uri = to_uri(noise, limit_bytes=limit, widest_px=400)
        data = base64.b64decode(uri.partition(",")[2])
        assert len(data) <= limit
        with Image.open(io.BytesIO(data)) as image:
            assert image.width <= 400


def test_facts_of_a_stranger_are_bounded(run: Path) -> None:
    change(run / runs.DATA_FILE, lambda values: values.update(source="x" * 10**6))
    facts = read_facts(run)
    assert dataclasses.is_dataclass(facts)
    assert len(write_report(run).read_bytes()) < 2e6
