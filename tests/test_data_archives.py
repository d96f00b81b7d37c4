"""Archives, well-meant and hostile: read in place, bounded, nothing written."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonsaigan.data import archives
from bonsaigan.data.files import Refused, SourceFile
from bonsaigan.data.sources import open_source
from bonsaigan.errors import DataError
from tests.hostile import encoded, photograph

PICTURES = {f"set/photo {i}.jpg": encoded(photograph(i, 40, 30), "jpeg") for i in range(5)}


def read_all(path: Path) -> dict[str, bytes | str]:
    """Name → content, or why it was refused."""
    found: dict[str, bytes | str] = {}
    for file in open_source(str(path)).files():
        found[file.name] = content(file)
    return found


def content(file: SourceFile) -> bytes | str:
    try:
        return file.read()
    except Refused as reason:
        return str(reason)


def tar_bytes(fill: Callable[[tarfile.TarFile], object], *, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        fill(archive)
    return buffer.getvalue()


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in fields.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(data))


def plain_tar(form: int = tarfile.PAX_FORMAT) -> bytes:
    return tar_bytes(lambda t: [add(t, name, data) for name, data in PICTURES.items()], form=form)


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        (".tar", bytes),
        (".tar.gz", gzip.compress),
        (".tgz", lambda d: gzip.compress(d[:5000]) + gzip.compress(d[5000:])),
        (".tar.bz2", bz2.compress),
        (".tar.xz", lzma.compress),
        (".TAR.XZ", lambda d: lzma.compress(d[:5000]) + lzma.compress(d[5000:])),
    ],
)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_every_tar_gives_back_what_went_in(tmp_path, suffix, pack, form):
    path = tmp_path / f"my set{suffix}"
    path.write_bytes(pack(plain_tar(form)))
    assert read_all(path) == PICTURES
    assert open_source(str(path)).name == "my-set"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_gives_back_what_went_in_and_leaves_clutter(tmp_path, method):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(zipfile.ZipInfo("set/"), b"")
        archive.writestr("__MACOSX/set/._photo.jpg", b"x")
        for name, data in PICTURES.items():
            archive.writestr(f"./{name}", data)
    assert read_all(path) == PICTURES


def test_kind_is_known_by_content_not_by_name(tmp_path):
    path = tmp_path / "pictures.dat"
    path.write_bytes(gzip.compress(plain_tar()))
    assert read_all(path) == PICTURES


def test_hostile_tar_members_are_left_out_and_named(tmp_path):
    def fill(archive: tarfile.TarFile) -> None:
        add(archive, "/etc/passwd", b"x")
        add(archive, "../../outside.jpg", b"x")
        add(archive, "C:\\windows\\x.jpg", b"x")
        add(archive, "link.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(archive, "hard.jpg", type=tarfile.LNKTYPE, linkname="good.jpg")
        add(archive, "device", type=tarfile.CHRTYPE, devmajor=1, devminor=5)
        add(archive, "pipe", type=tarfile.FIFOTYPE)
        add(archive, "good.jpg", b"good")

    path = tmp_path / "x.tar"
    path.write_bytes(tar_bytes(fill))
    found = read_all(path)
    assert found.pop("good.jpg") == b"good"
    assert len(found) == 7
    assert all(isinstance(reason, str) for reason in found.values())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.tar"]


def test_hostile_zip_members_are_left_out_and_named(tmp_path, monkeypatch):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../outside.jpg", b"x")
        archive.writestr("/absolute.jpg", b"x")
        archive.writestr("D:/drive.jpg", b"x")
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, b"/etc/passwd")
        archive.writestr("rare.jpg", b"x" * 99, zipfile.ZIP_LZMA)
        archive.writestr("large.jpg", bytes(2000))
        archive.writestr("good.jpg", b"good")
    monkeypatch.setattr(archives, "FILE_MAX_BYTES", 1000)
    found = read_all(path)
    assert found.pop("good.jpg") == b"good"
    assert len(found) == 6
    assert all(isinstance(reason, str) for reason in found.values())


def test_encrypted_and_damaged_zip_members_do_not_harm_the_others(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("secret.jpg", "damaged.jpg", "good.jpg"):
            archive.writestr(name, name.encode() * 20)
    data = bytearray(path.read_bytes())
    data[data.find(b"damaged.jpgdamaged.jpg") + 30] ^= 0xFF
    entry = data.rfind(b"PK\x01\x02", 0, data.rfind(b"secret.jpg"))
    struct.pack_into("<H", data, entry + 8, 1)
    path.write_bytes(data)
    found = read_all(path)
    assert found["good.jpg"] == b"good.jpg" * 20
    assert found["secret.jpg"] == "encrypted"
    assert "damaged" in str(found["damaged.jpg"])


def test_bombs_end_in_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "UNPACKED_MIN_BYTES", 1 << 20)
    zeros = bytes(8 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.bmp", zeros)
    tar = tar_bytes(lambda t: add(t, "zeros.bmp", zeros))
    (tmp_path / "bomb.tar.gz").write_bytes(gzip.compress(tar))
    (tmp_path / "bomb.tar.bz2").write_bytes(bz2.compress(tar))
    (tmp_path / "bomb.tar.xz").write_bytes(lzma.compress(tar))
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(DataError, match="unpacks to more than"):
            read_all(path)


def test_a_member_without_a_name_is_no_matter(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("n", b"nameless")
        archive.writestr("good.jpg", b"good")
    data = bytearray(path.read_bytes())
    struct.pack_into("<HH", data, data.find(b"PK\x01\x02") + 28, 0, 1)  # its name becomes an extra field
    path.write_bytes(data)
    assert read_all(path)["good.jpg"] == b"good"


def test_a_zip_that_lies_about_a_size_gives_no_more_than_it_says(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.bmp", bytes(1 << 20))
    data = bytearray(path.read_bytes())
    struct.pack_into("<L", data, data.rfind(b"PK\x01\x02") + 24, 100)
    path.write_bytes(data)
    assert "damaged" in str(read_all(path)["zeros.bmp"])


def test_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MEMBERS_MAX", 50)
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for index in range(60):
            archive.writestr(f"{index}.jpg", b"")
    (tmp_path / "many.tar").write_bytes(tar_bytes(lambda t: [add(t, f"{i}.jpg") for i in range(60)]))
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(DataError, match="more than 50 members"):
            read_all(path)


def test_a_million_entries_are_refused_before_they_are_read(tmp_path):
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory = entry * 1_000_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(directory), len(local), 0)
    path = tmp_path / "million.zip"
    path.write_bytes(local + directory + end)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="more than 250,000 members"):
            read_all(path)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(
            directory
        )  # the entries would take ten times that
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_a_million_entries_of_a_tar(tmp_path):
    header = tar_bytes(lambda t: add(t, "a.jpg"))[:512]
    path = tmp_path / "million.tar.gz"
    with gzip.open(path, "wb", 1) as file:
        for _ in range(1000):
            file.write(header * 1000)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="more than 250,000 members"):
        read_all(path)


def test_a_header_of_impossible_size_is_not_read_into_memory(tmp_path):
    def fill(archive: tarfile.TarFile) -> None:
        add(archive, "good.jpg", b"good")
        add(archive, "long", b"x" * (4 << 20), type=tarfile.GNUTYPE_LONGNAME)

    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(tar_bytes(fill)))
    with pytest.raises(DataError, match="impossible size"):
        read_all(tmp_path / "x.tar.gz")


def test_an_xz_dictionary_is_bounded(tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 29}]
    (tmp_path / "x.tar.xz").write_bytes(lzma.compress(plain_tar(), filters=filters))
    with pytest.raises(DataError, match="damaged"):
        read_all(tmp_path / "x.tar.xz")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
def test_the_checksum_at_the_end_of_a_packed_tar_is_looked_at(tmp_path: Path, pack: Callable[[bytes], bytes]):
    data = bytearray(pack(plain_tar()))
    (tmp_path / "good.tar").write_bytes(data)
    assert read_all(tmp_path / "good.tar")
    data[-6 if pack is gzip.compress else -14] ^= 1
    (tmp_path / "bad.tar").write_bytes(data)
    with pytest.raises(DataError, match="damaged after"):
        read_all(tmp_path / "bad.tar")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.xz", "tar.bz2"])
def test_an_archive_that_ends_early_says_so(tmp_path, suffix, share):
    path = tmp_path / f"x.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in PICTURES.items():
                archive.writestr(name, data)
        whole = path.read_bytes()
    else:
        packers = {"tar": bytes, "tar.gz": gzip.compress, "tar.xz": lzma.compress, "tar.bz2": bz2.compress}
        body = plain_tar()
        whole = packers[suffix](body[: len(body.rstrip(b"\0")) + 600])
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError) as caught:
        read_all(path)
    assert "x." in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["zip", "tar", "gz"]), st.integers(0, 2**32))
def test_no_damage_escapes_as_another_error(tmp_path_factory, kind, seed):
    path = tmp_path_factory.getbasetemp() / f"fuzz.{kind}"
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in PICTURES.items():
                archive.writestr(name, data[:200])
    else:
        buffer.write(tar_bytes(lambda t: [add(t, name, data[:200]) for name, data in PICTURES.items()]))
    data = bytearray(gzip.compress(buffer.getvalue(), mtime=0) if kind == "gz" else buffer.getvalue())
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(4, len(data))] = chance.randrange(256)
    path.write_bytes(data)
    said = ""
    try:
        read_all(path)
    except DataError as error:
        said = str(error)
    assert said.isprintable()
