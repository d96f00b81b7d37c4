"""The page in a real browser: the same pictures, by hand and by keyboard, on a phone and a desk."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bonsaigan import cli
from bonsaigan.errors import ConfigError
from bonsaigan.export.targets import export
from bonsaigan.generator import save_generator
from tests.test_export import generator_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest.importorskip("onnx", reason="needs the extra onnx")
PACKAGE = "onnxruntime-web@1.30.0"
LOOKS = [("light", 1280), ("dark", 390)]


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The npm package: `$ONNXRUNTIME_WEB`, or fetched with npm."""
    if given := os.environ.get("ONNXRUNTIME_WEB"):
        return Path(given)
    folder = tmp_path_factory.mktemp("npm")
    if shutil.which("npm") is None:
        pytest.skip("needs npm, or $ONNXRUNTIME_WEB with the unpacked package onnxruntime-web")
    got = subprocess.run(["npm", "pack", PACKAGE], cwd=folder, capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.skip(f"npm cannot fetch {PACKAGE}")
    shutil.unpack_archive(next(folder.glob("*.tgz")), folder, "gztar", filter="data")
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder that a static server hands out, and its address."""
    folder = tmp_path_factory.mktemp("site")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


SEEN = "[...document.getElementById('picture').getContext('2d').getImageData(0, 0, 64, 64).data]"


def opened(browser: Browser, url: str, **look: Any) -> tuple[Page, list[str]]:
    complaints: list[str] = []
    page = browser.new_context(**look).new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    own = url.partition("://")[2].partition("/")[0]
    page.on("request", lambda request: note(request.url))

    def note(asked: str) -> None:  # nothing is sent anywhere
        if not asked.startswith((f"http://{own}/", "data:", "blob:")):
            complaints.append(asked)

    page.goto(url)
    page.wait_for_selector("body[data-done]", timeout=240_000)
    return page, complaints


def test_a_page_is_complete_and_small(tmp_path: Path) -> None:
    written = export(generator_of("fastgan", "48x32"), to="web", out=tmp_path / "page", card="# Trees\n")
    assert written.difference_levels <= 2
    assert written.size_bytes < 12e6
    names = {p.name for p in written.path.iterdir()}
    assert names >= {
        "index.html",
        "page.css",
        "page.js",
        "latent.js",
        "worker.js",
        "generator.onnx",
        "page.json",
    }
    facts = json.loads((written.path / "page.json").read_text(encoding="utf-8"))
    assert all(f["url"].startswith("https://") and f["integrity"] for f in facts["runtime"].values())
    directions = facts["directions"]
    assert len(directions["names"]) == len(directions["vectors"]) == 6
    np.testing.assert_allclose(np.linalg.norm(directions["vectors"], axis=1), 1, atol=1e-4)
    with pytest.raises(ConfigError, match=r"no ort\.wasm\.bundle\.min\.mjs"):
        export(generator_of("article", "32"), to="web", out=tmp_path / "other", bundle=tmp_path)
    assert not (tmp_path / "other").exists()


def test_a_page_takes_the_place_of_one_with_a_runtime_and_back(tmp_path: Path) -> None:
    for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"):
        (tmp_path / "package").mkdir(exist_ok=True)
        (tmp_path / "package" / name).write_bytes(b"runtime")
    generator, out = generator_of("article", "32"), tmp_path / "page"
    for bundle in (None, tmp_path / "package", None):
        export(generator, to="web", out=out, bundle=bundle)
        assert (out / "runtime").exists() == (bundle is not None)
    save_generator(tmp_path / "run", generator.network, generator.spec)
    command = ["export", tmp_path / "run", "--to", "web", "--bundle", tmp_path / "package", "--out", out]
    result = CliRunner().invoke(cli.app, [str(part) for part in command])
    assert result.exit_code == 0, result.output
    assert (out / "runtime").exists()
    (out / "my.txt").touch()
    with pytest.raises(ConfigError, match="has other files in it"):
        export(generator, to="web", out=out)


@pytest.mark.browser
@pytest.mark.parametrize(
    ("family", "size", "channels"),
    [
        ("fastgan", "64", 3),
        ("fastgan", "96x48", 4),
        ("dcgan", "96x48", 3),
        ("r3gan", "96x48", 3),
        ("article", "96x48", 1),
    ],
)
def test_the_browser_draws_the_same_pictures(
    browser: Browser, site: tuple[Path, str], runtime: Path, family: str, size: str, channels: int
) -> None:
    generator = generator_of(family, size, channels=channels)
    name = f"{family}-{size}-{channels}"
    export(generator, to="web", out=site[0] / name, bundle=runtime)
    page, complaints = opened(browser, f"{site[1]}/{name}/?seed=7")
    seeds = [0, 7, 123456, 2**32 - 1]
    drawn = page.evaluate(f"import('./page.js').then(m => m.drawSeeds({seeds})).then(p => [...p])")
    theirs = np.array(drawn).reshape(4, generator.spec.size.height_px, generator.spec.size.width_px, 4)
    ours = generator.images(generator.latents(seeds)).astype(int)
    shown = theirs[..., :channels] if channels > 1 else theirs[..., :1]
    assert ours.std() > 20
    assert np.abs(shown - ours).max() <= 2
    assert "to 0 of 255" in page.inner_text("#check") or "to 1 of 255" in page.inner_text("#check")
    assert page.inner_text("#status").startswith("Seed 7")
    assert complaints == []
    page.context.close()


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_it_fits_and_answers_to_hand_and_keyboard(
    browser: Browser, site: tuple[Path, str], runtime: Path, scheme: str, width: int
) -> None:
    if not (site[0] / "page").exists():
        export(generator_of("fastgan", "64"), to="web", out=site[0] / "page", bundle=runtime)
    size = {"width": width, "height": 900}
    page, complaints = opened(browser, f"{site[1]}/page/?seed=5", color_scheme=scheme, viewport=size)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    pixels = "[...document.getElementById('picture').getContext('2d').getImageData(0, 0, 64, 64).data].join()"

    def press(key: str, until: str) -> None:
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press(key)
        page.wait_for_function(until)

    first = page.evaluate(pixels)
    press("ArrowRight", "document.getElementById('status').textContent.startsWith('Seed 6')")
    assert page.url.endswith("?seed=6")
    assert page.evaluate(pixels) != first
    press("ArrowLeft", "document.getElementById('status').textContent.startsWith('Seed 5')")
    assert page.evaluate(pixels) == first
    page.get_by_role("slider").first.focus()
    page.keyboard.press("End")
    page.wait_for_function("document.getElementById('status').textContent.includes('moved')")
    assert "shift=4" in page.url
    moved = page.evaluate(pixels)
    assert moved != first
    again, _ = opened(browser, page.url)
    assert again.evaluate(pixels) == moved
    again.context.close()
    press("r", "!document.getElementById('status').textContent.includes('moved')")
    assert page.evaluate(pixels) == first
    press("n", "!document.getElementById('status').textContent.startsWith('Seed 5 ')")
    press("w", "document.getElementById('status').textContent.startsWith('Between seeds')")
    press("w", "document.getElementById('walk').getAttribute('aria-pressed') === 'false'")
    page.wait_for_function("location.search.includes('to=')")
    between = page.inner_text("#status").partition(" ·")[0]
    elsewhere, _ = opened(browser, page.url)  # the address leads back to what is seen
    assert elsewhere.inner_text("#status").startswith(between)
    difference = np.subtract(elsewhere.evaluate(SEEN), page.evaluate(SEEN))
    assert np.abs(difference).max() <= 2
    elsewhere.context.close()
    still = page.evaluate(pixels)
    page.get_by_role("slider").first.focus()
    page.keyboard.press("End")  # moves what is seen, not the seed before it
    page.wait_for_function("document.getElementById('status').textContent.includes('moved')")
    assert page.inner_text("#status").startswith(between)
    press("r", "!document.getElementById('status').textContent.includes('moved')")
    assert page.evaluate(pixels) == still
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename.startswith("seed")
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")
    page.locator("#wall button").nth(3).click()
    label = page.locator("#wall button").nth(3).get_attribute("aria-label")
    assert label
    page.wait_for_function(f"document.getElementById('status').textContent.startsWith('{label} ')")
    assert complaints == []
    page.context.close()


@pytest.mark.browser
def test_a_browser_that_counts_addresses_still_draws(
    browser: Browser, site: tuple[Path, str], runtime: Path
) -> None:
    """Safari and Firefox let a page change its address only so often, and throw."""
    if not (site[0] / "page").exists():
        export(generator_of("fastgan", "64"), to="web", out=site[0] / "page", bundle=runtime)
    page, complaints = opened(browser, f"{site[1]}/page/?seed=5")
    page.evaluate(
        "own = history.replaceState; history.replaceState = () => { throw new Error('too often'); }; 0"
    )
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.getElementById('status').textContent.startsWith('Seed 6')")
    assert page.url.endswith("?seed=5")
    page.evaluate("history.replaceState = own; 0")
    page.wait_for_function("location.search === '?seed=6'")
    assert complaints == []
    page.context.close()


@pytest.mark.browser
def test_a_runtime_that_was_changed_is_not_run(
    browser: Browser, site: tuple[Path, str], runtime: Path
) -> None:
    export(generator_of("article", "32"), to="web", out=site[0] / "changed", bundle=runtime)
    library = site[0] / "changed" / "runtime" / "ort.wasm.bundle.min.mjs"
    library.write_text("document.title = 'mine'\n" + library.read_text(encoding="utf-8"), encoding="utf-8")
    page = browser.new_context().new_page()
    page.goto(f"{site[1]}/changed/")
    page.wait_for_function("document.getElementById('status').textContent.startsWith('Not drawn')")
    assert "is not what it should be" in page.inner_text("#status")
    page.context.close()
