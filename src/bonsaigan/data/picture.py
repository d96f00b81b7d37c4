"""One file becomes one small array, and everything worth telling about it on the way.

Decoding and judging are one function, so that what `doctor` says and what `train` does cannot differ.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import re
import threading
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from bonsaigan.config import Fit, Size
from bonsaigan.data.profiles import from_print, to_srgb
from bonsaigan.data.resize import Resample, fitted, kept_box

PIXELS_MAX = 120_000_000
SIDE_MIN_PX = 16
BIG_PIXELS = 16_000_000
ASPECT_MAX = 3.0
ENLARGED_MAX = 2.0
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
"""Pillow's other readers stay closed: some of them run programs."""
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""What such a file names itself; an AVIF, which may name itself `mif1` too, Pillow has opened before."""
MAGICS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*")

Severity = Literal["left out", "fixed", "note"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something worth knowing about one file."""

    kind: str
    """One word or two: `truncated`, `rotation`, `near duplicate`, ..."""
    severity: Severity
    """`left out` of the set; `fixed` on the way; or a `note`: used as it is."""
    message: str
    """Plain words, safe to print."""


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What came of one file."""

    findings: tuple[Finding, ...]
    width_px: int = 0
    """Width when upright; 0 where the file could not be read."""
    height_px: int = 0
    """Height when upright."""
    picture: np.ndarray | None = None
    """uint8 (H, W, C) at the wanted size, C = 1, 3 or 4 as the file has it; None when it is left out."""
    grey: bool = False
    """Whether red, green and blue are equal everywhere."""
    transparent: bool = False
    """Whether any pixel lets the background through."""
    look: int = 0
    """64-bit perceptual hash of the picture."""


def examine(data: bytes, *, size: Size, fit: Fit, resample: Resample = "antialias") -> Examined:
    """Decode a file, make it upright, 8-bit and of the wanted size; or say why not.

    Args:
        data: the file's content, from anyone.
        size: wanted width and height.
        fit: how another aspect ratio is brought to `size`, see `DataConfig.fit`.
        resample: see `Resample`.

    Returns:
        The picture with its findings. Never raises for what the file contains.
    """
    findings: list[Finding] = []
    try:
        image = _open(data)
        if image.width * image.height < BIG_PIXELS:
            return _prepared(image, findings, size=size, fit=fit, resample=resample)
        with _ONE_BIG_PICTURE:
            return _prepared(image, findings, size=size, fit=fit, resample=resample)
    except _LeftOut as reason:
        return _left_out(reason.kind, str(reason))
    except Image.DecompressionBombError:
        return _left_out("gigantic", f"declares more than {PIXELS_MAX // 10**6} million pixels, the limit")
    except MemoryError:
        return _alone(data, size=size, fit=fit, resample=resample)
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        return _left_out(*_damage(error, data))


def _alone(data: bytes, *, size: Size, fit: Fit, resample: Resample) -> Examined:
    """A picture for which memory did not suffice, once more while no other large one is held."""
    with _ONE_BIG_PICTURE:
        try:
            return _prepared(_open(data), [], size=size, fit=fit, resample=resample)
        except MemoryError:
            return _left_out("gigantic", "needs more memory than there is")
        except Exception as error:
            return _left_out(*_damage(error, data))


def decode(data: bytes, *, at_least: tuple[int, int] | None = None) -> Image.Image:
    """The whole picture, upright, as L, RGB or RGBA.

    Args:
        data: the file's content.
        at_least: (width, height) in pixels; a JPEG may be decoded at a fraction of its size that covers this.

    Raises:
        Exception: nearly anything, when the file is damaged.
    """
    return _upright(_open(data), [], at_least=at_least)


@functools.cache
def hush_libtiff() -> None:
    """Keep libtiff, for the whole process, from writing of damaged files to the terminal itself.

    Pillow raises what it finds. Where libtiff is built into Pillow and cannot be reached, it goes on writing.
    """
    with contextlib.suppress(AttributeError, OSError):
        library = ctypes.CDLL(Image.core.__file__)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)


_ONE_BIG_PICTURE = threading.Lock()
"""Several pictures of 100 megapixels at once would not fit a small machine."""


class _LeftOut(Exception):
    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def _left_out(kind: str, message: str) -> Examined:
    return Examined(findings=(Finding(kind=kind, severity="left out", message=message),))


def _open(data: bytes) -> ImageFile.ImageFile:
    """Read the header and check what it declares, before anything is decoded."""
    if not data:
        raise _LeftOut("empty", "the file is empty")
    try:
        Image.init()
        formats = [form for form in FORMATS if form in Image.OPEN]  # an older Pillow lacks some
        image = Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError as error:
        if data.startswith(MAGICS) or data[8:12] == b"WEBP":
            raise _LeftOut(*_damage(error, data)) from None
        if data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS:
            raise _LeftOut("not a picture", "HEIC, as many phones save; convert it to JPEG") from None
        archive = data.startswith((b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"Rar!", b"7z\xbc\xaf"))
        hint = "an archive; pass it as DATA itself" if archive else "not a picture of a known format"
        raise _LeftOut("not a picture", hint) from None
    if image.format == "TIFF":
        hush_libtiff()
    width, height = image.size
    if width * height > PIXELS_MAX:
        limit = f"the limit is {PIXELS_MAX // 10**6} million in all"
        raise _LeftOut("gigantic", f"declares {width} x {height} pixels; {limit}")
    if min(width, height) < SIDE_MIN_PX:
        raise _LeftOut("tiny", f"{width} x {height} pixels; at least {SIDE_MIN_PX} a side are needed")
    return image


def _damage(error: Exception, data: bytes) -> tuple[str, str]:
    text = str(error).lower()
    short = data[8:12] == b"WEBP" and len(data) < 8 + int.from_bytes(data[4:8], "little")
    if short or isinstance(error, EOFError) or "truncated" in text or "end of file" in text:
        return "truncated", "the end of the file is missing"
    if "decompressed data too large" in text:
        return "metadata", "its metadata is larger than is read here; save it anew without"
    if isinstance(error, UnidentifiedImageError):
        return "corrupt", "damaged, or of a kind that is not read here"
    return "corrupt", "damaged: it cannot be decoded"


# --- from the file to an upright picture of 8 bits --------------------------------------------------------


def _prepared(
    image: ImageFile.ImageFile, findings: list[Finding], *, size: Size, fit: Fit, resample: Resample
) -> Examined:
    # Twice the wanted size is enough for antialiasing; a JPEG decodes many times faster at a fraction.
    at_least = _cover(image, size, fit) if resample == "antialias" else None
    declared = image.size
    upright = _upright(image, findings, at_least=at_least)
    turned = (upright.width > upright.height) != (declared[0] > declared[1])
    width, height = declared[::-1] if turned else declared
    _judge_shape(findings, width, height, size=size, fit=fit)
    picture = fitted(upright, size=size, fit=fit, resample=resample)
    profile = image.info.get("icc_profile")
    if profile and resample == "antialias" and picture.shape[2] > 1 and image.mode != "CMYK":
        managed = to_srgb(picture, profile)
        if managed is not None:
            picture = managed
            message = "colours of another profile, converted to sRGB"
            findings.append(Finding(kind="colour profile", severity="fixed", message=message))
    colours = picture[..., :3]
    grey = picture.shape[2] == 1 or bool((colours == colours[..., :1]).all())
    transparent = picture.shape[2] == 4 and bool((picture[..., 3] < 255).any())
    if grey:
        findings.append(Finding(kind="greyscale", severity="note", message="no colour"))
    if upright.mode == "RGBA":
        findings.append(Finding(kind="transparency", severity="note", message="has see-through parts"))
    return Examined(
        findings=tuple(findings),
        width_px=width,
        height_px=height,
        picture=picture,
        grey=grey,
        transparent=transparent,
        look=_look(picture),
    )


def _cover(image: Image.Image, size: Size, fit: Fit) -> tuple[int, int]:
    """A size, in the file's own orientation, that holds twice the pixels a side that `fit` will want."""
    width, height = image.size
    upright = (width / size.width_px, height / size.height_px)
    turned = (width / size.height_px, height / size.width_px)  # the orientation is not known yet
    scale = min(max(upright), max(turned)) if fit == "pad" else min(upright + turned)
    return int(2 * width / scale + 1), int(2 * height / scale + 1)


