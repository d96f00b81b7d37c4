"""One file: decoded, judged, fitted."""

from __future__ import annotations

import itertools
import random
import struct
import sys
import tracemalloc
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile

from bonsaigan.config import Size
from bonsaigan.data.picture import Examined, decode, examine
from bonsaigan.data.resize import bilinear, fitted, kept_box
from tests.hostile import encoded, photograph, png

SIZE = Size(width_px=64, height_px=64)
FITS = ("crop", "pad", "squash")
sides = st.integers(2, 16).map(lambda n: 16 * n)
sizes = st.builds(lambda w, h: Size(width_px=w, height_px=h), sides, sides)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """As in a survey: Pillow's warnings are findings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def look(data: bytes, **changes) -> Examined:
    return examine(data, **({"size": SIZE, "fit": "crop"} | changes))


def kinds(data: bytes, **changes) -> list[str]:
    return [finding.kind for finding in look(data, **changes).findings]


def pixels(examined: Examined) -> np.ndarray:
    assert examined.picture is not None, examined.findings
    return examined.picture


# --- formats and modes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "bmp", "gif", "tiff", "ppm"])
def test_common_formats_are_read(form):
    found = look(encoded(photograph(1), form))
    assert pixels(found).shape == (64, 64, 3)
    assert (found.width_px, found.height_px) == (160, 120)
    whole = np.asarray(photograph(1).resize((64, 64), Image.Resampling.LANCZOS, box=(20, 0, 140, 120)))
    assert np.abs(pixels(found).astype(int) - whole).mean() < (12 if form == "gif" else 4)


def test_sixteen_bits_are_scaled_not_cut_off():
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
    wanted = np.rint(ramp / 257).astype(int)
    for form, values in {
        "png": ramp.astype(np.uint16),
        "tiff": ramp.astype(">u2"),
        "TIFF": ramp.astype(np.int32),
    }.items():
        found = look(encoded(Image.fromarray(values), form))
        assert np.abs(pixels(found)[..., 0].astype(int) - wanted).max() <= 1, (form, values.dtype)
        assert "16-bit" in [f.kind for f in found.findings]
    dark = np.minimum(ramp, 255).astype(np.int32)  # as dark as it is, whatever its brightest pixel
    assert pixels(look(encoded(Image.fromarray(dark), "TIFF"))).max() == 1
    unit = look(encoded(Image.fromarray((ramp / 65535).astype(np.float32)), "tiff"))
    assert np.abs(pixels(unit)[..., 0].astype(int) - wanted).max() <= 1
    nothing = look(encoded(Image.fromarray(np.full((64, 64), np.nan, np.float32)), "tiff"))
    assert pixels(nothing).max() == 0


def test_sixteen_bit_colour_is_told():
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">HHH", 65535, 32768, 0) * 64
    header = struct.pack(">LLBBBBB", 64, 64, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 64)) + chunk(b"IEND", b"")
    found = look(b"\x89PNG\r\n\x1a\n" + body)
    assert [f.kind for f in found.findings] == ["16-bit"]
    assert pixels(found)[3, 3].tolist() == [255, 128, 0]


def test_eight_bit_tiff_is_not_taken_for_sixteen():
    assert kinds(encoded(photograph(1, 160, 160), "tiff")) == []


def test_palette_transparency_greyscale_cmyk():
    assert pixels(look(encoded(photograph(1).quantize(16), "png"))).shape[2] == 3
    assert pixels(look(encoded(photograph(1, channels=1), "png"))).shape[2] == 1
    assert pixels(look(encoded(photograph(1).convert("1"), "png"))).shape[2] == 1
    cmyk = look(encoded(photograph(1).convert("CMYK"), "jpeg", quality=95))
    assert np.abs(pixels(cmyk).astype(int) - pixels(look(encoded(photograph(1), "png")))).mean() < 8
    grey = photograph(1, channels=1)
    as_colour = look(encoded(grey.convert("RGB"), "jpeg"))
    assert as_colour.grey
    assert pixels(as_colour).shape[2] == 3
    opaque = photograph(1).convert("RGBA")
    assert pixels(look(encoded(opaque, "png"))).shape[2] == 3
    keyed = photograph(1).quantize(16)
    assert pixels(look(encoded(keyed, "png", transparency=0))).shape[2] == 4


def swapped_profile() -> bytes:
    """A profile whose red is what sRGB calls green, and the other way round."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = data.index(b"rXYZ"), data.index(b"gXYZ")
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data)


