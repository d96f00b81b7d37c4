"""What the page asks for, from one run: pictures, directions, nearest photographs, films, twins."""

from __future__ import annotations

import io
import json
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from PIL import Image

from bonsaigan import runs
from bonsaigan.config import read_json
from bonsaigan.durable import write_atomically
from bonsaigan.errors import BonsaiganError, ConfigError, RunError
from bonsaigan.explore.directions import Directions
from bonsaigan.explore.film import encode_film
from bonsaigan.explore.mixing import mix_levels
from bonsaigan.generator import BATCH, Generator, read_generator, read_spec
from bonsaigan.studio import points
from bonsaigan.studio.points import Point
from bonsaigan.studio.training import TrainingPictures

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

DIRECTIONS = 8
FAVOURITES_FILE = "favourites.json"
FAVOURITES_MAX, STOPS_MAX = 500, 24
FRAMES_PER_STOP, FRAMES_MIN = 36, 72
KEPT_PICTURES_BYTES, KEPT_FILMS, KEPT_TWINS = 128 << 20, 6, 20
BUSY_SEC = 1.0
FORGOTTEN_SEC = 30.0
"""A search that nobody asked for during so long is given up."""


@dataclass(kw_only=True)
class Twin:
    """A search for the picture most like a photograph."""

    done: int = 0
    """Steps done."""
    total: int | None = None
    """Steps in all, once known."""
    result: dict[str, Any] | None = None
    """What was found."""
    error: str = ""
    """Why nothing was."""
    asked_at: float = field(default_factory=time.monotonic)
    """When someone last asked how far it is."""


