"""The download, against a local server that misbehaves in every way servers do."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import http.server
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bonsaigan.data.download import Download, fetch
from bonsaigan.errors import DownloadError

BODY = bytes(range(256)) * 1200  # more than one chunk
MD5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
Answer = Callable[[http.server.BaseHTTPRequestHandler, int], None]


class Server:
    """Answers each request with the next of the given functions; the last one stays."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.ranges: list[str | None] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.ranges.append(self.headers.get("Range"))
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    answer(self, int(match[1]) if match else 0)
                self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/file.zip"

    def stop(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


def send(handler, status: int, body: bytes, **headers: object) -> None:
    handler.send_response(status)
    for name, value in ({"Content_Length": len(body)} | headers).items():
        if value is not None:
            handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()
    handler.wfile.write(body)


def whole(handler, start: int) -> None:
    """A good server without ranges."""
    send(handler, 200, BODY)


def ranged(handler, start: int) -> None:
    """A good server with ranges."""
    if start >= len(BODY):
        send(handler, 416, b"", Content_Range=f"bytes */{len(BODY)}")
    elif start:
        span = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
        send(handler, 206, BODY[start:], Content_Range=span, ETag='"a"')
    else:
        send(handler, 200, BODY, ETag='"a"')


def broken(handler, start: int) -> None:
    """Stops after a third of what is left."""
    end = start + (len(BODY) - start) // 3
    headers = {"Content_Length": len(BODY) - start, "ETag": '"a"'}
    if start:
        headers["Content_Range"] = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
    send(handler, 206 if start else 200, BODY[start:end], **headers)


def stalled(handler, start: int) -> None:
    """Sends the beginning and then nothing, long enough."""
    send(handler, 200, BODY[:1000], Content_Length=len(BODY))
    handler.wfile.flush()
    time.sleep(0.6)


def status(code: int) -> Answer:
    return lambda handler, start: send(handler, code, b"sorry")


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


def download(server: Server, **changes: Any) -> Download:
    settings: dict[str, Any] = {
        "url": server.url,
        "md5": MD5,
        "limit_bytes": 10 * len(BODY),
        "otherwise": "Pass --archive FILE",
        "timeout_sec": 5.0,
        "tries": 3,
        "backoff_sec": 0.01,
    }
    return Download(**{**settings, **changes})


def test_it_arrives_with_progress_and_only_once(server, tmp_path):
    server.answers = [whole]
    seen: list[tuple[int, int | None]] = []
    target = fetch(download(server), tmp_path / "deep" / "file.zip", progress=lambda *at: seen.append(at))
    assert target.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert len(seen) > 1
    fetch(download(server), target)
    assert len(server.ranges) == 1
    assert not list(target.parent.glob("*.part"))


def test_no_stated_length(server, tmp_path):
    server.answers = [lambda h, s: send(h, 200, BODY, Content_Length=None, Connection="close")]
    assert fetch(download(server), tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize("code", [301, 302, 303, 307])
def test_redirects_are_followed_and_keep_the_range(server, tmp_path, code):
    (tmp_path / "f.part").write_bytes(BODY[:700])
    server.answers = [lambda h, s: send(h, code, b"", Location="/elsewhere"), ranged]
    assert fetch(download(server), tmp_path / "f").read_bytes() == BODY
    assert server.ranges == ["bytes=700-", "bytes=700-"]


def test_a_broken_connection_goes_on_where_it_stopped(server, tmp_path):
    server.answers = [broken, broken, ranged]
    assert fetch(download(server), tmp_path / "f").read_bytes() == BODY
    third = len(BODY) // 3
    assert server.ranges[:2] == [None, f"bytes={third}-"]


def test_a_server_that_ignores_ranges_starts_again(server, tmp_path):
    (tmp_path / "f.part").write_bytes(b"x" * 5000)
    server.answers = [whole]
    assert fetch(download(server), tmp_path / "f").read_bytes() == BODY


def test_all_there_but_not_moved(server, tmp_path):
    (tmp_path / "f.part").write_bytes(BODY)
    server.answers = [ranged]
    assert fetch(download(server), tmp_path / "f").read_bytes() == BODY


def test_more_there_than_there_is(server, tmp_path):
    (tmp_path / "f.part").write_bytes(BODY + b"more")
    server.answers = [ranged]
    assert fetch(download(server), tmp_path / "f").read_bytes() == BODY


def test_a_stall_is_noticed_and_tried_again(server, tmp_path):
    server.answers = [stalled, ranged]
    assert fetch(download(server, timeout_sec=0.25), tmp_path / "f").read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000-"]


def test_a_lasting_stall_keeps_what_came(server, tmp_path):
    server.answers = [stalled]
    with pytest.raises(DownloadError, match=r"stopped answering.*are kept") as caught:
        fetch(download(server, tries=2, timeout_sec=0.25), tmp_path / "f")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "f.part").stat().st_size == 1000
    assert not (tmp_path / "f").exists()


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    server.answers = [lambda h, s: send(h, 200, BODY[:-1] + b"?")]
    with pytest.raises(DownloadError, match=r"wrong checksum.*--archive FILE"):
        fetch(download(server), tmp_path / "f")
    assert not (tmp_path / "f").exists()
    assert not (tmp_path / "f.part").exists()


def test_a_wrong_length_is_an_error(server, tmp_path):
    server.answers = [lambda h, s: send(h, 200, BODY[:1000], Content_Length=len(BODY))]
    with pytest.raises(DownloadError, match="ended after 1,000 of"):
        fetch(download(server), tmp_path / "f")


@pytest.mark.parametrize("length", ["stated", "hidden"])
def test_a_flood_is_refused(server, tmp_path, length):
    stated = {"Content_Length": None, "Connection": "close"} if length == "hidden" else {}
    server.answers = [lambda h, s: send(h, 200, BODY, **stated)]
    with pytest.raises(DownloadError, match="expected"):
        fetch(download(server, limit_bytes=1000), tmp_path / "f")


@pytest.mark.parametrize(("code", "requests"), [(404, 1), (403, 1), (500, 3), (503, 3), (429, 3)])
def test_a_refusal_is_one_line(server, tmp_path, code, requests):
    server.answers = [status(code)]
    with pytest.raises(DownloadError, match=f"answered {code}.*--archive FILE") as caught:
        fetch(download(server), tmp_path / "f")
    assert "\n" not in str(caught.value)
    assert len(server.ranges) == requests


def test_a_passing_refusal_is_no_matter(server, tmp_path):
    server.answers = [status(500), status(503), whole]
    assert fetch(download(server), tmp_path / "f").read_bytes() == BODY


def test_redirects_without_end_are_one_line(server, tmp_path):
    server.answers = [lambda h, s: send(h, 302, b"", Location="/file.zip")]
    with pytest.raises(DownloadError, match="answered 302") as caught:
        fetch(download(server), tmp_path / "f")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1:9/x", "http://[::1", "//", "data:,x"]
)
def test_a_redirect_leads_to_no_other_kind_of_address(server, tmp_path, target):
    server.answers = [lambda h, s: send(h, 302, b"", Location=target)]
    with pytest.raises(DownloadError, match=r"failed: .*--archive FILE"):
        fetch(download(server, tries=1), tmp_path / "f")
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Length": "9" * 6000},
        {"Content_Length": "-5"},
        {"Content_Length": "many", "Connection": "close"},
        {"Content_Range": "bytes 0-1/\u0663".encode().decode("latin-1")},
        {"ETag": "\x1b[31m"},
    ],
)
@pytest.mark.parametrize("start", [0, 700])
def test_absurd_headers_end_in_the_file_or_in_one_line(server, tmp_path, headers, start):
    if start:
        (tmp_path / "f.part").write_bytes(BODY[:start])
    server.answers = [lambda h, s: send(h, 206 if start else 200, BODY[s:], **headers)]
    said = ""
    try:
        assert fetch(download(server, tries=1), tmp_path / "f").read_bytes() == BODY
    except DownloadError as error:
        said = str(error)
    assert said.isprintable()


