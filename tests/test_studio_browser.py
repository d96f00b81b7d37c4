"""The studio in a real browser: each thing one can do there, on desktop and phone, in light and dark."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image

from bonsaigan import plots, runs
from bonsaigan.generator import load, save_generator
from tests.test_explore import small
from tests.test_report import add_lines, made
from tests.test_studio import Studio, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
__all__ = ["made", "small"]
WAIT_MSEC = 240_000
IN_VIEW = (
    "[...document.querySelectorAll('#wall img')].filter((image) => image.getBoundingClientRect().bottom > 0 "
    "&& image.getBoundingClientRect().top < innerHeight)"
)
"""Tiles out of view load later."""


@pytest.fixture(scope="module")
def studio(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A run with several moments of samples."""
    folder = shutil.copytree(made, tmp_path_factory.mktemp("studio") / made.name)
    generator = load(folder)
    for step in (20, 30):
        pictures = generator.images(generator.latents(range(step, step + 64)))
        plots.save_grid(folder / runs.SAMPLES_DIR / f"{step:06d}.png", pictures, columns=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BONSAIGAN_CACHE", str(made.parent / "cache"))
        yield from serving(folder)


def until(page: Page, condition: str) -> None:
    """Wait until an expression is true; Playwright's own way to wait is against the page's policy."""
    deadline = time.monotonic() + WAIT_MSEC / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(30)


class Visit:
    """A page with every complaint of the browser and every address it asked for elsewhere."""

    def __init__(self, browser: Browser, studio: Studio, path: str = "/", **look: Any):
        self.origin = f"http://127.0.0.1:{studio.port}"
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **look})
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MSEC)
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url))
        self.page.goto(self.origin + path)
        self.page.locator("#wall .tile").first.wait_for(state="attached")

    def _note(self, url: str) -> None:
        if not url.startswith((self.origin + "/", "data:", "blob:")):
            self.elsewhere.append(url)

    def shown(self) -> str:
        """Address of the large picture, once it is the one that the page's address names."""
        until(
            self.page,
            "!document.querySelector('#big img')?.dataset.url.includes('quick') && "
            "decodeURIComponent(document.querySelector('#big img')?.dataset.url ?? '')"
            ".includes('/' + new URLSearchParams(location.hash.slice(1)).get('open') + '.png')",
        )
        return self.page.locator("#big img").get_attribute("data-url") or ""

    def end(self) -> None:
        assert self.elsewhere == []
        assert self.complaints == []
        self.context.close()


@pytest.fixture
def visit(browser: Browser, studio: Studio) -> Iterator[Visit]:
    studio.change_favourites(drop=studio.json("/api/favourites"))
    visit = Visit(browser, studio)
    yield visit
    visit.end()


def until_kept(page: Page, studio: Studio, *names: str) -> None:
    """Wait until these are the favourites on the disk."""
    deadline = time.monotonic() + WAIT_MSEC / 1000
    while (found := studio.json("/api/favourites")) != list(names):
        assert time.monotonic() < deadline, found
        page.wait_for_timeout(30)


# --- the wall ----------------------------------------------------------------------------------------------


def test_the_wall_has_no_end_and_can_be_rolled_again(visit: Visit) -> None:
    page = visit.page
    for _ in range(4):
        before = page.locator("#wall .tile").count()
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        until(page, f"document.querySelectorAll('#wall .tile').length > {before}")
    last = page.locator("#wall .tile").last
    last.scroll_into_view_if_needed()
    until(page, f"{IN_VIEW}.length > 0 && {IN_VIEW}.every((image) => image.naturalWidth === 32)")
    page.get_by_role("button", name="Reroll").click()
    assert page.evaluate("scrollY") == 0
    first = page.locator("#wall .tile").first.get_attribute("data-point")
    assert first != "0"
    assert f"from={first}" in page.url
    page.go_back()
    assert page.locator("#wall .tile").first.get_attribute("data-point") == "0"
    page.get_by_label("from seed").fill("400")
    page.keyboard.press("Enter")
    assert page.locator("#wall .tile").first.get_attribute("data-point") == "400"