class Explorer:
    """A run, ready to be asked by several threads at once.

    What takes long (films and twins; directions) has a copy of the generator of its own, so that the wall and
    the sliders never wait for a film.
    """

    def __init__(self, folder: Path, *, own: Path | None = None, device: str = "cpu"):
        """
        Args:
            folder: the run.
            own: where to keep favourites, when not in the run.
            device: where the generator runs.
        """
        self.folder, self.own, self.device = folder, own or folder, device
        self._drawing, self._working, self._saving = threading.Lock(), threading.Lock(), threading.Lock()
        self._loading, self._finding = threading.Lock(), threading.Lock()
        self._damaged: set[tuple[str, float]] = set()
        """Weights that could not be read, by folder and time: no moments, until there are others."""
        self._loaded: dict[tuple[str, str], tuple[tuple[str, float], Generator]] = {}
        self._pictures: Kept[bytes] = Kept(KEPT_PICTURES_BYTES, size=len)
        self._directions: Kept[Directions] = Kept(4)
        self._films: Kept[bytes] = Kept(KEPT_FILMS)
        self._twins: Kept[Twin] = Kept(KEPT_TWINS)
        self._training = TrainingPictures(folder, device=device)

    # --- moments -------------------------------------------------------------------------------------------

    def moments(self) -> dict[str, dict[str, Any]]:
        """The generators there are: `best` and `latest`, each with its step and the stamp of its file; those
        that could not be read are left out."""
        found = {}
        for name, folder in (("best", self.folder / runs.BEST_DIR), ("latest", self.folder)):
            try:
                spec = read_spec(folder)
                stamp = (folder / runs.WEIGHTS_FILE).stat().st_mtime
                if (str(folder), stamp) in self._damaged:
                    continue
                found[name] = {"step": spec.step, "stamp": f"{name}-{stamp:.3f}"}
            except (BonsaiganError, OSError):
                continue
        if len({moment["step"] for moment in found.values()}) == 1:
            found = dict([next(iter(found.items()))])
        return found

    def generator(self, moment: str, *, use: str = "draw") -> tuple[Generator, tuple[str, float]]:
        """The generator of a moment as its file is now, and a stamp: the moment and the time of that file.

        Args:
            moment: `best` or `latest`.
            use: who uses it; each has a copy.

        Raises:
            RunError: there is none.
        """
        if moment not in ("best", "latest"):
            raise RunError(f"{moment!r}: this run has no such moment")
        folder = self.folder / runs.BEST_DIR if moment == "best" else self.folder
        if moment == "best" and not (folder / runs.GENERATOR_FILE).is_file():
            folder = self.folder
        with self._loading:
            try:
                stamp = moment, (folder / runs.WEIGHTS_FILE).stat().st_mtime
            except OSError:
                raise RunError("there is no generator yet; training saves the first one soon") from None
            known = self._loaded.get((moment, use))
            if known is None or known[0] != stamp:
                try:
                    known = self._loaded[moment, use] = stamp, read_generator(folder, device=self.device)
                except RunError:
                    self._damaged.add((str(folder), stamp[1]))
                    raise
            return known[1], known[0]

    # --- pictures ------------------------------------------------------------------------------------------

    def picture(self, name: str, *, moment: str, variety: float, quick: bool = False) -> bytes:
        """A picture as PNG.

        Args:
            name: see `points`.
            moment: `best` or `latest`.
            variety: truncation of its seeds, 0 to 1.
            quick: without a full batch around it, which may change pixels by a level of 255; for sliders.

        Raises:
            ConfigError: the name names no picture.
            RunError: there is no generator.
        """
        point = points.parse(name)
        generator, stamp = self.generator(moment)
        key = (name, stamp, variety)
        known = self._pictures.get(key)
        if known is not None:
            return known
        directions = self.directions(moment) if point.moved else None
        with self._drawing:
            known = self._pictures.get(key)
            if known is not None:
                return known
            if point.seed is None:
                data = to_png(self._draw(generator, point, directions, variety, quick))
                return data if quick else self._pictures.put(key, data)
            # The wall asks for neighbours next: a batch costs the same as one picture of it.
            first = point.seed - point.seed % BATCH
            seeds = range(first, first + BATCH)
            drawn = generator.images(generator.latents(seeds, truncation=variety))
        for seed, picture in zip(seeds, drawn):
            self._pictures.put((str(seed), stamp, variety), to_png(picture))
        return self._pictures.put(key, to_png(drawn[point.seed - first]))

    def directions(self, moment: str) -> Directions:
        """The strongest directions of a moment; found once."""
        with self._finding:  # and a copy of its own: moved pictures wait for no film
            generator, stamp = self.generator(moment, use="directions")
            known = self._directions.get(stamp)
            if known is not None:
                return known
            count = min(DIRECTIONS, max(1, generator.spec.network.latent // 2))
            return self._directions.put(stamp, generator.directions(count))

    def freeze(self, name: str, *, moment: str, variety: float) -> str:
        """The name of the same picture as a latent vector, which can be moved and blended again."""
        return points.encode(self._latent(name, moment, variety)[0])

    def film(self, names: Sequence[str], *, kind: str, moment: str, variety: float) -> bytes:
        """A walk through pictures and back.

        Args:
            names: two or more, see `points`.
            kind: `mp4`, `gif` or `webp`.

        Raises:
            ConfigError: too few or too many, or another kind.
        """
        import torch

        if not 2 <= len(names) <= STOPS_MAX:
            raise ConfigError(f"{len(names)} pictures: a walk needs from 2 up to {STOPS_MAX}")
        _, stamp = self.generator(moment, use="work")
        key = (tuple(names), kind, stamp, variety)
        known = self._films.get(key)
        if known is not None:
            return known
        stops = torch.cat([self._latent(name, moment, variety) for name in names])
        frames = max(FRAMES_MIN, FRAMES_PER_STOP * len(names))
        with self._working:
            known = self._films.get(key)  # made meanwhile: the page plays a film and offers it as a file
            if known is not None:
                return known
            generator, _ = self.generator(moment, use="work")
            return self._films.put(key, encode_film(generator.walk(stops, frames=frames).frames, kind))

    def mix_levels(self, moment: str) -> int:
        """How many levels of the generator can be mixed."""
        return mix_levels(self.generator(moment)[0])

    # --- photographs ---------------------------------------------------------------------------------------

    def nearest(self, name: str, *, moment: str, variety: float) -> dict[str, Any]:
        """The training picture nearest to a picture, or how far the search for them is."""
        real = self._training.found()
        if real.detector is None:
            return {"state": real.state}
        point = points.parse(name)
        directions = self.directions(moment) if point.moved else None
        if not self._working.acquire(timeout=BUSY_SEC):
            return {"state": "looking"}  # a film is made: the page asks again, and other pictures go first
        try:
            generator, _ = self.generator(moment, use="work")
            picture = self._draw(generator, point, directions, variety, False)
            found = real.detector.check(picture[None])
        finally:
            self._working.release()
        pair = found.closest(1)[0]
        return {
            "state": "ready",
            "place": pair.training,
            "name": real.names[pair.training] if pair.training < len(real.names) else "",
            "mirrored": pair.mirrored,
            "closeness": round(pair.closeness, 2),
            "looked_at": list(found.sampled or ()),
            "flagged": pair.flagged,
        }

    def training_picture(self, place: int) -> bytes:
        """A training picture as PNG.

        Raises:
            RunError: it is not known.
        """
        known = self._training.pictures
        if known is None or not 0 <= place < len(known):
            raise RunError(f"training picture {place}: not known")
        return to_png(known[place])

    def start_twin(self, image: bytes, *, moment: str) -> str:
        """Begin the search for the picture most like a photograph; its name for `twin`."""
        name, twin = uuid.uuid4().hex, Twin()
        self._twins.put(name, twin)
        threading.Thread(target=self._search, args=(twin, image, moment), daemon=True).start()
        return name

    def twin(self, name: str) -> Twin:
        """How far a search is.

        Raises:
            RunError: there is none of that name.
        """
        twin = self._twins.get(name)
        if twin is None:
            raise RunError("this search is not known any more")
        twin.asked_at = time.monotonic()
        return twin

    # --- favourites ----------------------------------------------------------------------------------------

    def favourites(self) -> list[str]:
        """Names of the favourites that were kept; none where their file cannot be read."""
        try:
            return self._favourites()
        except ConfigError:
            return []

    def change_favourites(self, *, add: object, drop: object) -> list[str]:
        """Favourites come and go; those that another page keeps meanwhile stay.

        Args:
            add: names of pictures, a list.
            drop: names of pictures, a list.

        Returns:
            All favourites now.

        Raises:
            ConfigError: they are not names of pictures, or too many; or the file that is there is damaged.
            RunError: the run's folder cannot be written.
        """
        gone, new = set(_checked(drop)), _checked(add)
        path = self.own / FAVOURITES_FILE
        try:
            with self._saving:
                names = _checked([*(name for name in self._favourites() if name not in gone), *new])
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, json.dumps(names, indent=1).encode())
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}") from None
        return names

    # --- inside --------------------------------------------------------------------------------------------

    def _favourites(self) -> list[str]:
        path = self.own / FAVOURITES_FILE
        return _checked(read_json(path)) if path.exists() else []

    def _draw(
        self,
        generator: Generator,
        point: Point,
        directions: Directions | None,
        variety: float,
        quick: bool,
    ) -> np.ndarray:
        if point.second is not None and point.share is None:
            shape, style = (p.latent(generator, directions, variety) for p in (point.first, point.second))
            return generator.mix(shape, style)
        z = point.latent(generator, directions, variety)
        return (generator.preview(z) if quick else generator.images(z))[0]

    def _latent(self, name: str, moment: str, variety: float) -> torch.Tensor:
        point = points.parse(name)
        directions = self.directions(moment) if point.moved else None
        return point.latent(self.generator(moment)[0], directions, variety)

    def _search(self, twin: Twin, image: bytes, moment: str) -> None:
        def told(done: int, total: int | None) -> None:
            twin.done, twin.total = done, total
            if time.monotonic() - twin.asked_at > FORGOTTEN_SEC:
                raise RunError("this search was given up: nobody asked for it any more")

        try:
            with self._working:
                told(0, None)
                generator, _ = self.generator(moment, use="work")
                found = generator.invert(image, fit=runs.fit_of(self.folder), progress=told)
            twin.result = {
                "point": points.encode(found.latent),
                "target": to_png(found.target),
                "share": round(found.features.share, 3),
                "verdict": found.verdict,
            }
        except BonsaiganError as error:
            twin.error = str(error)
        except Exception as error:  # whatever it is, the page must not wait for ever
            twin.error = f"{type(error).__name__}: {error}"


