"""The studio's server: what it draws, what it keeps, and what it refuses."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
from PIL import Image

from bonsaigan import runs
from bonsaigan.errors import ConfigError
from bonsaigan.generator import Generator, load, save_generator
from bonsaigan.studio import explorer as exploring
from bonsaigan.studio import points, server
from bonsaigan.studio import training as finding
from bonsaigan.studio.explorer import Explorer, Kept
from tests.test_explore import small
from tests.test_report import add_lines, made

uvicorn = pytest.importorskip("uvicorn", reason="needs: pip install 'bonsaigan[studio]'")
__all__ = ["made", "small"]


@dataclass(frozen=True, kw_only=True)
class Studio:
    """A page that is being served."""

    folder: Path
    port: int

    def ask(
        self, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=240)
        connection.putrequest(method, path, skip_host="host" in headers)
        if body is not None:
            headers["content-length"] = str(len(body))
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        answer = connection.getresponse()
        got = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        connection.close()
        return got

    def json(self, path: str, **more: Any) -> Any:
        status, _, body = self.ask(path, **more)
        assert status == 200, body
        return json.loads(body)

    def change_favourites(self, *, add: Sequence[str] = (), drop: Sequence[str] = ()) -> list[str]:
        body = json.dumps({"add": add, "drop": drop}).encode()
        return self.json("/api/favourites", method="PATCH", body=body, content_type="application/json")

    def picture(self, name: str, query: str = "") -> np.ndarray:
        status, _, body = self.ask(f"/picture/{quote(name)}.png{query}")
        assert status == 200, body
        return np.asarray(Image.open(io.BytesIO(body)))


def serving(folder: Path) -> Iterator[Studio]:
    """The studio of a run on any free port, in a thread."""
    from bonsaigan.studio.explorer import Explorer
    from bonsaigan.studio.server import make_app

    config = uvicorn.Config(make_app(Explorer(folder)), port=0, log_level="error", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield Studio(folder=folder, port=server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = True
    thread.join(timeout=20)


@pytest.fixture(scope="module")
def studio(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    cache = made.parent / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BONSAIGAN_CACHE", str(cache))
        yield from serving(shutil.copytree(made, tmp_path_factory.mktemp("studio") / made.name))


# --- names of pictures -------------------------------------------------------------------------------------


def test_a_latent_vector_survives_the_address() -> None:
    z = torch.randn(128)
    text = points.encode(z)
    assert quote(text) == text
    torch.testing.assert_close(points.decode(text, 128), z, atol=2e-3, rtol=1e-3)
    for bad, length in ((text, 64), ("z!!", 128), ("zAAAA", 128), (points.encode(torch.zeros(8)), 8)):
        with pytest.raises(ConfigError, match="not one of this generator"):
            points.decode(bad, length)


def test_names_say_what_they_mean() -> None:
    assert points.parse("7").seed == 7
    moved = points.parse("7!0:1.5!3:-0.25")
    assert moved.first.amounts == ((0, 1.5), (3, -0.25))
    assert moved.seed is None
    blend = points.parse("7*12!1:2*0.4")
    assert blend.share == 0.4
    assert blend.second is not None
    assert blend.second.amounts == ((1, 2.0),)
    mixture = points.parse("7~12")
    assert (mixture.share, mixture.second is None) == (None, False)
    for bad in ("", "-1", "7!", "7!0:x", "7*8", "7*8*1.5", "7~8~9", "../7", "7\n", "٧", "1" * 19):
        with pytest.raises(ConfigError):
            points.parse(bad)


# --- pictures ----------------------------------------------------------------------------------------------


def test_its_pictures_are_the_generators(studio: Studio) -> None:
    generator = load(studio.folder)
    seven, twelve = generator.images(generator.latents([7, 12]))
    np.testing.assert_array_equal(studio.picture("7"), seven)
    np.testing.assert_array_equal(studio.picture("7*12*0"), seven)
    np.testing.assert_array_equal(studio.picture("7*12*1"), twelve)
    np.testing.assert_array_equal(studio.picture("7~12"), generator.mix(7, 12))
    directions = generator.directions(8)
    moved = generator.images(directions.move(generator.latents([7]), {1: 2.5}))[0]
    np.testing.assert_array_equal(studio.picture("7!1:2.5"), moved)
    quick = studio.picture("7!1:2.5", "?quick=1").astype(int)
    assert np.abs(quick - moved).max() <= 1
    truncated = generator.images(generator.latents([7], truncation=0.5))[0]
    np.testing.assert_array_equal(studio.picture("7", "?variety=0.5"), truncated)
    told = studio.json("/api/directions")
    assert [d["name"] for d in told] == list(directions.names)


def test_a_found_picture_is_named_by_its_latent_vector(studio: Studio) -> None:
    frozen = studio.json(f"/api/freeze/{quote('7*12*0.5')}")["point"]
    assert frozen.startswith("z")
    near = studio.picture(frozen).astype(int) - studio.picture("7*12*0.5")
    assert np.abs(near).mean() < 1


def test_new_weights_are_taken_up(made: Path, tmp_path: Path) -> None:
    from bonsaigan.studio.explorer import Explorer

    folder = shutil.copytree(made, tmp_path / "run", ignore=shutil.ignore_patterns("best", "checkpoint*"))
    explorer = Explorer(folder)
    before = explorer.picture("3", moment="best", variety=1.0)
    assert explorer.picture("3", moment="best", variety=1.0) is before
    stamp = explorer.moments()["latest"]["stamp"]
    other = load(folder)
    with torch.no_grad():
        for parameter in other.network.parameters():
            parameter.mul_(1.5)
    time.sleep(0.02)
    save_generator(folder, other.network, other.spec)
    assert explorer.moments()["latest"]["stamp"] != stamp
    assert explorer.picture("3", moment="best", variety=1.0) != before


def test_a_walk_is_a_film_and_players_may_ask_for_parts(studio: Studio) -> None:
    status, headers, whole = studio.ask("/film.mp4?p=3,7*12*0.5")
    assert (status, headers["content-type"]) == (200, "video/mp4")
    assert whole[4:8] == b"ftyp"
    status, headers, part = studio.ask("/film.mp4?p=3,7*12*0.5", range="bytes=4-7")
    assert (status, part) == (206, b"ftyp")
    assert headers["content-range"] == f"bytes 4-7/{len(whole)}"
    assert studio.ask("/film.gif?p=3,4")[2][:4] == b"GIF8"
    assert studio.ask("/film.mp4?p=3")[0] == 400
    assert studio.ask("/film.avi?p=3,4")[0] == 404


# --- photographs -------------------------------------------------------------------------------------------


def test_the_nearest_training_picture_is_found_in_the_cache(studio: Studio) -> None:
    deadline = time.monotonic() + 200
    while (found := studio.json("/api/nearest/7"))["state"] == "looking":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert found["state"] == "ready"
    assert found["name"].startswith("bonsai-")
    status, headers, body = studio.ask(f"/real/{found['place']}.png")
    assert (status, headers["content-type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(body)).size == (32, 32)
    assert studio.ask("/real/999.png")[0] == 404


def test_of_a_large_set_the_page_is_told_how_many_were_looked_at(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exploring.TrainingPictures, "found", lambda self: self._find() or self)
    monkeypatch.setattr(finding, "REAL_MAX", 9)
    found = Explorer(made).nearest("7", moment="best", variety=1.0)
    assert found["looked_at"] == [9, 24]


def test_a_damaged_moment_is_left_out_and_the_other_shown(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made, tmp_path / "r", ignore=shutil.ignore_patterns("checkpoint*"))
    routes = server.Routes(Explorer(folder))

    def told() -> dict[str, Any]:
        return json.loads(bytes(routes.run(server.Request({"type": "http"})).body))

    assert list(told()["moments"]) == ["best"]
    (folder / runs.BEST_DIR / runs.WEIGHTS_FILE).write_bytes(b"damaged")
    facts = told()
    assert (list(facts["moments"]), facts["width"]) == (["latest"], 32)
    (folder / runs.WEIGHTS_FILE).write_bytes(b"damaged too")
    facts = told()
    assert facts["moments"] == {}
    assert "width" not in facts
    assert "no usable generator" in facts["trouble"]


def test_a_generator_alone_has_no_training_pictures(made: Path, tmp_path: Path) -> None:
    for name in (runs.GENERATOR_FILE, runs.WEIGHTS_FILE):
        shutil.copy(made / name, tmp_path)
    explorer = Explorer(tmp_path)
    deadline = time.monotonic() + 60
    while (found := explorer.nearest("7", moment="best", variety=1.0))["state"] == "looking":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert found == {"state": "this generator came without them"}


def test_a_photo_finds_its_twin(studio: Studio) -> None:
    photo = Image.effect_mandelbrot((90, 60), (-2, -1, 1, 1), 50).convert("RGB")
    file = io.BytesIO()
    photo.save(file, "JPEG")
    binary = "application/octet-stream"
    for body, finds in ((file.getvalue(), True), (b"nothing", False)):
        name = studio.json("/api/twin", method="POST", body=body, content_type=binary)["name"]
        deadline = time.monotonic() + 200
        while not ((twin := studio.json(f"/api/twin/{name}"))["result"] or twin["error"]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert bool(twin["result"]) == finds
        if finds:
            assert twin["result"]["target"].startswith("data:image/png;base64,")
            assert studio.picture(twin["result"]["point"]).shape == (32, 32, 3)
    assert studio.ask("/api/twin/unknown")[0] == 404


# --- training ----------------------------------------------------------------------------------------------


def test_a_training_is_shown_while_it_runs(made: Path, tmp_path: Path) -> None:
    from bonsaigan.studio import live

    folder = shutil.copytree(made, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint*"))
    assert live.status(folder)["live"] is False
    config = json.loads((folder / runs.CONFIG_FILE).read_text())
    config["budget"]["steps"] = 100
    (folder / runs.CONFIG_FILE).write_text(json.dumps(config))
    said = {"finding": "stalled", "what": "<b>No</b> better.", "advice": "Stop.", "over": False}
    before = live.status(folder)["signature"]
    add_lines(folder, {"kind": "health", "step": 2, "train_sec": 1.0, "since_step": 2, **said})
    assert live.status(folder)["signature"] != before
    # Between two looks, which may be minutes apart, nothing but the state is written.
    long_ago = time.time() - 10 * live.FRESH_SEC
    os.utime(folder / runs.METRICS_FILE, (long_ago, long_ago))
    assert not live.status(folder)["live"]
    (folder / runs.CHECKPOINT_DIR).mkdir()
    (folder / runs.CHECKPOINT_DIR / "state.json").touch()
    status = live.status(folder)
    assert status["live"]
    assert status["share"] == pytest.approx(0.02)
    assert status["findings"] == ["stalled: <b>No</b> better. Stop."]
    (sample,) = status["samples"]
    assert sample["step"] == 2
    assert sample["stamp"] == (folder / "samples" / "000002.png").stat().st_mtime
    html = live.training_html(folder)
    assert "<svg" in html
    assert "&lt;b&gt;No&lt;/b&gt;" in html


# --- what it keeps to itself -------------------------------------------------------------------------------


def test_favourites_are_kept_in_the_run(studio: Studio) -> None:
    def change(value: object, kind: str = "application/json") -> int:
        body = json.dumps(value).encode()
        return studio.ask("/api/favourites", method="PATCH", body=body, content_type=kind)[0]

    assert change({"add": ["7", "9", "7*12*0.5", "7"]}) == 200
    assert change({"drop": ["9", "10"]}) == 200
    assert studio.json("/api/favourites") == ["7", "7*12*0.5"]
    assert json.loads((studio.folder / "favourites.json").read_text()) == ["7", "7*12*0.5"]
    for bad in ("7", ["../x"], [7], {"a": 1}, ["7"] * 501):
        assert change({"add": bad}) == 400
        assert change({"drop": bad}) == 400
    assert change(["8"]) == 400
    assert change({"add": ["8"]}, "text/plain") == 415
    assert change({"add": [str(seed) for seed in range(499)]}) == 400  # with the two there are, too many
    assert studio.json("/api/favourites") == ["7", "7*12*0.5"]


def test_favourites_that_cannot_be_read_are_not_written_over(studio: Studio) -> None:
    path = studio.folder / "favourites.json"
    before = path.read_bytes() if path.exists() else None
    path.write_text('["7", "9",]')
    body = json.dumps({"add": ["8"]}).encode()
    ask = {"method": "PATCH", "content_type": "application/json"}
    assert studio.ask("/api/favourites", body=body, **ask)[0] == 400
    assert path.read_text() == '["7", "9",]'
    assert studio.ask("/api/favourites", body=b'"' + b"x" * (5 << 20) + b'"', **ask)[0] == 400
    path.unlink() if before is None else path.write_bytes(before)


def test_what_may_change_is_not_kept_by_the_browser(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LAPSE_SECONDS", 0.5)
    for path in ("/samples/2.png", "/timelapse.gif"):
        assert studio.ask(path)[1]["cache-control"] == "no-store"
    assert "max-age" in studio.ask("/samples/2.png?v=1")[1]["cache-control"]


def test_only_so_many_bytes_of_pictures_are_kept() -> None:
    kept = Kept[bytes](10, size=len)
    for name in "abcd":
        kept.put(name, b"1234")
    kept.put("d", b"12345")
    assert [kept.get(name) for name in "abcd"] == [None, None, b"1234", b"12345"]


def test_favourites_of_two_pages_are_all_kept(studio: Studio) -> None:
    with ThreadPoolExecutor() as pages:
        list(pages.map(lambda seed: studio.change_favourites(add=[str(seed)]), range(20)))
    assert set(studio.json("/api/favourites")) >= {str(seed) for seed in range(20)}


@pytest.mark.parametrize(
    "path",
    [
        "/config.json",
        "/../config.json",
        "/picture/..%2f..%2fconfig.json",
        "/samples/..%2fconfig.json",
        "/samples/2.png/../../config.json",
        "/samples/-1.png",
        "/real/../config.json",
        "/studio.js/../server.py",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
    ],
)
def test_no_path_reaches_a_file(studio: Studio, path: str) -> None:
    assert studio.ask(path)[0] in (400, 404)


def test_a_link_among_the_samples_is_not_followed(studio: Studio, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    link = studio.folder / runs.SAMPLES_DIR / "000077.png"
    link.symlink_to(secret)
    try:
        assert studio.ask("/samples/77.png")[0] == 404
    finally:
        link.unlink()


def test_other_sites_and_names_are_kept_out(studio: Studio) -> None:
    assert studio.ask("/", host="evil.example")[0] == 400
    assert studio.ask("/", host="[::1")[0] == 400
    for name in ("localhost", "LOCALHOST", "127.0.0.2", "192.168.1.7", "[::1]"):
        assert studio.ask("/", host=f"{name}:{studio.port}")[0] == 200, name
    for path in ("/", "/api/run", "/picture/7.png", "/studio.js"):
        _, headers, _ = studio.ask(path)
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
    form = studio.ask("/api/twin", method="POST", body=b"x", content_type="text/plain")
    assert form[0] == 415


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_has_nothing_computed(studio: Studio, site: str) -> None:
    """What browsers add to a request of another site's page: an image, a frame, a link that is followed."""

    def asked(path: str, mode: str, dest: str, *, site: str = site) -> int:
        return studio.ask(path, sec_fetch_site=site, sec_fetch_mode=mode, sec_fetch_dest=dest)[0]

    for path in ("/", "/report", "/film.webp?p=1,2", "/timelapse.gif", "/picture/7.png", "/api/directions"):
        assert asked(path, "no-cors", "image") == asked(path, "navigate", "iframe") == 403, path
        assert asked(path, "navigate", "document") == (200 if path in ("/", "/report") else 403), path
    assert asked("/picture/7.png", "no-cors", "image", site="same-origin") == 200


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/picture/x.png", "names no picture"),
        ("/picture/7.png?variety=2", "variety"),
        ("/picture/7.png?moment=../..", "no such moment"),
        ("/picture/7!50:1.png", "direction 50"),
        ("/picture/7!0:9.png", "up to 4"),
        ("/api/freeze/7~8", "not drawn from one"),
    ],
)
def test_a_mistake_is_one_line(studio: Studio, path: str, said: str) -> None:
    status, _, body = studio.ask(path)
    assert status in (400, 404)
    assert said in json.loads(body)["error"]