@pytest.mark.parametrize("form", ["png", "jpeg", "tiff"])
def test_colours_of_another_profile_become_srgb(form):
    red = Image.new("RGB", (64, 64), (250, 10, 10))
    found = look(encoded(red, form, icc_profile=swapped_profile()))
    assert [f.kind for f in found.findings if f.severity == "fixed"] == ["colour profile"]
    assert np.abs(pixels(found)[16, 16].astype(int) - (10, 250, 10)).max() < 8
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"not a profile", swapped_profile()[:200]):
        same = look(encoded(red, form, icc_profile=profile))
        assert np.abs(pixels(same)[16, 16].astype(int) - (250, 10, 10)).max() < 8
        assert "colour profile" not in [f.kind for f in same.findings]


def test_a_profile_leaves_transparency_and_the_tutorial_alone():
    clear = Image.new("RGBA", (64, 64), (250, 10, 10, 90))
    data = encoded(clear, "png", icc_profile=swapped_profile())
    assert pixels(look(data))[5, 5, 1:].tolist() == pytest.approx([250, 10, 90], abs=8)
    plain = examine(data, size=Size(width_px=32, height_px=32), fit="crop", resample="bilinear")
    assert plain.picture is not None
    assert plain.picture[5, 5].tolist() == pytest.approx([250, 10, 10, 90], abs=3)


def test_the_note_of_a_shape_is_of_the_shape_that_is_wanted():
    wide = encoded(photograph(0, 800, 200), "png")
    for size, told in (("256x64", False), ("64", True)):
        found = examine(wide, size=Size.parse(size), fit="crop")
        assert ("aspect" in [f.kind for f in found.findings]) is told
    square = examine(encoded(photograph(0, 300, 300), "png"), size=Size.parse("256x64"), fit="crop")
    assert "the crop keeps 25% of it" in " ".join(f.message for f in square.findings)


def test_memory_that_does_not_suffice_is_tried_once_more(monkeypatch):
    tries = []

    def scarce(*given, **options):
        tries.append(given)
        if len(tries) == 1:
            raise MemoryError
        return fitted(*given, **options)

    monkeypatch.setattr("bonsaigan.data.picture.fitted", scarce)
    assert look(encoded(photograph(0, 64, 64), "png")).picture is not None
    assert len(tries) == 2


def test_what_is_invisible_has_no_colour_and_does_not_bleed():
    image = Image.new("RGBA", (128, 128), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 64, 128))
    found = look(encoded(image, "png"))
    values = pixels(found)
    assert found.transparent
    assert values[..., 0].max() == 0
    assert not values[values[..., 3] == 0].any()
    same = pixels(look(encoded(image.resize((64, 64), Image.Resampling.NEAREST), "png")))
    assert not same[same[..., 3] == 0].any()


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("form", ["jpeg", "png", "tiff", "webp"])
def test_every_exif_rotation_is_undone(turn, form):
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Transpose that Pillow's exif_transpose would undo
    upright = Image.new("RGB", (96, 160), "black")
    upright.paste((250, 250, 250), (0, 0, 48, 40))
    stored = upright.transpose(Image.Transpose(undo[turn])) if turn > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encoded(stored, form, exif=exif)
    found = look(data, fit="squash")
    assert (found.width_px, found.height_px) == (96, 160)
    wanted = pixels(look(encoded(upright, "png"), fit="squash")).astype(int)
    assert np.abs(pixels(found) - wanted).mean() < 6
    assert ("rotation" in [f.kind for f in found.findings]) == (turn > 1)
    assert decode(data).size == (96, 160)


def test_a_first_frame_is_taken_without_counting_the_others():
    frames = [photograph(i, 48, 48) for i in range(6)]
    for form in ("gif", "webp", "png"):
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
        assert "animation" in kinds(data)
    assert "animation" not in kinds(encoded(frames[0], "gif"))


# --- damage and malice -------------------------------------------------------------------------------------


