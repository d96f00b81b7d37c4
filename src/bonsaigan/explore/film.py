"""Frames in, film out: .mp4 (H.264), .gif or .webp."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from bonsaigan.data.prepare import to_rgb
from bonsaigan.durable import fresh_name
from bonsaigan.errors import ConfigError

FPS = 24.0
GIF_FPS_MAX = 50
"""Browsers take shorter frames for a mistake, and show them for a tenth of a second."""
FORMATS = (".mp4", ".gif", ".webp")
SHORTEST_PX = {".mp4": 256, ".gif": 128, ".webp": 128}
"""Smaller films are enlarged by a whole number until the shorter side has so many pixels."""
HELD_MAX_BYTES = 1 << 30
"""So much of a .gif or .webp film may wait in memory: both are written when all frames are there."""


def check_film(path: Path, *, fps: float) -> None:
    """Whether `save_film` knows the format and the rate, before long work begins.

    Raises:
        ConfigError: it does not.
    """
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise ConfigError(f"--out {str(path)!r}: a film's name ends in {', '.join(FORMATS)}")
    highest = GIF_FPS_MAX if kind == ".gif" else 60
    if not 0 < fps <= highest:
        raise ConfigError(f"--fps {fps:g}: must be above 0 up to {highest} for a {kind} film")


def save_film(path: Path, frames: Iterable[np.ndarray], *, fps: float = FPS) -> Path:
    """Write a film that repeats for ever where the format knows that; replaced atomically.

    Args:
        path: ends in .mp4, .gif or .webp.
        frames: uint8 (H, W, C) each, all of a size; transparent ones are laid over white.
        fps: frames a second, above 0 and up to 60; of a .gif up to 50, in whole hundredths of a second.

    Returns:
        The path.

    Raises:
        ConfigError: another ending, another rate, a .gif or .webp film too large to hold in memory, or the
            file cannot be written.
    """
    check_film(path, fps=fps)
    kind = path.suffix.lower()
    shown = (_enlarged(to_rgb(frame[None])[0], SHORTEST_PX[kind]) for frame in frames)
    fresh = fresh_name(path.with_suffix(kind))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == ".mp4":
            _write_mp4(fresh, shown, fps)
        else:
            _write_animation(fresh, shown, round(100 / fps) * 10 if kind == ".gif" else 1000 / fps)
        fresh.replace(path)
    except OSError as error:
        raise ConfigError(f"--out {str(path)!r}: cannot write there: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
    return path


def encode_film(frames: Iterable[np.ndarray], kind: str, *, fps: float = FPS) -> bytes:
    """`save_film` into memory: the bytes of a film of kind `mp4`, `gif` or `webp`."""
    with tempfile.TemporaryDirectory() as place:
        try:
            return save_film(Path(place) / f"film.{kind}", frames, fps=fps).read_bytes()
        except ConfigError as error:
            raise ConfigError(str(error).removeprefix("--out: ")) from None


def _write_animation(path: Path, frames: Iterator[np.ndarray], duration_msec: float) -> None:
    from PIL import Image

    pictures = (Image.fromarray(frame) for frame in _bounded(frames, path.suffix))
    first = next(pictures)
    first.save(path, save_all=True, append_images=pictures, duration=duration_msec, loop=0, quality=80)


def _bounded(frames: Iterator[np.ndarray], kind: str) -> Iterator[np.ndarray]:
    held_bytes = 0
    for frame in frames:
        held_bytes += frame.nbytes // 3 if kind == ".gif" else frame.nbytes  # a .gif has one byte a pixel
        if held_bytes > HELD_MAX_BYTES:
            raise ConfigError(
                f"--out: so many frames of {frame.shape[1]}x{frame.shape[0]} pixels take more than "
                f"{HELD_MAX_BYTES >> 20} MiB of memory as a {kind} film; make it shorter (--seconds, --fps), "
                "or an .mp4"
            )
        yield frame


def _write_mp4(path: Path, frames: Iterator[np.ndarray], fps: float) -> None:
    import imageio_ffmpeg

    try:
        imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:
        raise ConfigError("--out: there is no ffmpeg for .mp4 here; .webp and .gif need none") from None
    first = next(frames)
    height, width = first.shape[:2]
    # Players want even sides and 4:2:0; "faststart" lets a browser begin before the end has come.
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width + width % 2, height + height % 2),
        fps=fps,  # pyright: ignore[reportArgumentType]  # ffmpeg takes fractions
        codec="libx264",
        macro_block_size=2,
        quality=None,  # pyright: ignore[reportArgumentType]  # leaves it to -crf
        output_params=["-crf", "20", "-movflags", "+faststart"],
        ffmpeg_log_level="error",
    )
    writer.send(None)
    sent = 0
    for frame in itertools.chain([first], frames):
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        writer.send(np.ascontiguousarray(even))
        sent += 1
    writer.close()  # which does not tell whether ffmpeg could write it all
    try:
        written, _ = imageio_ffmpeg.count_frames_and_secs(str(path))
    except RuntimeError:
        written = 0
    if written != sent:
        raise OSError(f"ffmpeg wrote {written} of {sent} frames")


def _enlarged(frame: np.ndarray, shortest_px: int) -> np.ndarray:
    from PIL import Image

    height, width = frame.shape[:2]
    factor = -(-shortest_px // min(height, width))
    if factor <= 1:
        return frame
    size = (width * factor, height * factor)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))