def test_a_run_without_a_generator_is_served_all_the_same(made: Path, tmp_path: Path) -> None:
    hidden = ("best", "checkpoint*", "generator.*", "samples")
    folder = shutil.copytree(made, tmp_path / "run", ignore=shutil.ignore_patterns(*hidden))
    for studio in serving(folder):
        assert studio.json("/api/run")["moments"] == {}
        assert studio.json("/api/status")["samples"] == []
        assert studio.ask("/picture/7.png")[0] == 404
        assert studio.ask("/report")[0] == 200
        assert studio.ask("/timelapse.mp4")[0] == 404


def test_moments_of_one_time_are_not_confused(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made, tmp_path / made.name)
    other = load(folder)
    with torch.no_grad():
        for parameter in other.network.parameters():
            parameter.mul_(0.5)
    save_generator(folder / runs.BEST_DIR, other.network, dataclasses.replace(other.spec, step=1))
    for path in folder.rglob("*"):  # as a repository's archive has them
        os.utime(path, (1e9, 1e9))
    explorer = Explorer(folder)
    best, latest = (explorer.picture("7", moment=name, variety=1.0) for name in ("best", "latest"))
    assert best != latest
    assert explorer.moments()["best"]["stamp"] != explorer.moments()["latest"]["stamp"]


