"""Folders, names, Caltech-101, the embedded set: what DATA may be and what a typo says."""

from __future__ import annotations

import os
import string
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonsaigan.config import Size
from bonsaigan.data.files import expanded, find_cache_dir, is_clutter, natural_key, printable
from bonsaigan.data.sources import open_source, slug
from bonsaigan.errors import DataError, DownloadError
from tests.hostile import encoded, photograph

CALTECH = Path(__file__).parents[2] / "shared" / "data" / "caltech-101.zip"
JPEG = encoded(photograph(0, 40, 30), "jpeg")


def names(data: object, **options) -> list[str]:
    return [file.name for file in open_source(str(data), **options).files()]


def fake_caltech(path: Path, categories: dict[str, int]) -> Path:
    """An archive in the official layout."""
    inner = path.with_name("101_ObjectCategories.tar.gz")
    with tarfile.open(inner, "w:gz") as tar:
        for category, count in categories.items():
            for index in range(count):
                picture = path.with_name("picture.jpg")
                picture.write_bytes(encoded(photograph(index, 40, 30), "jpeg"))
                tar.add(picture, f"101_ObjectCategories/{category}/image_{index + 1:04d}.jpg")
    with zipfile.ZipFile(path, "w") as outer:
        outer.write(inner, "caltech-101/101_ObjectCategories.tar.gz")
    return path