class Kept(Generic[T]):
    """The newest few of some values."""

    def __init__(self, most: int, *, size: Callable[[T], int] = lambda _value: 1):
        """
        Args:
            most: what their sizes may come to.
            size: of a value.
        """
        self._most, self._size, self._lock = most, size, threading.Lock()
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._kept = 0

    def get(self, key: Hashable) -> T | None:
        """The value, if it is still kept."""
        return self._values.get(key)

    def put(self, key: Hashable, value: T) -> T:
        """Keep a value, and forget the oldest where there are too many."""
        with self._lock:
            before = self._values.pop(key, None)
            self._values[key] = value
            self._kept += self._size(value) - (0 if before is None else self._size(before))
            while self._kept > self._most:
                self._kept -= self._size(self._values.popitem(last=False)[1])
        return value


def to_png(picture: np.ndarray) -> bytes:
    """uint8 (H, W, C) as the bytes of a PNG."""
    file = io.BytesIO()
    Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(
        file, "PNG", compress_level=1
    )
    return file.getvalue()


def _checked(raw: object) -> list[str]:
    if not isinstance(raw, list) or len(raw) > FAVOURITES_MAX:
        raise ConfigError(f"favourites: expected a list of at most {FAVOURITES_MAX} names")
    for name in raw:
        points.parse(name if isinstance(name, str) else "")
    return list(dict.fromkeys(raw))