def test_the_keyboard_walks_the_wall_and_opens_pictures(visit: Visit) -> None:
    page = visit.page
    page.locator("#wall .tile").first.focus()
    columns = page.evaluate("getComputedStyle(wall).gridTemplateColumns.split(' ').length")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    assert f"/{columns + 1}.png" in visit.shown()
    page.keyboard.press("ArrowRight")
    assert f"/{columns + 2}.png" in visit.shown()
    page.keyboard.press("f")
    page.locator("#favourite[aria-pressed=true]").wait_for()
    page.keyboard.press("Escape")
    until(page, "!document.querySelector('dialog[open]')")
    assert "open=" not in page.url
    page.keyboard.press("2")
    assert page.locator("#kept-wall .tile").count() == 1
    page.keyboard.press("1")
    page.keyboard.press("r")
    assert "from=" in page.url
    page.keyboard.press("?")
    assert page.locator("dialog#keys").is_visible()
    page.keyboard.press("Escape")


def test_variety_draws_the_wall_anew(visit: Visit) -> None:
    page = visit.page
    source = "document.querySelector('#wall img').src"
    before = page.evaluate(source)
    page.get_by_label("Variety").focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(source) != before
    assert "variety=0.95" in page.url


# --- one picture -------------------------------------------------------------------------------------------


def test_sliders_move_the_picture_and_the_address_keeps_it(visit: Visit) -> None:
    page = visit.page
    page.locator("#wall .tile").nth(7).click()
    visit.shown()
    page.locator("#sliders input").first.wait_for()
    assert page.locator("#sliders input").count() == 8
    assert len(set(page.locator("#sliders span").all_inner_texts())) == 8
    follows = """async (value) => {
        const input = document.querySelector('#sliders input');
        const before = document.querySelector('#big img');
        const start = performance.now();
        input.value = value;
        input.dispatchEvent(new Event('input'));
        while (document.querySelector('#big img') === before) await new Promise((r) => setTimeout(r, 1));
        return performance.now() - start;
    }"""
    for value in (1, 2, 2.5):
        page.evaluate(follows, value)
    assert "quick=1" in (page.locator("#big img").get_attribute("data-url") or "")
    page.locator("#sliders input").first.dispatch_event("change")
    visit.shown()
    assert page.url.endswith("open=7!0%3A2.5")
    moved = page.evaluate(PIXELS)
    page.locator("#sliders input").nth(2).focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**open=7!0%3A2.5!2%3A0.1")
    visit.shown()
    page.keyboard.press("ArrowLeft")
    page.wait_for_url("**open=7!0%3A2.5")
    page.reload()
    visit.shown()
    assert page.evaluate(PIXELS) == moved
    page.locator("#sliders input").first.wait_for()
    assert page.locator("#sliders input").first.input_value() == "2.5"
    page.get_by_role("button", name="Reset").click()
    page.wait_for_url("**open=7")
    visit.shown()
    assert page.locator("#sliders input").first.input_value() == "0"
    assert page.evaluate(PIXELS) != moved


PIXELS = """() => {
    const image = document.querySelector('#big img');
    const canvas = Object.assign(document.createElement('canvas'), { width: 32, height: 32 });
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    return [...context.getImageData(0, 0, 32, 32).data];
}"""


