"""The page's server: fixed routes to one run, on this machine unless told otherwise.

Nothing is served by path: every route asks the explorer or the report for something it makes or knows. The
page may load nothing from elsewhere (its content security policy says so), other sites' pages can neither
read it nor write to it, and a name that points here from elsewhere (DNS rebinding) is refused.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import ipaddress
import json
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from bonsaigan import runs
from bonsaigan.config import read_bounded
from bonsaigan.data.files import visible
from bonsaigan.errors import BonsaiganError, ConfigError, RunError
from bonsaigan.explore.directions import AMOUNT_MAX
from bonsaigan.explore.film import encode_film
from bonsaigan.explore.inversion import FILE_MAX_BYTES
from bonsaigan.studio import live
from bonsaigan.studio.explorer import Explorer

HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
TYPES = {"mp4": "video/mp4", "gif": "image/gif", "webp": "image/webp"}
FILES = {
    "/studio.js": (HERE / "studio.js", "text/javascript"),
    "/state.js": (HERE / "state.js", "text/javascript"),
    "/picture.js": (HERE / "picture.js", "text/javascript"),
    "/training.js": (HERE / "training.js", "text/javascript"),
    "/studio.css": (HERE / "studio.css", "text/css"),
    "/report.css": (HERE.parent / "report" / "page.css", "text/css"),
}
LAPSE_SECONDS, LAPSE_FPS = 8.0, 12.0
CHANGE_MAX_BYTES = 4 << 20


def serve(folder: Path, *, own: Path, host: str, port: int, device: str = "cpu") -> None:
    """Serve the page of a run until Ctrl-C.

    Args:
        folder: from `runs.find_run`.
        own: where to keep favourites, see `runs.output_folder`.
        host: address to listen on.
        port: 0 takes any.
        device: where the generator runs.

    Raises:
        ConfigError: the address or port cannot be had.
    """
    if not host:
        raise ConfigError("--host: is empty; 127.0.0.1 is this machine alone, 0.0.0.0 the whole network")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    if os.name == "nt":  # where the other option lets two programs have one port
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)  # pyright: ignore
    else:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # from here on it may be asked: requests wait until it answers
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"--host {host} --port {port}: cannot listen there: {reason}; try --port 0"
        ) from None
    port, machine = listening.getsockname()[1], socket.gethostname()
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    others = f", from other machines http://{machine}:{port}/" if host in ("0.0.0.0", "::") else ""
    said = f"studio of {runs.title(folder)}: http://{shown}:{port}/{others}  (Ctrl-C ends it)"
    print(visible(said), flush=True)
    app = make_app(Explorer(folder, own=own, device=device), names=(host, machine, f"{machine}.local"))
    config = uvicorn.Config(app, log_level="warning", ws="none", lifespan="off")
    _Server(config).run(sockets=[listening])


class _Server(uvicorn.Server):
    """A server that Ctrl-C ends at once, though a film may be in the making."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        os._exit(0)  # what is being computed would be waited for; files are written whole or not at all


def make_app(explorer: Explorer, *, names: Sequence[str] = ()) -> Starlette:
    """The routes of a run's page.

    Args:
        explorer: the run.
        names: of this machine, that a browser may call it by besides `localhost` and addresses in numbers.
    """
    made = Routes(explorer)
    routes = [
        *(Route(path, _file(*file)) for path, file in FILES.items()),
        Route("/", _file(HERE / "studio.html", "text/html")),
        Route("/api/run", made.run),
        Route("/api/status", made.status),
        Route("/api/directions", made.directions),
        Route("/api/nearest/{point}", made.nearest),
        Route("/api/freeze/{point}", made.freeze),
        Route("/api/favourites", made.favourites, methods=["GET"]),
        Route("/api/favourites", made.change_favourites, methods=["PATCH"]),
        Route("/api/twin", made.start_twin, methods=["POST"]),
        Route("/api/twin/{name}", made.twin),
        Route("/picture/{point}.png", made.picture),
        Route("/real/{place:int}.png", made.real),
        Route("/film.{kind}", made.film),
        Route("/timelapse.{kind}", made.timelapse),
        Route("/samples/{step:int}.png", made.sample),
        Route("/training", made.training),
        Route("/report", made.report),
    ]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(Shielded, names=names),
        ],
        exception_handlers={BonsaiganError: _say, ClientDisconnect: _gone},
    )