def test_left_out_with_reasons():
    jpeg = encoded(photograph(1), "jpeg")
    for data, kind in {
        b"": "empty",
        b"hello": "not a picture",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n": "not a picture",
        b"PK\x03\x04rest": "not a picture",
        jpeg[: len(jpeg) // 2]: "truncated",
        jpeg[:2]: "not a picture",
        encoded(photograph(1, 15, 200), "png"): "tiny",
        png(200_000, 200_000): "gigantic",
        png(11_000, 11_000): "gigantic",
        png(64, 64, body=b"short"): "truncated",
    }.items():
        found = look(data)
        assert [f.kind for f in found.findings] == [kind], data[:20]
        assert found.findings[0].severity == "left out"
        assert found.picture is None


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"hevc"])
def test_what_phones_save_is_named(brand):
    (finding,) = look(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(400)).findings
    assert (finding.kind, finding.message) == (
        "not a picture",
        "HEIC, as many phones save; convert it to JPEG",
    )


def test_a_declared_giant_costs_nothing(monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("its pixels are asked for"))
    assert kinds(png(30_000, 30_000)) == ["gigantic"]


SEEDS = {form: encoded(photograph(5, 40, 30), form) for form in ("jpeg", "png", "gif", "bmp", "tiff", "webp")}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(SEEDS)), st.integers(0, 2**32))
def test_damage_never_escapes(form, seed):
    chance = random.Random(seed)
    data = bytearray(SEEDS[form])
    for _ in range(chance.randint(1, 12)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    if chance.random() < 0.3:
        data = data[: chance.randrange(len(data))]
    found = look(bytes(data))
    assert (found.picture is None) == any(f.severity == "left out" for f in found.findings)
    assert all(f.message.isprintable() for f in found.findings)


# --- fitting -----------------------------------------------------------------------------------------------


@given(st.integers(16, 3000), st.integers(16, 3000), sizes)
def test_the_crop_is_the_largest_central_one_of_the_right_shape(width, height, size):
    left, top, right, bottom = kept_box(width, height, size=size, fit="crop")
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert left + right == pytest.approx(width)
    assert top + bottom == pytest.approx(height)
    assert (right - left) / (bottom - top) == pytest.approx(size.width_px / size.height_px)
    assert left == pytest.approx(0) or top == pytest.approx(0)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(16, 300),
    st.integers(16, 300),
    sizes,
    st.sampled_from(FITS),
    st.sampled_from(["L", "RGB", "RGBA"]),
)
def test_any_fit_gives_the_wanted_shape_and_keeps_a_flat_colour(width, height, size, fit, mode):
    image = Image.new(
        mode, (width, height), {"L": 90, "RGB": (10, 90, 200), "RGBA": (10, 90, 200, 255)}[mode]
    )
    for resample in ("antialias", "bilinear"):
        made = fitted(image, size=size, fit=fit, resample=resample)
        assert made.shape == (size.height_px, size.width_px, len(mode))
        assert made.dtype == np.uint8
        inside = made[made[..., 3] > 0] if mode == "RGBA" else made.reshape(-1, len(mode))
        assert np.abs(inside.astype(int) - np.asarray(image)[0, 0]).max() <= 1


def test_pad_keeps_everything_with_a_border_of_the_edge_colour():
    image = Image.new("RGB", (200, 100), (200, 30, 30))
    made = fitted(image, size=SIZE, fit="pad", resample="antialias")
    assert np.abs(made.astype(int) - (200, 30, 30)).max() <= 1
    clear = fitted(image.convert("RGBA"), size=SIZE, fit="pad", resample="antialias")
    assert (clear[0, 0] == 0).all()
    assert clear[32, 32, 3] == 255


def test_antialiasing_does_not_alias():
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (512, 256)))
    smooth = fitted(stripes, size=SIZE, fit="squash", resample="antialias")
    assert smooth.std() < 2