def test_folder_is_searched_to_the_bottom_in_natural_order(tmp_path):
    for name in (
        "b10.jpg",
        "b2.jpg",
        "A1.JPG",
        "sub/deep/c.png",
        ".hidden/x.jpg",
        "Thumbs.db",
        "__MACOSX/y.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(JPEG)
    assert names(tmp_path) == ["A1.JPG", "b2.jpg", "b10.jpg", "sub/deep/c.png"]
    assert next(open_source(str(tmp_path)).files()).read() == JPEG


def test_a_run_among_the_pictures_is_not_trained_on(tmp_path):
    for name in ("a.jpg", "runs/set-1/config.json", "runs/set-1/data.json", "runs/set-1/samples/000010.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(JPEG)
    assert names(tmp_path) == ["a.jpg"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_links_are_followed_but_not_round_in_circles(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(JPEG)
    (tmp_path / "pictures" / "up").symlink_to(tmp_path / "pictures")
    (tmp_path / "pictures" / "self").symlink_to(tmp_path / "pictures" / "self")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.jpg").write_bytes(JPEG)
    (tmp_path / "pictures" / "more").symlink_to(tmp_path / "elsewhere")
    files = {file.name: file for file in open_source(str(tmp_path / "pictures")).files()}
    assert sorted(files) == ["a.jpg", "more/b.jpg", "self"]
    assert files["self"].refusal is not None


@pytest.mark.skipif(sys.platform != "linux", reason="a Linux file name")
def test_names_that_are_not_text_are_read_and_shown_safely(tmp_path):
    name = os.fsdecode(b"\xff\x1b[2J.jpg")
    (tmp_path / name).write_bytes(JPEG)
    (file,) = open_source(str(tmp_path)).files()
    assert file.read() == JPEG
    assert printable(file.name) == "\\xff\\x1b[2J.jpg"


@given(st.text(), st.text())
def test_printable_is_safe_and_keeps_names_apart(one, other):
    assert printable(one).isprintable()
    assert (printable(one) == printable(other)) == (one == other)


@given(st.lists(st.text(string.ascii_letters + string.digits + "/-", max_size=12), unique=True))
def test_natural_order_is_an_order_and_counts_upwards(some):
    turned = some[::-1]
    assert sorted(some, key=natural_key) == sorted(turned, key=natural_key)
    numbered = [f"p{n}.jpg" for n in (1, 2, 9, 10, 11, 100)]
    assert sorted(sorted(numbered), key=natural_key) == numbered


def test_natural_order_takes_any_number_of_digits():
    assert natural_key("9" * 5000) < natural_key("1" + "0" * 5000)


def test_clutter_is_known_by_its_name():
    assert is_clutter("a/.DS_Store")
    assert is_clutter("__MACOSX/b.jpg")
    assert not is_clutter("a/b.jpg")


def test_typos_name_what_is_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bonsai-photos" / "inner").mkdir(parents=True)
    for wrong, near in {
        "bonsai-fotos": "bonsai-photos",
        "bonsai-photo/inner": "bonsai-photos",
        "caltech:bonsai": "caltech101:bonsai",
    }.items():
        with pytest.raises(DataError, match=f"did you mean {near}") as caught:
            open_source(wrong)
        assert "\n" not in str(caught.value)
    for odd in ("nowhere/at/all", "x\x00y", "", "a" * 5000, "evil\x1b[31m"):
        with pytest.raises(DataError) as caught:
            open_source(odd)
        assert str(caught.value).isprintable()


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "one.jpg").write_bytes(JPEG)
    with pytest.raises(DataError, match="single file"):
        open_source(str(tmp_path / "one.jpg"))


def test_an_unknown_demo_or_count_says_the_limits():
    for wrong in ("demo:rose", "demo:bonsai:4", "demo:bonsai:x", "demo:bonsai:9999999"):
        with pytest.raises(DataError, match="demo:bonsai"):
            open_source(wrong)


def test_demo_is_drawn_at_the_wanted_size_and_known_without_drawing():
    source = open_source("demo:bonsai:8", size=Size(width_px=48, height_px=32))
    files = list(source.files())
    assert len(files) == 8
    assert len({file.identity for file in files}) == 8
    assert source.licence
    pytest.importorskip("bonsaigan.data.bonsai")
    assert files[3].read() == files[3].read()
    import io

    from PIL import Image

    assert Image.open(io.BytesIO(files[3].read())).size == (48, 32)


def test_caltech_category_out_of_a_local_archive(tmp_path, monkeypatch):
    archive = fake_caltech(tmp_path / "c.zip", {"bonsai": 3, "butterfly": 2})
    source = open_source("caltech101:bonsai", archive=str(archive))
    assert [file.name for file in source.files()] == [f"image_000{n}.jpg" for n in (1, 2, 3)]
    assert source.name == "bonsai"
    assert "CC BY 4.0" in (source.licence or "")
    assert "10.22002/D1.20086" in (source.citation or "")
    monkeypatch.setenv("BONSAIGAN_CALTECH101", str(archive))
    assert len(names("caltech101:butterfly")) == 2
    with pytest.raises(DataError, match="nearest: bonsai"):
        names("caltech101:bonzai")


def test_caltech_accepts_the_inner_archive_too(tmp_path):
    fake_caltech(tmp_path / "c.zip", {"bonsai": 3})
    assert len(names("caltech101:bonsai", archive=str(tmp_path / "101_ObjectCategories.tar.gz"))) == 3


def test_caltech_archive_that_is_none(tmp_path):
    (tmp_path / "other.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    (tmp_path / "text.zip").write_bytes(b"not an archive")
    cut = fake_caltech(tmp_path / "c.zip", {"bonsai": 9}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(cut[: len(cut) // 2])
    for wrong in ("other.zip", "text.zip", "cut.zip", "c.zpi"):
        with pytest.raises(DataError) as caught:
            names("caltech101:bonsai", archive=str(tmp_path / wrong))
        assert wrong in str(caught.value)


def test_caltech_offline_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("BONSAIGAN_CALTECH101", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr("bonsaigan.data.download.time.sleep", lambda seconds: None)
    with pytest.raises(DownloadError, match=r"--archive FILE.*demo:bonsai"):
        open_source("caltech101:bonsai", cache_dir=tmp_path)


def test_archive_flag_goes_with_caltech_only(tmp_path):
    with pytest.raises(DataError, match="--archive"):
        open_source(str(tmp_path), archive="x.zip")


@pytest.mark.skipif(not CALTECH.exists(), reason="needs ../shared/data/caltech-101.zip")
def test_the_real_archive():
    assert len(names("caltech101:bonsai", archive=str(CALTECH))) == 128


def test_cache_place_obeys_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("BONSAIGAN_CACHE", str(tmp_path / "chosen"))
    assert find_cache_dir() == tmp_path / "chosen"
    assert find_cache_dir(tmp_path) == tmp_path
    assert expanded("~/photos") == Path.home() / "photos"
    assert expanded("~no-such-user/photos") == Path("~no-such-user/photos")
    monkeypatch.delenv("BONSAIGAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "linux":
        assert find_cache_dir() == tmp_path / "xdg" / "bonsaigan"


@given(st.text())
def test_slug_is_safe_in_a_path(name):
    made = slug(name)
    assert made
    assert set(made) <= set(string.ascii_letters + string.digits + "_.-")
    assert not made.startswith((".", "-"))