def test_a_film_is_made_once_and_a_forgotten_search_is_given_up(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer, begun = Explorer(made), []
    walk = Generator.walk

    def slow(generator: Generator, *arguments: Any, **named: Any) -> Any:
        begun.append(1)
        time.sleep(0.3)
        return walk(generator, *arguments, **named)

    def film(_: int) -> bytes:
        return explorer.film(["3", "9"], kind="webp", moment="best", variety=1.0)

    monkeypatch.setattr(Generator, "walk", slow)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(film, range(2))
    assert first == second
    assert begun == [1]
    monkeypatch.setattr(exploring, "FORGOTTEN_SEC", -1.0)
    name = explorer.start_twin((made / runs.REALS_FILE).read_bytes(), moment="best")
    deadline = time.monotonic() + 60
    while not (twin := explorer.twin(name)).error and time.monotonic() < deadline:
        time.sleep(0.02)
    assert twin.error == "this search was given up: nobody asked for it any more"


def test_the_command_serves_says_where_and_ends_with_ctrl_c(made: Path) -> None:
    command = [sys.executable, "-m", "bonsaigan", "studio", str(made), "--host", "0.0.0.0", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:(\d+)/", said)
        assert address is not None
        assert f"from other machines http://{socket.gethostname()}:{address[1]}/" in said
        studio = Studio(folder=made, port=int(address[1]))
        assert studio.json("/api/run")["name"] == made.name
        taken = subprocess.run([*command[:-1], address[1]], capture_output=True, text=True, check=False)
        assert taken.returncode == 2
        assert f"--port {address[1]}" in taken.stderr
        assert len(taken.stderr.splitlines()) == 1
        film = "/film.mp4?p=" + ",".join(map(str, range(24)))
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", studio.port)) as waiting:
            waiting.request("GET", film)
            time.sleep(1)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, complaints = process.communicate(timeout=60)
            assert time.monotonic() - began < 5
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, complaints) == (0, "")
