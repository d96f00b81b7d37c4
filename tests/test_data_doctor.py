"""A whole set: what is found, what is said, what is shown."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bonsaigan.config import DataConfig, Size
from bonsaigan.data import survey as survey_module
from bonsaigan.data.doctor import Diagnosis, crop_figure, doctor
from bonsaigan.data.sources import open_source
from bonsaigan.data.survey import _bit_count, _near_pairs
from bonsaigan.errors import DataError
from tests.hostile import encoded, make_folder, photograph


def examine_folder(path: Path, **settings) -> Diagnosis:
    return doctor(open_source(str(path)), DataConfig(source=str(path), **settings))


def fill(folder: Path, pictures: dict[str, Image.Image]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        (folder / name).write_bytes(encoded(picture, "png"))
    return folder


def test_each_of_thirty_hostile_files_is_named_and_every_good_one_used(tmp_path):
    hostile = make_folder(tmp_path / "set", good=20)
    assert len(hostile) == 30
    found = examine_folder(tmp_path / "set")
    said: dict[str, list[str]] = {}
    for name, kind, _, message in found.rows():
        assert name.isprintable()
        assert message.isprintable()
        said.setdefault(name, []).append(kind)
    assert {name: kind for name, kind in hostile.items() if kind not in said.get(name, [])} == {}
    assert set(said) == set(hostile)
    assert sum(file.used for file in found.files if file.name.startswith("good")) == 20
    assert len(found.files) == 50
    assert found.mode == "RGB"
    severities = [row[2] for row in found.rows()]
    assert severities == sorted(severities, key=["left out", "fixed", "note"].index)


def test_the_longest_pictures_are_shown_too(tmp_path):
    long = {"wide.png": photograph(0).resize((1920, 16)), "tall.png": photograph(1).resize((16, 1920))}
    folder = fill(tmp_path / "set", {f"{i}.png": photograph(i) for i in range(8)} | long)
    found = examine_folder(folder)
    assert sum(file.used for file in found.files) == 10
    assert crop_figure(open_source(str(folder)), found).width > 0


def test_the_summary_is_plain(tmp_path):
    make_folder(tmp_path / "set", good=10)
    summary = examine_folder(tmp_path / "set").summary
    assert "of 40 files will be used, cropped about the centre to 64 pixels in colour." in summary
    assert "5 not a picture" in summary
    assert "2 tiny" in summary
    few = fill(tmp_path / "few", {f"{i}.png": photograph(i) for i in range(3)})
    assert "too few" in examine_folder(few).summary


@pytest.mark.parametrize(
    ("grey", "clear", "colour", "mode"),
    [
        (5, 0, 0, "L"),
        (5, 0, 1, "RGB"),
        (0, 3, 3, "RGBA"),
        (0, 2, 3, "RGB"),
        (3, 3, 0, "RGBA"),
        (0, 0, 2, "RGB"),
    ],
)
def test_the_mode_follows_the_pictures(tmp_path, grey, clear, colour, mode):
    glass = photograph(50).convert("RGBA")
    glass.putalpha(Image.radial_gradient("L").resize(glass.size))
    pictures = {f"g{i}.png": photograph(i, channels=1).convert("RGB") for i in range(grey)}
    pictures |= {f"a{i}.png": Image.blend(glass, photograph(i).convert("RGBA"), 0.3) for i in range(clear)}
    pictures |= {f"c{i}.png": photograph(90 + i) for i in range(colour)}
    found = examine_folder(fill(tmp_path / "set", pictures))
    assert found.mode == mode
    assert examine_folder(tmp_path / "set", mode="L").mode == "L"


def test_an_archive_and_its_folder_are_judged_alike(tmp_path):
    make_folder(tmp_path / "set", good=8)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in (tmp_path / "set").rglob("*"):
            if path.is_file() and path.name.isprintable() and "\\" not in repr(path.name):
                archive.write(path, path.relative_to(tmp_path / "set"))
    from_zip = {file.name: file for file in examine_folder(tmp_path / "set.zip").files}
    from_folder = {file.name: file for file in examine_folder(tmp_path / "set").files}
    assert len(from_zip) > 30
    for name, file in from_zip.items():
        assert dataclasses.replace(file, size_bytes=0) == dataclasses.replace(from_folder[name], size_bytes=0)


def test_the_first_of_equal_files_is_kept(tmp_path):
    pictures = {"b2.png": photograph(0), "b10.png": photograph(0), "c.png": photograph(1)}
    found = examine_folder(fill(tmp_path / "set", pictures))
    assert [(file.name, file.used) for file in found.files] == [
        ("b2.png", True),
        ("b10.png", False),
        ("c.png", True),
    ]
    assert found.files[1].findings[0].message == "the same file as b2.png"


def test_a_folder_without_files(tmp_path):
    with pytest.raises(DataError, match="holds no files"):
        examine_folder(tmp_path)


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path, monkeypatch):
    folder = fill(tmp_path / "set", {f"{i}.png": photograph(i) for i in range(9)})
    original = survey_module.survey

    def meddle(*arguments, **options):
        (folder / "4.png").write_bytes(b"other")
        return original(*arguments, **options)

    monkeypatch.setattr("bonsaigan.data.doctor.survey", meddle)
    with pytest.raises(DataError, match=r"4\.png: changed while"):
        examine_folder(folder)


def test_what_is_in_flight_is_bounded(tmp_path, monkeypatch):
    class Counted:
        now = most = 0

    from bonsaigan.data.files import SourceFile
    from bonsaigan.data.sources import Source

    data = [encoded(photograph(i, 64, 64), "png") for i in range(60)]

    def files():
        for index, content in enumerate(data):
            Counted.now += 1
            Counted.most = max(Counted.most, Counted.now)

            def read(content=content):
                Counted.now -= 1
                return content

            yield SourceFile(name=f"{index}.png", size_bytes=1 << 20, read=read)

    monkeypatch.setattr(survey_module, "IN_FLIGHT_BYTES", 4 << 20)
    monkeypatch.setattr(survey_module, "BATCH_BYTES", 2 << 20)
    found = doctor(Source(name="x", description="x", files=files), DataConfig(source="x"))
    assert found.used == 60
    assert Counted.most <= 7


def test_progress_is_told(tmp_path):
    folder = fill(tmp_path / "set", {f"{i}.png": photograph(i) for i in range(9)})
    seen: list[tuple[int, int | None]] = []
    doctor(open_source(str(folder)), DataConfig(source="x"), progress=lambda *at: seen.append(at))
    assert seen[0] == (9, None)
    assert seen[-1] == (9, 9)


def test_near_pairs_are_all_found():
    rng = np.random.default_rng(0)
    looks = rng.integers(0, 2**63, 200).astype(np.uint64)
    looks[150] = looks[20] ^ np.uint64(0b1001)
    looks[160] = looks[20]
    looks[170] = looks[30] ^ np.uint64(0b11111)
    assert _near_pairs(looks) == [(150, 20), (160, 20)]
    assert _near_pairs(looks[:0]) == []


def test_bits_are_counted_without_numpy_two(monkeypatch):
    values = np.random.default_rng(0).integers(0, 2**63, 50).astype(np.uint64)
    wanted = [int(value).bit_count() for value in values]
    assert _bit_count(values).tolist() == wanted
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert _bit_count(values).tolist() == wanted


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_the_crop_figure_dims_what_is_cut_away(tmp_path, fit):
    pictures = {f"{i}.png": Image.new("RGB", (200 + 10 * i, 100), (0, 90, 0)) for i in range(9)}
    folder = fill(tmp_path / "set", pictures)
    found = examine_folder(folder, fit=fit)
    figure = crop_figure(open_source(str(folder)), found, count=7, cell_px=80)
    assert figure.mode == "RGB"
    assert figure.size == (6 * 88 + 8, 2 * 88 + 8)
    values = np.asarray(figure)
    assert (values[48, 48] == (0, 90, 0)).all()
    assert (values[48, 14, 1] > 150) == (fit == "crop")


def test_the_crop_figure_copes_with_what_is_hostile(tmp_path):
    make_folder(tmp_path / "set", good=8)
    found = examine_folder(tmp_path / "set", size=Size(width_px=96, height_px=64))
    assert crop_figure(open_source(str(tmp_path / "set")), found).width > 900
