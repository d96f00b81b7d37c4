"""The text that names a picture in the page's address, and the latent vectors behind it.

    7                  seed 7
    7!0:1.5!3:-0.5     moved along directions 0 and 3
    zAAAA...           a latent vector, half precision, base64 for addresses
    A*B*0.4            on the great circle from A to B, at 0.4
    A~B                the shape of A in the style of B

A and B are seeds or latent vectors, moved or not.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bonsaigan.errors import ConfigError
from bonsaigan.explore.paths import slerp

if TYPE_CHECKING:
    from bonsaigan.explore.directions import Directions
    from bonsaigan.generator import Generator

_PLACE = r"(?:\d{1,18}|z[\w-]{2,12000})(?:!\d{1,3}:-?\d{1,2}(?:\.\d{1,4})?)*"
_POINT = re.compile(rf"({_PLACE})(?:\*({_PLACE})\*([01](?:\.\d{{1,4}})?)|~({_PLACE}))?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A latent vector, by name."""

    base: str
    """A seed, or `z` and the vector."""
    amounts: tuple[tuple[int, float], ...]
    """How far along which directions."""

    def latent(self, generator: Generator, directions: Directions | None, truncation: float) -> Tensor:
        """float32 (1, latent). Truncation holds for seeds; `directions` may be None where nothing is moved.

        Raises:
            ConfigError: the vector is of another generator, or an amount is out of its limits.
        """
        if self.base.startswith("z"):
            z = decode(self.base, generator.spec.network.latent)[None]
        else:
            z = generator.latents([int(self.base)], truncation=truncation)
        if self.amounts:
            assert directions is not None
            z = directions.move(z, dict(self.amounts))
        return z


@dataclass(frozen=True, kw_only=True)
class Point:
    """A picture, by name."""

    first: Place
    """The picture; or the start of a blend, or the shape of a mixture."""
    second: Place | None = None
    """The end of a blend, or the style of a mixture."""
    share: float | None = None
    """How far from first to second; None for a mixture, and where there is no second."""

    @property
    def seed(self) -> int | None:
        """The seed, where it is nothing but a seed."""
        plain = self.second is None and not self.first.amounts and not self.first.base.startswith("z")
        return int(self.first.base) if plain else None

    @property
    def moved(self) -> bool:
        """Whether directions are needed to draw it."""
        return any(place.amounts for place in (self.first, self.second) if place is not None)

    def latent(self, generator: Generator, directions: Directions | None, truncation: float) -> Tensor:
        """float32 (1, latent).

        Raises:
            ConfigError: a mixture has no latent vector of its own.
        """
        start = self.first.latent(generator, directions, truncation)
        if self.second is None:
            return start
        if self.share is None:
            raise ConfigError("a shape in another's style is not drawn from one latent vector")
        end = self.second.latent(generator, directions, truncation)
        return slerp(start[0], end[0], torch.tensor([self.share]))


def parse(text: str) -> Point:
    """Read a picture's name.

    Raises:
        ConfigError: it is none.
    """
    match = _POINT.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text[:40]!r} names no picture")
    first, blend, share, style = match.groups()
    if share is not None and float(share) > 1:
        raise ConfigError(f"{share}: a blend goes from 0 to 1")
    second = blend or style
    return Point(
        first=_place(first),
        second=_place(second) if second else None,
        share=float(share) if share else None,
    )


def encode(latent: Tensor) -> str:
    """A latent vector float32 (latent,) as text of half precision, safe in an address."""
    halves = latent.numpy().astype("<f2").tobytes()
    return "z" + base64.urlsafe_b64encode(halves).decode().rstrip("=")


def decode(text: str, length: int) -> Tensor:
    """What `encode` wrote: float32 (length,).

    Raises:
        ConfigError: it is of another length, or not of finite numbers.
    """
    try:
        raw = base64.urlsafe_b64decode(text[1:] + "=" * (-len(text[1:]) % 4))
        values = np.frombuffer(raw, "<f2").astype(np.float32)
    except ValueError:
        values = np.empty(0, np.float32)
    if len(values) != length or not np.isfinite(values).all() or not values.any():
        raise ConfigError("the latent vector in the address is not one of this generator")
    return torch.from_numpy(values)


def _place(text: str) -> Place:
    base, *moves = text.split("!")
    pairs = (move.split(":") for move in moves)
    return Place(base=base, amounts=tuple((int(which), float(amount)) for which, amount in pairs))