class Routes:
    """One function a route; Starlette runs those that are not async in threads of their own."""

    def __init__(self, explorer: Explorer):
        self.explorer = explorer

    def run(self, request: Request) -> Response:
        """What the page needs to know of the run first."""
        facts: dict[str, Any] = {"name": runs.title(self.explorer.folder), "trouble": ""}
        while moments := self.explorer.moments():  # one that turns out to be damaged is none of them any more
            moment = next(iter(moments))
            try:
                size = self.explorer.generator(moment)[0].spec.size
                mixes = self.explorer.mix_levels(moment) > 0
            except RunError as error:
                facts["trouble"] = str(error)
                continue
            facts |= {"width": size.width_px, "height": size.height_px, "mixes": mixes}
            break
        facts["moments"] = moments
        return JSONResponse(facts | {"amount_max": AMOUNT_MAX, "upload_max": FILE_MAX_BYTES})

    def status(self, request: Request) -> Response:
        """How training goes, and the stamps of the moments there are."""
        return JSONResponse(live.status(self.explorer.folder) | {"moments": self.explorer.moments()})

    def directions(self, request: Request) -> Response:
        """Names and strengths; the first time it takes as long as finding them."""
        found = self.explorer.directions(_moment(request))
        return JSONResponse(
            [{"name": name, "change": round(c, 4)} for name, c in zip(found.names, found.changes)]
        )

    def picture(self, request: Request) -> Response:
        """A picture by its name. It is another one when the weights change: the page then asks anew."""
        data = self.explorer.picture(
            request.path_params["point"],
            moment=_moment(request),
            variety=_variety(request),
            quick="quick" in request.query_params,
        )
        return Response(data, media_type="image/png", headers=_kept("v" in request.query_params))

    def nearest(self, request: Request) -> Response:
        """The nearest training picture."""
        return JSONResponse(
            self.explorer.nearest(
                request.path_params["point"], moment=_moment(request), variety=_variety(request)
            )
        )

    def real(self, request: Request) -> Response:
        """A training picture."""
        return Response(self.explorer.training_picture(request.path_params["place"]), media_type="image/png")

    def freeze(self, request: Request) -> Response:
        """The same picture by its latent vector."""
        name = request.path_params["point"]
        return JSONResponse(
            {"point": self.explorer.freeze(name, moment=_moment(request), variety=_variety(request))}
        )

    def favourites(self, request: Request) -> Response:
        """The favourites kept in the run."""
        return JSONResponse(self.explorer.favourites())

    async def change_favourites(self, request: Request) -> Response:
        """Favourites come and go; only as JSON, which another site's page cannot send here."""
        _check_type(request, "application/json")
        try:
            change = json.loads(await _body(request, CHANGE_MAX_BYTES, "the list of favourites"))
        except (ValueError, RecursionError):
            raise ConfigError("favourites: not valid JSON") from None
        if not isinstance(change, dict):
            raise ConfigError("favourites: expected what to add and what to drop")
        add, drop = change.get("add", []), change.get("drop", [])
        return JSONResponse(await run_in_threadpool(self.explorer.change_favourites, add=add, drop=drop))

    async def start_twin(self, request: Request) -> Response:
        """A photograph, as the body; its type is one that another site's page cannot send here."""
        _check_type(request, "application/octet-stream")
        image = await _body(request, FILE_MAX_BYTES, "the photo")
        name = self.explorer.start_twin(image, moment=_moment(request))
        return JSONResponse({"name": name})

    def twin(self, request: Request) -> Response:
        """How far the search is, and what it found."""
        told = dataclasses.asdict(self.explorer.twin(request.path_params["name"]))
        del told["asked_at"]
        if told["result"]:
            data = base64.b64encode(told["result"]["target"]).decode()
            told["result"]["target"] = f"data:image/png;base64,{data}"
        return JSONResponse(told)

    def film(self, request: Request) -> Response:
        """A walk through the pictures named in `p`, in their order."""
        kind = _kind(request)
        names = [name for name in request.query_params.get("p", "").split(",") if name]
        data = self.explorer.film(names, kind=kind, moment=_moment(request), variety=_variety(request))
        return _ranged(request, data, TYPES[kind])

    def timelapse(self, request: Request) -> Response:
        """The run's training as a film."""
        from bonsaigan.explore.timelapse import timelapse

        kind = _kind(request)
        frames = timelapse(self.explorer.folder, seconds=LAPSE_SECONDS, fps=LAPSE_FPS)
        return _ranged(request, encode_film(frames, kind, fps=LAPSE_FPS), TYPES[kind])

    def sample(self, request: Request) -> Response:
        """A grid of samples."""
        path = live.sample_path(self.explorer.folder, request.path_params["step"])
        data = read_bounded(path, limit_bytes=FILE_MAX_BYTES)
        return Response(data, media_type="image/png", headers=_kept("v" in request.query_params))

    def training(self, request: Request) -> Response:
        """Health and curves as a piece of HTML."""
        return HTMLResponse(live.training_html(self.explorer.folder))

    def report(self, request: Request) -> Response:
        """The report, written for this request: a stranger's report.html is never shown."""
        return HTMLResponse(live.report_html(self.explorer.folder))


