"""How even walks are, how close inversion gets, and how fast the studio follows a slider.

    python benchmarks/explore.py RUN [--count 8]

RUN is any trained run whose pictures are on this machine. Generated pictures are of seeds that the search
does not start from; real ones are training photographs, which a generator that does not copy cannot draw.
"""

from __future__ import annotations

import argparse
import dataclasses
import http.client
import os
import shutil
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _result
import numpy as np
import uvicorn

from bonsaigan import runs
from bonsaigan.explore.inversion import Inversion
from bonsaigan.generator import Generator, load
from bonsaigan.studio.explorer import Explorer
from bonsaigan.studio.server import make_app
from bonsaigan.studio.training import find_training

UNSEEN_SEED = 1_000_000
WALKS, STOPS, FRAMES = 4, 4, 192
MOVES, SCROLLS = 40, 100


def main() -> None:
    """Measure and write `results/explore.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--count", type=int, default=8, help="pictures of each kind to invert")
    arguments = parser.parse_args()
    folder = runs.find_run(arguments.run)
    generator = load(folder)
    spec = generator.spec
    real, *_ = find_training(folder)
    places = np.random.default_rng(0).permutation(len(real))[: arguments.count]
    drawn = generator.images(generator.latents(range(UNSEEN_SEED, UNSEEN_SEED + arguments.count)))
    _result.write(
        "explore",
        {
            "run": {"recipe": spec.recipe, "size": str(spec.size), "step": spec.step, "source": spec.source},
            **studio(folder),
            "walks": walks(generator),
            "inversion": {
                "generated": inversions(generator, drawn),
                "real": inversions(generator, real[places]),
            },
        },
    )


def walks(generator: Generator) -> list[dict[str, float]]:
    """Unevenness of some walks, beside plain interpolation's."""
    found = []
    for number in range(WALKS):
        film = generator.walk(range(number * STOPS, (number + 1) * STOPS), frames=FRAMES)
        found.append(
            {
                "plain": round(film.plain_unevenness, 4),
                "even": round(film.unevenness, 4),
                "share": round(film.unevenness / film.plain_unevenness, 4),
            }
        )
    return found


def inversions(generator: Generator, pictures: np.ndarray) -> dict[str, Any]:
    """Mean distances before and after, and between different pictures; and the mean seconds of a search."""
    started = time.monotonic()
    found = [generator.invert(picture) for picture in pictures]
    seconds = (time.monotonic() - started) / len(found)
    measures: dict[str, Callable[[Inversion], Any]] = {
        "perceptual": lambda one: one.perceptual,
        "pixels": lambda one: one.pixels,
        "features": lambda one: one.features,
    }
    told: dict[str, Any] = {"count": len(found), "seconds_each": round(seconds, 1)}
    for name, measure in measures.items():
        rows = [dataclasses.asdict(measure(one)) for one in found]
        told[name] = {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}
        told[name]["share"] = [round(measure(one).share, 3) for one in found]
    return told


def studio(folder: Path) -> dict[str, Any]:
    """What the page does under a slider and while it is scrolled, served on this machine."""
    config = uvicorn.Config(make_app(Explorer(folder)), port=0, log_level="error", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    found = {"slider_msec": slider(port), "scroll_frames_msec": scrolling(port)}
    server.should_exit = True
    return found


def slider(port: int) -> dict[str, float]:
    """Milliseconds from a request for a moved picture to its last byte, over HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask(path: str) -> float:
        started = time.perf_counter()
        connection.request("GET", path)
        data = connection.getresponse().read()
        msec = (time.perf_counter() - started) * 1000
        assert data.startswith(b"\x89PNG"), data
        return msec

    connection.request("GET", "/api/directions")
    connection.getresponse().read()
    return summary([ask(f"/picture/7!0:{move / 10:.1f}.png?quick=1") for move in range(1, MOVES + 1)])


def scrolling(port: int) -> dict[str, float]:
    """Milliseconds from one of the page's frames to the next while the wall is scrolled, in Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        program, root = shutil.which("chromium"), os.name == "posix" and os.geteuid() == 0
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"] if root else [])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"http://127.0.0.1:{port}/")
        page.locator("#wall .tile img").first.wait_for()
        page.evaluate(
            "() => { window.frames_msec = []; let last = performance.now(); const note = (now) => {"
            "window.frames_msec.push(now - last); last = now; requestAnimationFrame(note); };"
            "requestAnimationFrame(note); }"
        )
        page.mouse.move(640, 400)
        for _ in range(SCROLLS):
            page.mouse.wheel(0, 120)
            page.wait_for_timeout(60)
        times = page.evaluate("() => window.frames_msec")
        browser.close()
    return summary(times)


def summary(times_msec: list[float]) -> dict[str, float]:
    """Median, nine in ten, and the worst."""
    return {
        "median": round(statistics.median(times_msec), 1),
        "90%": round(statistics.quantiles(times_msec, n=10)[-1], 1),
        "worst": round(max(times_msec), 1),
    }


if __name__ == "__main__":
    main()
