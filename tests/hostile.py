"""A folder of good pictures and thirty hostile files, one of every kind that strangers send."""

from __future__ import annotations

import io
import os
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from bonsaigan.data.files import printable


def make_folder(path: Path, *, good: int) -> dict[str, str]:
    """Fill the folder `path` with `good` fine photographs and 30 hostile files.

    Returns:
        Printable name → the kind of finding that `doctor` must report for it. On systems that refuse odd file
        names the files that need them get plain ones.
    """
    path.mkdir(parents=True, exist_ok=True)
    for index in range(good):
        (path / f"good {index}.jpg").write_bytes(encoded(photograph(index), "jpeg"))
    kinds: dict[str, str] = {}
    for name, (kind, data) in (_broken() | _odd() | _repeated()).items():
        target = path / name
        target.parent.mkdir(exist_ok=True)
        try:
            target.write_bytes(data)
        except OSError:
            target = path / f"plain-{len(kinds)}.jpg"
            target.write_bytes(data)
        kinds[printable(target.relative_to(path).as_posix())] = kind
    kinds |= _not_files(path)
    return kinds


def photograph(seed: int, width: int = 160, height: int = 120, channels: int = 3) -> Image.Image:
    """A gradient with blobs and noise: no two seeds look alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    values = np.zeros((height, width, channels))
    for _ in range(6):
        cx, cy, spread = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.05, 0.3)
        blob = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * spread**2))
        values += blob[..., None] * rng.uniform(-160, 160, channels)
    values = 128 + values + rng.normal(0, 6, values.shape)
    pixels = values.clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    """The picture as the content of a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def png(width: int, height: int, *, body: bytes = b"") -> bytes:
    """A PNG that declares a size and holds what it likes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))

    header = struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(body)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _broken() -> dict[str, tuple[str, bytes]]:
    """Files that must be left out."""
    jpeg = encoded(photograph(1000, 320, 240), "jpeg", quality=90)
    whole_png = encoded(photograph(1001), "png")
    damaged = bytearray(whole_png)
    damaged[60:400] = bytes(340)
    nested = io.BytesIO()
    with zipfile.ZipFile(nested, "w") as archive:
        archive.writestr("inner.jpg", jpeg)
    bitmap = bytearray(encoded(photograph(1002), "bmp"))
    bitmap[18:26] = struct.pack("<ll", 60_000, 60_000)
    return {
        "empty.jpg": ("empty", b""),
        "text.jpg": ("not a picture", b"this is no photograph\n" * 40),
        "page.png": ("not a picture", b"<html><script>alert(1)</script></html>"),
        "notes.txt": ("not a picture", b"buy soil, wire and a small pot"),
        "archive.zip": ("not a picture", nested.getvalue()),
        "tables.jpeg": ("corrupt", jpeg[:24] + bytes(300) + jpeg[324:]),
        "damaged.png": ("corrupt", bytes(damaged)),
        "cut.jpg": ("truncated", jpeg[: len(jpeg) // 2]),
        "cut.png": ("truncated", whole_png[: len(whole_png) // 2]),
        "cut.webp": ("truncated", (w := encoded(photograph(1003), "webp"))[: len(w) // 2]),
        "gigantic.png": ("gigantic", png(200_000, 200_000)),
        "gigantic.bmp": ("gigantic", bytes(bitmap)),
        "dot.gif": ("tiny", encoded(Image.new("P", (1, 1)), "gif")),
        "icon.png": ("tiny", encoded(photograph(1004, 12, 40), "png")),
        "\x1b[31mred\x07\n.jpg": ("not a picture", b"\x1b]0;owned\x07"),
    }


def _odd() -> dict[str, tuple[str, bytes]]:
    """Files that can be used after some care."""
    base = photograph(2000)
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = np.asarray(photograph(2001, channels=1)).astype(np.uint16) * 257
    clear = photograph(2002).convert("RGBA")
    clear.putalpha(Image.radial_gradient("L").resize(clear.size))
    frames = [photograph(2100 + i, 48, 48) for i in range(12)]
    exif = b"Exif\0\0no metadata at all"
    latin = os.fsdecode(b"caf\xe9.png") if sys.platform == "linux" else "cafe.png"
    return {
        "print.JPG": ("CMYK", encoded(photograph(2003).convert("CMYK"), "jpeg")),
        "palette.PNG": ("palette", encoded(photograph(2004).quantize(64), "png")),
        "deep.png": ("16-bit", encoded(Image.fromarray(deep), "png")),
        "float.tiff": ("16-bit", encoded(photograph(2005, channels=1).convert("F"), "tiff")),
        "grey.jfif": ("greyscale", encoded(photograph(2006, channels=1), "jpeg")),
        latin: ("transparency", encoded(clear, "png")),
        "turned.jpg": ("rotation", encoded(base, "jpeg", exif=turned.tobytes())),
        "endless.gif": (
            "animation",
            encoded(frames[0], "gif", save_all=True, append_images=frames[1:], loop=0, duration=1),
        ),
        "panorama.tif": ("aspect", encoded(photograph(2007, 640, 64), "tiff")),
        "stamp.bmp": ("small", encoded(photograph(2008, 24, 24), "bmp")),
        "metadata.jpg": ("metadata", encoded(photograph(2009), "jpeg", exif=exif)),
    }


def _repeated() -> dict[str, tuple[str, bytes]]:
    """Copies, exact and not, of good pictures; the copies come later in natural order."""
    again = photograph(0).resize((320, 240), Image.Resampling.BICUBIC)
    return {
        "sub/same.jpg": ("duplicate", encoded(photograph(0), "jpeg")),
        "sub/similar.png": ("near duplicate", encoded(again, "png")),
    }


def _not_files(path: Path) -> dict[str, str]:
    """What looks like a file in a listing and is none."""
    link, pipe = path / "broken link.jpg", path / "pipe.jpg"
    if sys.platform == "win32":
        link.write_bytes(b"")
        pipe.write_bytes(b"")
        return {link.name: "empty", pipe.name: "empty"}
    link.symlink_to(path / "nowhere.jpg")
    os.mkfifo(pipe)
    (path / "sub" / "loop").symlink_to(path, target_is_directory=True)
    return {link.name: "unreadable", pipe.name: "refused"}