def test_another_moment_draws_the_same_seed(browser: Browser, made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint*", "best"))
    generator = load(folder)
    save_generator(folder / runs.BEST_DIR, generator.network, generator.spec)
    with torch.no_grad():
        for parameter in generator.network.parameters():
            parameter.mul_(1.3)
    save_generator(folder, generator.network, dataclasses.replace(generator.spec, step=40))
    for studio in serving(folder):
        visit = Visit(browser, studio, "/#open=7")
        page = visit.page
        visit.shown()
        best = page.evaluate(PIXELS)
        page.get_by_role("button", name="best, step 2").click()
        page.wait_for_url("**moment=latest**")
        until(page, "document.querySelector('#big img').dataset.url.includes('latest')")
        assert page.evaluate(PIXELS) != best
        page.keyboard.press("m")
        until(page, "document.querySelector('#big img').dataset.url.includes('best')")
        assert page.evaluate(PIXELS) == best
        visit.end()


def test_a_picture_has_its_nearest_photo_its_seed_its_link_and_its_file(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    page.locator("#wall .tile").nth(5).click()
    page.locator("#nearest-picture").wait_for()
    assert "bonsai-" in page.locator("#nearest-said").inner_text()
    assert page.evaluate("document.querySelector('#nearest-picture').naturalWidth") in (0, 32)
    page.get_by_role("button", name="Copy seed").click()
    page.get_by_text("Copied the seed: 5").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "5"
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("Copied the link").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.url
    with page.expect_download() as download:
        page.get_by_role("link", name="PNG").click()
    assert download.value.suggested_filename == "seed-5.png"
    with Image.open(download.value.path()) as picture:
        assert picture.size == (32, 32)
    page.get_by_role("button", name="Seed after").click()
    assert "/6.png" in visit.shown()
    page.get_by_role("button", name="Close").click()
    until(page, "!document.querySelector('dialog[open]')")
    page.go_back()
    page.locator("dialog#open").wait_for()


# --- favourites --------------------------------------------------------------------------------------------


def test_a_fast_hand_keeps_all_that_it_points_at(visit: Visit, studio: Studio) -> None:
    visit.page.locator("#wall .tile").first.click()
    for _ in range(4):
        visit.page.keyboard.press("f")
        visit.page.keyboard.press("ArrowRight")
    until_kept(visit.page, studio, "0", "1", "2", "3")


def test_two_pages_keep_each_others_favourites(visit: Visit, studio: Studio) -> None:
    studio.change_favourites(add=["40"])  # as another page does, and this one does not know
    visit.page.locator("#wall .tile").first.click()
    visit.page.keyboard.press("f")
    until_kept(visit.page, studio, "40", "0")
    visit.page.keyboard.press("Escape")
    visit.page.get_by_role("tab", name="Favourites").click()
    visit.page.locator("#favourites [data-point='40']").first.wait_for()
    studio.change_favourites(add=["41"])
    visit.page.evaluate(
        "document.dispatchEvent(new Event('visibilitychange'))"
    )  # as when one comes back to it
    visit.page.locator("#favourites [data-point='41']").first.wait_for()


def test_favourites_blend_mix_and_become_a_film(visit: Visit, studio: Studio) -> None:
    page = visit.page
    for place in (3, 9):
        page.locator("#wall .tile").nth(place).click()
        visit.shown()
        page.get_by_role("button", name="Favourite").last.click()
        page.locator("#favourite[aria-pressed=true]").wait_for()
        page.keyboard.press("Escape")
    until_kept(page, studio, "3", "9")
    page.get_by_role("tab", name="Favourites").click()
    for box in page.get_by_role("checkbox").all():
        box.check()
    page.get_by_role("button", name="Blend two").click()
    page.wait_for_url("**open=3*9*0.5")
    half = visit.shown()
    page.get_by_label("Blend", exact=True).focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**open=3*9*0.51")
    assert visit.shown() != half
    page.get_by_role("button", name="Swap").click()
    page.wait_for_url("**open=9*3*0.49")
    page.get_by_role("button", name="Move on from here").click()
    page.wait_for_url("**open=z*")
    visit.shown()
    page.locator("#sliders input").nth(7).wait_for()
    page.get_by_role("button", name="Blend with seed 3").click()
    page.wait_for_url("**3*0.5")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Shape of one").click()
    page.wait_for_url("**open=3~9")
    assert "seed 3 in the style of seed 9" in page.locator("#title").inner_text()
    visit.shown()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Walk as a film").click()
    page.locator("#video").wait_for()
    until(page, "document.querySelector('#video').currentTime > 0.1")
    assert page.evaluate("document.querySelector('#video').videoHeight") == 256
    for name, ending in (("Film (MP4)", "mp4"), ("GIF", "gif")):
        with page.expect_download() as download:
            page.locator("#film").get_by_role("link", name=name).click()
        assert download.value.suggested_filename == f"walk.{ending}"
        assert Path(download.value.path()).stat().st_size > 1000
    page.keyboard.press("Escape")
    page.get_by_role("checkbox").last.uncheck()
    page.get_by_role("button", name="Remove").click()
    until(page, "document.querySelectorAll('#kept-wall .tile').length === 1")
    until_kept(page, studio, "9")


# --- a photo -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["chosen", "dropped"])
def test_a_photo_finds_its_twin(visit: Visit, tmp_path: Path, way: str) -> None:
    page = visit.page
    photo = tmp_path / "photo.png"
    Image.effect_mandelbrot((90, 60), (-2, -1, 1, 1), 50).save(photo)
    if way == "chosen":
        page.locator("#photo").set_input_files(photo)
    else:
        page.evaluate(
            """(bytes) => {
                const held = new DataTransfer();
                held.items.add(new File([new Uint8Array(bytes)], 'photo.png', { type: 'image/png' }));
                dispatchEvent(new DragEvent('drop', { dataTransfer: held, cancelable: true }));
            }""",
            list(photo.read_bytes()),
        )
    page.get_by_role("button", name="Open it").wait_for()
    assert "of the distance between two different pictures" in page.locator("#twin-said").inner_text()
    until(page, "document.querySelector('#twin-picture').naturalWidth === 32")
    page.get_by_role("button", name="Open it").click()
    assert "/z" in visit.shown()


def test_a_file_that_is_no_photo_is_said(visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("nothing")
    visit.page.locator("#photo").set_input_files(tmp_path / "x.png")
    until(visit.page, "/image/.test(document.querySelector('#twin-said').textContent)")


# --- training and report -----------------------------------------------------------------------------------


def test_the_same_inputs_grow_through_training(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("tab", name="Training").click()
    page.locator("#strip button").nth(2).wait_for()
    page.locator("#health svg").nth(1).wait_for()
    said = page.locator("#sample-said")
    assert said.inner_text().startswith("step 30")
    page.locator("#sample").focus()
    page.keyboard.press("Home")
    assert said.inner_text().startswith("step 2")
    behind = "document.querySelector('#strip button').style.backgroundPosition"
    before = page.evaluate(behind)
    page.locator("#samples").click(position={"x": 300, "y": 200})
    assert page.evaluate(behind) != before
    page.locator("#strip button").nth(1).click()
    assert said.inner_text().startswith("step 20")
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Play").wait_for()
    assert said.inner_text().startswith("step 30")
    with page.expect_download() as download:
        page.get_by_role("link", name="film", exact=True).click()
    assert Path(download.value.path()).stat().st_size > 1000


def test_a_running_training_is_followed(browser: Browser, made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint*", "best"))
    config = json.loads((folder / runs.CONFIG_FILE).read_text())
    config["budget"]["steps"] = 100
    (folder / runs.CONFIG_FILE).write_text(json.dumps(config))
    add_lines(folder, {"kind": "begin", "step": 2, "train_sec": 1.0, "kimg": 0.008})
    for studio in serving(folder):
        visit = Visit(browser, studio, "/#tab=training")
        page = visit.page
        page.get_by_text("Training now: step 2").wait_for()
        charts = page.locator("#health svg").count()
        generator = load(folder)
        plots.save_grid(
            folder / runs.SAMPLES_DIR / "000050.png",
            generator.images(generator.latents(range(64))),
            columns=8,
        )
        said = {"finding": "stalled", "what": "No better score.", "advice": "Stop.", "over": False}
        add_lines(
            folder,
            {"kind": "evaluation", "step": 50, "kimg": 1.0, "train_sec": 60.0, "kid": 0.1, "diversity": 0.9},
            {"kind": "health", "step": 50, "train_sec": 60.0, "since_step": 30, **said},
        )
        page.get_by_text("Training now: step 50").wait_for()
        page.get_by_text("No better score.").wait_for()
        assert page.locator("#sample-said").inner_text().startswith("step 50")
        assert page.locator("#health svg").count() >= charts
        assert page.locator("#dot").is_visible()
        visit.end()


def test_the_report_is_a_tab_that_cannot_reach_out(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("tab", name="Report").click()
    frame = page.frame_locator("iframe")
    frame.get_by_role("heading", name="New pictures").wait_for()
    assert "small trees" in frame.locator("h1").inner_text()
    allowed = "allow-scripts allow-popups allow-popups-to-escape-sandbox"  # links of the report open a tab
    assert page.locator("iframe").get_attribute("sandbox") == allowed


# --- looks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)]
)
def test_it_fits_every_screen(browser: Browser, studio: Studio, scheme: str, width: int) -> None:
    studio.change_favourites(add=["3", "9", "9*3*0.3"])
    visit = Visit(browser, studio, color_scheme=scheme, viewport={"width": width, "height": 780})
    page = visit.page
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(ground[4:].split(",")[0]) < 60) == (scheme == "dark")
    for tab in ("Pictures", "Favourites", "Training", "Report"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
    page.get_by_role("tab", name="Pictures").click()
    page.locator("#wall .tile").nth(2).click()
    visit.shown()
    page.locator("#sliders input").nth(7).wait_for()
    box = page.locator("dialog#open").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert page.evaluate("(d => d.scrollWidth <= d.clientWidth)(document.querySelector('#open'))")
    smallest = page.evaluate(
        "Math.min(...[...document.querySelectorAll('#open button, #open .button')]"
        ".filter(b => b.offsetParent).map(b => b.getBoundingClientRect().height))"
    )
    assert smallest >= 30
    visit.end()