def _upright(
    image: ImageFile.ImageFile, findings: list[Finding], *, at_least: tuple[int, int] | None
) -> Image.Image:
    _note_storage(findings, image)
    if at_least and image.format == "JPEG":
        image.draft(None, at_least)
    # Pillow turns a TIFF itself, on loading. In other formats the metadata may come last: asked for it before
    # loading, Pillow loads, and a damaged picture would pass for damaged metadata.
    before = _orientation(image, []) if image.format == "TIFF" else 1
    image.load()
    after = _orientation(image, findings)
    if before in _TURNS or after in _TURNS:
        findings.append(Finding(kind="rotation", severity="fixed", message="turned upright as its EXIF says"))
    upright = natural(from_print(image) if image.mode == "CMYK" else image)
    return upright.transpose(_TURNS[after]) if after in _TURNS else upright


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → what makes the picture upright."""


def _orientation(image: Image.Image, findings: list[Finding]) -> int:
    try:
        exif = image.getexif()
        value = exif.get(0x0112, 1)
        broken = not isinstance(value, int) or bool(image.info.get("exif") and not len(exif))
    except Exception:
        value, broken = 1, True
    if broken:
        findings.append(Finding(kind="metadata", severity="fixed", message="broken metadata, ignored"))
    return value if isinstance(value, int) else 1


def _note_storage(findings: list[Finding], image: ImageFile.ImageFile) -> None:
    def fixed(kind: str, message: str) -> None:
        findings.append(Finding(kind=kind, severity="fixed", message=message))

    if image.mode in ("P", "PA"):
        fixed("palette", "palette of colours, converted")
    elif image.mode == "CMYK":
        fixed("CMYK", "print colours (CMYK), converted to RGB")
    elif image.mode in ("YCbCr", "LAB", "HSV") and image.format != "JPEG":
        fixed("colour space", f"{image.mode} colours, converted to RGB")
    elif image.mode.startswith(("I", "F")) or any(_is_deep(tile) for tile in image.tile):
        fixed("16-bit", "more than 8 bits a colour, scaled to 8")
    if image.format in ("GIF", "WEBP", "PNG") and _is_animated(image):
        fixed("animation", "animated, its first frame is used")


def _is_deep(tile: tuple[Any, ...]) -> bool:
    """Whether Pillow will read 16 bits a colour and keep the upper 8; its raw mode tells."""
    raw = tile[3] if len(tile) > 3 else ""
    return re.search(r";16[BLN]", str(raw[0] if isinstance(raw, tuple) and raw else raw)) is not None


def _is_animated(image: ImageFile.ImageFile) -> bool:
    """Whether there is a second frame; never counts them, since a file may have no end of them."""
    if image.format != "GIF":
        return bool(getattr(image, "is_animated", False))
    data = image.fp.getvalue() if isinstance(image.fp, io.BytesIO) else b""
    try:
        with Image.open(io.BytesIO(data), formats=("GIF",)) as copy:
            return bool(getattr(copy, "is_animated", False))
    except Exception:
        return True  # a damaged second frame is none of our business


def natural(image: Image.Image) -> Image.Image:
    """Any picture as L, RGB or RGBA of 8 bits; RGBA only when some pixel really is transparent."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        if alpha.getextrema()[0] < 255:  # pyright: ignore[reportOperatorIssue]
            # What is invisible has no colour: the networks must not learn what an editor left there.
            clear = Image.new("RGBA", rgba.size)
            clear.paste(rgba, mask=alpha.point(lambda a: 255 if a else 0))
            return clear
        return rgba.convert("L" if image.mode in ("L", "LA") else "RGB")
    if image.mode in ("L", "1"):
        return image.convert("L")
    return image.convert("RGB")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Scale (H, W) values of 16 or 32 bits to uint8; Pillow's own conversion cuts them off at 255."""
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    limits = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (65535.0,)
    values = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    for limit in limits:
        if low >= 0 and high <= limit:
            return np.rint(values * (255 / limit)).astype(np.uint8)
    return np.rint((values - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)


# --- to the wanted size -----------------------------------------------------------------------------------


def _judge_shape(findings: list[Finding], width: int, height: int, *, size: Size, fit: Fit) -> None:
    left, top, right, bottom = kept_box(width, height, size=size, fit=fit)
    sides = (size.width_px / (right - left), size.height_px / (bottom - top))
    enlarged = min(sides) if fit == "pad" else max(sides)
    if enlarged > ENLARGED_MAX:
        message = f"{width} x {height} pixels, enlarged {enlarged:.1f} times: it will look blurry"
        findings.append(Finding(kind="small", severity="note", message=message))
    ratio = (width / height) / (size.width_px / size.height_px)
    aspect = max(ratio, 1 / ratio)
    if aspect > ASPECT_MAX:
        share = (right - left) * (bottom - top) / (width * height)
        keeps = f"; the crop keeps {share:.0%} of it" if fit == "crop" else ""
        findings.append(Finding(kind="aspect", severity="note", message=f"{width} x {height} pixels{keeps}"))


# --- how it looks -----------------------------------------------------------------------------------------


def _look(picture: np.ndarray) -> int:
    """64-bit perceptual hash (imagehash's phash) of uint8 (H, W, C): few bits differ for like ones."""
    import imagehash

    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    bits = np.packbits(imagehash.phash(image).hash)
    return int.from_bytes(bits.tobytes(), "big")