def test_what_a_server_says_does_not_reach_the_terminal(server, tmp_path):
    def rude(handler, start: int) -> None:
        handler.send_response(404, "\x1b]0;owned\x07 not here")
        handler.end_headers()

    server.answers = [rude]
    with pytest.raises(DownloadError, match="not here") as caught:
        fetch(download(server), tmp_path / "f")
    assert str(caught.value).isprintable()


def test_another_part_than_asked_for_is_refused(server, tmp_path):
    (tmp_path / "f.part").write_bytes(BODY[:700])
    server.answers = [
        lambda h, s: send(h, 206, BODY[5:], Content_Range=f"bytes 5-{len(BODY) - 1}/{len(BODY)}")
    ]
    with pytest.raises(DownloadError, match="another part"):
        fetch(download(server), tmp_path / "f")


def test_nobody_listens(server, tmp_path):
    with pytest.raises(DownloadError, match=r"failed: .*--archive FILE"):
        fetch(download(server, url="http://127.0.0.1:9/x"), tmp_path / "f")


def test_an_address_that_does_not_exist_is_tried_once(server, tmp_path, monkeypatch):
    monkeypatch.setattr("bonsaigan.data.download.time.sleep", lambda seconds: pytest.fail("tried again"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadError, match="offline"):
        fetch(download(server, url="http://nowhere.invalid/x"), tmp_path / "f")


def test_a_network_that_fails_is_no_disk_that_fails(server, tmp_path, monkeypatch):
    """What comes while the answer's headers are waited for reaches us as the system's own error."""
    server.answers, failures = [whole], [OSError(errno.EHOSTUNREACH, "No route to host")] * 2
    answer = http.client.HTTPConnection.getresponse

    def lost(connection):
        if failures:
            raise failures.pop()
        return answer(connection)

    monkeypatch.setattr(http.client.HTTPConnection, "getresponse", lost)
    assert fetch(download(server), tmp_path / "f").read_bytes() == BODY
    failures += [OSError(errno.EHOSTUNREACH, "No route to host")] * 99
    with pytest.raises(DownloadError, match=r"download of .* failed: No route to host"):
        fetch(download(server), tmp_path / "g")


def test_a_place_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match="BONSAIGAN_CACHE"):
        fetch(download(server), tmp_path / "file" / "f")


def test_proxies_of_the_environment_are_used(server, tmp_path, monkeypatch):
    server.answers = [whole]
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", server.url.rpartition("/")[0])
    target = fetch(download(server, url="http://pictures.invalid/file.zip"), tmp_path / "f")
    assert target.read_bytes() == BODY


def test_two_at_once_fetch_it_once(server, tmp_path):
    server.answers = [whole]
    results: list[Path] = []
    threads = [
        threading.Thread(target=lambda: results.append(fetch(download(server), tmp_path / "f")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(server.ranges) == 1