class Shielded:
    """Refuses names that are not this machine's and what other sites' pages ask, and adds the headers that
    keep the page to itself."""

    def __init__(self, app: Callable[..., Any], *, names: Sequence[str]):
        self.app = app
        self.names = {"localhost", *(name.lower() for name in names)}

    def knows(self, host: str) -> bool:
        """Whether a Host header is ours: a site elsewhere can point its own name here, but not an address."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(name)
            return True
        return name in self.names

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                if scope["path"] != "/report":  # it brings a stricter policy of its own
                    message["headers"].append((b"content-security-policy", POLICY.encode()))
                message["headers"] += [
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                    (b"cross-origin-resource-policy", b"same-origin"),
                ]
            await send(message)

        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif not self.knows(Headers(scope=scope).get("host", "")):
            refusal = PlainTextResponse("This name is not the studio's: use its address.\n", status_code=400)
            await refusal(scope, receive, sending)
        elif _asked_elsewhere(scope):
            refusal = PlainTextResponse("Another site's page may not ask.\n", status_code=403)
            await refusal(scope, receive, sending)
        else:
            await self.app(scope, receive, sending)


def _asked_elsewhere(scope: Any) -> bool:
    """Whether another site's page asks: it could not read the answer, but would have it computed.

    Browsers say so (Fetch Metadata). A link there may lead here.
    """
    headers = Headers(scope=scope)
    followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    other = headers.get("sec-fetch-site", "none") in ("cross-site", "same-site")
    return other and not (followed and scope["path"] in ("/", "/report"))


def _file(path: Path, kind: str) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        return Response(path.read_bytes(), media_type=kind, headers={"cache-control": "no-cache"})

    return answer


def _say(request: Request, error: Exception) -> Response:
    """A user's mistake, in its one line."""
    return JSONResponse({"error": str(error)}, status_code=404 if isinstance(error, RunError) else 400)


def _gone(request: Request, error: Exception) -> Response:
    """Nobody waits for an answer: the tab was closed while it sent something."""
    return Response(status_code=400)


async def _body(request: Request, limit_bytes: int, what: str) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit_bytes:
            raise ConfigError(f"{what} is larger than {limit_bytes >> 20} MiB")
    return bytes(body)


def _moment(request: Request) -> str:
    return request.query_params.get("moment", "best")


def _variety(request: Request) -> float:
    text = request.query_params.get("variety", "1")
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ConfigError(f"variety {text[:20]!r}: must be from 0 up to 1")
    return value


def _kind(request: Request) -> str:
    kind = request.path_params["kind"]
    if kind not in TYPES:
        raise HTTPException(404)
    return kind


def _kept(lasting: bool) -> dict[str, str]:
    return {"cache-control": "private, max-age=86400" if lasting else "no-store"}


def _check_type(request: Request, wanted: str) -> None:
    if request.headers.get("content-type", "").partition(";")[0] != wanted:
        raise HTTPException(415, f"expected {wanted}")


def _ranged(request: Request, data: bytes, kind: str) -> Response:
    """All of it, or the part that a player asks for."""
    headers = {"accept-ranges": "bytes", **_kept("v" in request.query_params)}
    asked = request.headers.get("range", "").removeprefix("bytes=").partition("-")
    if not asked[0].isdecimal() or int(asked[0]) >= len(data):
        return Response(data, media_type=kind, headers=headers)
    start = int(asked[0])
    stop = min(int(asked[2]) + 1, len(data)) if asked[2].isdecimal() else len(data)
    headers["content-range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    return Response(data[start:stop], status_code=206, media_type=kind, headers=headers)
