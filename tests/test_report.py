"""The report: what it shows, what it survives, and that it needs nothing but itself."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bonsaigan
from bonsaigan import conclude as concluding
from bonsaigan import plots, runs
from bonsaigan.conclude import conclude
from bonsaigan.report.facts import read_facts
from bonsaigan.report.figures import FRAMES_MAX
from bonsaigan.report.images import lay_out
from bonsaigan.report.page import lead, write_report
from bonsaigan.training import session, shared
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
        patch.setattr(shared, "EVALUATE_COUNT", COUNT)
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


def add_lines(folder: Path, *lines: Mapping[str, object]) -> None:
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
        f"bonsaigan generate {shlex.quote(run.name)}",
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
    assert "So far" not in page_of(run).text  # --patience may have ended it
    add_lines(run, {"kind": "begin", "step": 2, "train_sec": 1.0, "kimg": 0.008})
    page = page_of(run)
    assert "So far 25% of the training is done." in page.text
    assert f"bonsaigan resume {shlex.quote(run.name)}" in page.text
    assert str(run.parent) not in page.text


def test_the_command_to_train_on_can_be_typed(run: Path) -> None:
    change(run / runs.CONFIG_FILE, lambda values: values.update(budget={"minutes": 500.0}))
    add_lines(run, {"kind": "look", "step": 3, "train_sec": 30000.0, "kimg": 1.0})
    assert "--minutes 1000" in page_of(run).text


def test_scores_of_another_moment_are_called_so(run: Path) -> None:
    assert "looks like a copy of a real one" in page_of(run).text
    assert "Look like copies" in page_of(run).text
    change(run / runs.SCORES_FILE, lambda values: values.update(step=1))
    text = page_of(run).text
    assert "These scores are of step 1" in text
    assert "This, too, is of step 1" in text
    assert "The best score so far is" in text
    assert "looks like a copy of a real one" not in text
    assert "Look like copies" not in text


def test_the_curve_has_no_level_of_another_network(run: Path) -> None:
    assert "as real against real" in page_of(run).text
    change(run / runs.SCORES_FILE, lambda values: values["scores"].update(network="inception"))
    assert "as real against real" not in page_of(run).text


def test_a_path_among_the_settings_keeps_its_folders_to_itself(run: Path) -> None:
    change(run / runs.CONFIG_FILE, lambda values: values["data"].update(archive="/home/ann/private/a.zip"))
    assert "…/a.zip" in page_of(run).text
    assert "/home/ann" not in page_of(run).text
    for path in ("../acme/photos", "acme/photos/", "C:\\acme\\photos"):
        change(run / runs.CONFIG_FILE, lambda values, new=path: values["data"].update(source=new))
        assert "…/photos" in page_of(run).text
        assert "acme" not in page_of(run).text
    change(run / runs.CONFIG_FILE, lambda values: values["data"].update(source="hf:me/trees"))
    assert "hf:me/trees" in page_of(run).text
    for source, shown in (
        ("the folder '/home/ann/private/photos'", "the folder photos"),
        ("the data set me/trees of the Hugging Face hub, kept in /home/ann/.cache", "the data set me/trees"),
    ):
        change(run / runs.DATA_FILE, lambda values, new=source: values.update(source=new, name="photos"))
        text = page_of(run).text
        assert shown in text
        assert "/home/ann" not in text


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


def test_lines_with_absurd_numbers_draw_no_nonsense(run: Path) -> None:
    line = {"kind": "evaluation", "kimg": 1.0}
    for place, value in enumerate((1e308, -1e308, 10**400, 1e-320, float("inf"), "1", True)):
        moment = {"step": 9 + place, "train_sec": 9.0 + place}
        add_lines(run, line | moment | {"kid": value, "diversity": value, "accuracy_real": value})
    for value in (1e308, -1e308, 10**400, 1e-320, float("inf"), "1", True):
        add_lines(run, line | {"step": 20, "train_sec": value, "kid": 0.1})
    html = write_report(run).read_text(encoding="utf-8")
    assert not re.search(r"[\s\"ML](nan|inf)[\s\"L]", html)


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
    def scored(*kids: float) -> str:
        (run / runs.METRICS_FILE).write_text("")
        moments = [
            {"step": 3 - len(kids) + i, "train_sec": float(i), "kid": kid} for i, kid in enumerate(kids)
        ]
        add_lines(run, *({"kind": "evaluation", "kimg": 1.0, **moment} for moment in moments))
        return lead(read_facts(run))

    assert "more time" not in scored(9.0, 8.0)  # two scores are no trend
    assert scored(9.0, 8.0, 7.0).endswith("It was best at the very end, so more time may make it better.")
    standing = {"kind": "health", "finding": "stalled", "what": "No better.", "over": False}
    add_lines(run, {**standing, "step": 2, "train_sec": 3.0})
    assert "more time" not in lead(read_facts(run))
    scored(9.0, 8.0, 7.0)
    add_lines(run, {"kind": "evaluation", "step": 3, "train_sec": 600.0, "kimg": 1.0, "kid": 9.0})
    assert re.search(r"came after \d\.\d of 10\.0 minutes, at step 2\.$", lead(read_facts(run)))


def test_the_best_moment_of_a_process_that_was_killed_stays_the_best(run: Path) -> None:
    change(run / runs.BEST_DIR / runs.GENERATOR_FILE, lambda values: values["scores"].update(kid=0.1))
    (run / runs.METRICS_FILE).write_text("")
    add_lines(run, {"kind": "evaluation", "step": 1, "train_sec": 4.0, "kimg": 1.0, "kid": 0.3})
    best = read_facts(run).best
    assert best is not None
    assert (best.step, best.train_sec, best.values["kid"]) == (2, 4.0, 0.1)
    plots.save_grid(run / runs.SAMPLES_DIR / "000009.png", np.zeros((64, 32, 32, 3), np.uint8), columns=8)
    assert all("step 9" not in image["alt"] for image in page_of(run).all("img"))


def test_what_is_damaged_does_not_make_the_rest_untrue(run: Path) -> None:
    change(run / runs.SCORES_FILE, lambda values: values.update(step=1))
    (run / runs.METRICS_FILE).unlink()
    change(run / runs.BEST_DIR / runs.GENERATOR_FILE, lambda values: values["scores"].clear())
    assert lead(read_facts(run)).startswith("It was not scored since it went on")
    (run / runs.CONFIG_FILE).write_text("{")
    page = page_of(run)
    assert "was not trained here" not in page.text
    assert "Fréchet distance" in page.text


def test_a_citation_of_many_lines_is_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(run / runs.DATA_FILE, lambda values: values.update(citation="@misc{x,\r\n\ttitle = {Trees}\n}"))
    monkeypatch.chdir(run)
    page = Page(write_report(Path()).read_text(encoding="utf-8"))
    assert "@misc{x, title = {Trees} }" in page.text
    assert f"bonsaigan generate {shlex.quote(run.name)}" in page.text


def test_facts_of_a_stranger_are_bounded(run: Path) -> None:
    change(run / runs.DATA_FILE, lambda values: values.update(source="x" * 10**6))
    facts = read_facts(run)
    assert dataclasses.is_dataclass(facts)
    assert len(write_report(run).read_bytes()) < 2e6
