"""The report in a real browser: light and dark, wide and on a phone, with keyboard and without script."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from bonsaigan import plots, runs
from bonsaigan.report.page import write_report
from tests.test_report import add_lines, change, made

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
__all__ = ["made"]

LOOKS = [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)]


@pytest.fixture(scope="module")
def report(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with all there can be: several moments, a finding, copies, long names."""
    run = shutil.copytree(made, tmp_path_factory.mktemp("browser") / ("a-rather-long-name-" * 6))
    rng = np.random.default_rng(0)
    for step in (20, 30, 40):
        noise = rng.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
        plots.save_grid(run / runs.SAMPLES_DIR / f"{step:06d}.png", noise, columns=8)
        values = {"kid": 1 / step, "diversity": 0.9, "accuracy_real": 0.7, "accuracy_fake": 0.8}
        add_lines(run, {"kind": "evaluation", "step": step, "kimg": 1.0, "train_sec": 20.0 * step, **values})
        losses = {"loss_generator": 1.0 + step, "loss_discriminator": 2.0}
        add_lines(run, {"kind": "step", "step": step, "kimg": 1.0, "train_sec": 20.0 * step, **losses})
    said = {"finding": "stalled", "what": "No better " + "W" * 200, "advice": "Stop.", "over": False}
    add_lines(run, {"kind": "health", "step": 40, "train_sec": 800.0, "since_step": 20, **said})
    change(run / runs.SCORES_FILE, lambda v: [p.update(flagged=True) for p in v["copies"]["closest"][:2]])
    change(
        run / runs.DATA_FILE,
        lambda v: v.update(
            left_out=[{"name": "deep/" * 60 + "x" * 150 + ".jpg", "reason": "broken"}],
            citation="https://doi.org/" + "1" * 200,
        ),
    )
    return write_report(run)


def opened(browser: Browser, report: Path, **look: object) -> tuple[Page, list[str], list[str]]:
    """The page with every complaint of the browser, and every address it asked for beside the file."""
    complaints: list[str] = []
    asked: list[str] = []
    page = browser.new_context(**look).new_page()  # pyright: ignore[reportArgumentType]
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    return page, complaints, [url for url in asked if not url.startswith("data:") and url != report.as_uri()]


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_it_fits_and_asks_for_nothing(browser: Browser, report: Path, scheme: str, width: int) -> None:
    size = {"width": width, "height": 800}
    page, complaints, asked = opened(browser, report, color_scheme=scheme, viewport=size)
    for details in page.locator("details").all():
        details.locator("summary").click()
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    broken = page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length")
    assert broken == 0
    smallest = page.evaluate(
        "Math.min(...[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height))"
    )
    assert smallest >= 11
    assert (complaints, asked) == ([], [])
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_its_text_stands_out(browser: Browser, report: Path, scheme: str) -> None:
    page, *_ = opened(browser, report, color_scheme=scheme)

    def luminance(colour: str) -> float:
        parts = [int(c) / 255 for c in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear))

    behind = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (behind < 0.1) == (scheme == "dark")
    for selector, name in ((".lead", "color"), (".about", "color"), ("svg text", "fill"), ("a", "color")):
        colour = page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).{name}")
        high, low = sorted((luminance(colour), behind), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, selector
    page.context.close()


def test_the_time_lapse_goes_by_keyboard_and_by_itself(browser: Browser, report: Path) -> None:
    page, complaints, _ = opened(browser, report)
    shown = "document.querySelector('.frames .shown').alt"
    moments = page.evaluate("[...document.querySelectorAll('.frames img')].map(i => i.alt)")
    assert page.evaluate(shown) == moments[-1] == "step 40, 13.3 min"
    slider = page.get_by_role("slider", name="Moment of training")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(shown) == moments[-2] == "step 30, 10.0 min"
    assert page.locator("output").inner_text() == moments[-2]
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--now')") == "0.75"
    page.keyboard.press("Home")
    assert page.evaluate(shown) == moments[0]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert page.get_by_role("button").inner_text() == "Pause"
    page.get_by_role("button", name="Play").wait_for(timeout=10_000)
    assert page.evaluate(shown) == moments[-1]
    assert complaints == []
    page.context.close()


def test_one_moment_is_no_time_lapse(browser: Browser, report: Path, tmp_path: Path) -> None:
    run = shutil.copytree(report.parent, tmp_path / "run")
    for grid in sorted((run / runs.SAMPLES_DIR).glob("[0-9]*.png"))[:-1]:
        grid.unlink()
    page, complaints, _ = opened(browser, write_report(run))
    assert page.locator(".frames img.shown").is_visible()
    assert not page.locator(".controls").is_visible()
    assert complaints == []
    page.context.close()


def test_without_script_the_last_moment_is_shown(browser: Browser, report: Path) -> None:
    page, complaints, _ = opened(browser, report, java_script_enabled=False)
    assert page.locator(".frames img.shown").get_attribute("alt") == "step 40, 13.3 min"
    assert page.locator(".frames img.shown").is_visible()
    assert not page.locator(".controls").is_visible()
    assert complaints == []
    page.context.close()