def test_a_jpeg_decoded_at_a_fraction_looks_the_same():
    large = photograph(3, 1200, 900)
    reduced = pixels(look(encoded(large, "jpeg", quality=95)))
    full = fitted(large, size=SIZE, fit="crop", resample="antialias")
    assert np.abs(reduced.astype(int) - full).mean() < 1.5


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(64, 64), (96, 64), (48, 128)])
@pytest.mark.parametrize("shape", [(700, 500), (500, 700), (2000, 300)])
def test_a_fraction_is_never_below_twice_the_wanted_size(fit, size, shape, monkeypatch):
    import bonsaigan.data.picture as module

    seen: list[tuple[int, int]] = []
    original = module.fitted
    monkeypatch.setattr(
        module, "fitted", lambda image, **k: (seen.append(image.size), original(image, **k))[1]
    )
    wanted = Size(width_px=size[0], height_px=size[1])
    for turn in (1, 6):
        exif = Image.Exif()
        exif[0x0112] = turn
        look(encoded(photograph(1, *shape), "jpeg", exif=exif), size=wanted, fit=fit)
        width, height = seen[-1]
        across = (width / size[0], height / size[1])
        scale = max(across) if fit == "pad" else min(across)
        declared = shape if turn == 1 else shape[::-1]
        assert scale >= 2 or (width, height) == declared


def test_bilinear_is_opencvs():
    cv2 = pytest.importorskip("cv2")
    for seed, (width, height) in enumerate([(300, 220), (64, 64), (31, 47), (500, 375), (1000, 77)]):
        image = np.asarray(photograph(seed, width, height))
        for wanted in [(64, 64), (96, 64), (128, 256)]:
            mine = np.rint(bilinear(image.astype(np.float32), wanted, box=(0, 0, width, height)))
            theirs = cv2.resize(image, wanted, interpolation=cv2.INTER_LINEAR)
            assert np.abs(mine - theirs).max() <= 1


def test_bilinear_without_change_is_the_picture():
    image = np.asarray(photograph(1, 64, 48)).astype(np.float32)
    assert (bilinear(image, (64, 48), box=(0, 0, 64, 48)) == image).all()


def test_like_pictures_have_like_hashes():
    looks = [look(encoded(photograph(i), "png")).look for i in range(12)]
    again = look(encoded(photograph(0).resize((400, 300)), "jpeg", quality=60)).look
    assert (looks[0] ^ again).bit_count() <= 4
    assert min((a ^ b).bit_count() for a, b in itertools.combinations(looks, 2)) > 8


def test_decode_gives_the_whole_picture():
    assert decode(encoded(photograph(1), "jpeg")).size == (160, 120)
    assert decode(encoded(photograph(1, 1600, 1200), "jpeg"), at_least=(300, 300)).width < 1600


# --- no end of frames, no end of metadata ------------------------------------------------------------------


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def test_frames_without_end_are_not_counted():
    whole = encoded(photograph(1), "png")
    frames = png_chunk(b"acTL", struct.pack(">LL", 0x7FFFFFFF, 0))
    frames += png_chunk(b"fcTL", struct.pack(">LLLLLHHBB", 0, 160, 120, 0, 0, 1, 1, 0, 0))
    found = look(whole[:33] + frames + whole[33:])
    assert [f.kind for f in found.findings if f.severity != "note"] == ["animation"]
    assert pixels(found).shape == (64, 64, 3)


@pytest.mark.skipif(sys.platform == "win32", reason="libtiff is built into Pillow there")
def test_a_damaged_tiff_is_told_in_our_words_only(capfd: pytest.CaptureFixture[str]):
    data = bytearray(encoded(photograph(1), "tiff", compression="tiff_adobe_deflate"))
    data[len(data) // 3 : len(data) // 2] = b"\xff" * (len(data) // 2 - len(data) // 3)
    assert kinds(bytes(data)) == ["corrupt"]
    assert capfd.readouterr() == ("", "")


def test_a_tiff_whose_directories_go_round_in_circles():
    data = bytearray(encoded(photograph(1), "tiff"))
    (start,) = struct.unpack_from("<L", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    struct.pack_into("<L", data, start + 2 + 12 * count, start)
    assert pixels(look(bytes(data))).shape == (64, 64, 3)


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_a_bomb_in_the_metadata_costs_little(kind):
    whole = encoded(photograph(1), "png")
    bomb = zlib.compress(bytes(200 << 20), 9)
    tracemalloc.start()
    try:
        found = look(whole[:33] + png_chunk(kind, b"name\0\0" + bomb) + whole[33:])
        assert "its metadata is larger than is read here" in found.findings[0].message
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
