"""The prepared array, its cache, its manifest, and the two conversions."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bonsaigan.config import DataConfig, Size
from bonsaigan.data import prepare as prepare_module
from bonsaigan.data.prepare import PreparedSet, _in_mode, prepare, to_float, to_uint8
from bonsaigan.data.resize import Resample
from bonsaigan.data.sources import open_source
from bonsaigan.errors import DataError
from bonsaigan.locks import hold, machine
from tests.hostile import encoded, make_folder, photograph

ARCHIVE = Path(__file__).parents[2] / "shared" / "data" / "caltech-101.zip"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "set"
    made.mkdir()
    for index in range(12):
        (made / f"photo {index}.png").write_bytes(encoded(photograph(index), "png"))
    return made


def prepared(
    data: Path | str, cache: Path, *, resample: Resample = "antialias", **changes: Any
) -> PreparedSet:
    config = DataConfig(source=str(data), **changes)
    return prepare(open_source(str(data), size=config.size), config, cache_dir=cache, resample=resample)


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonsaigan.data.survey.examine", lambda *a, **k: pytest.fail("decoded again"))


def test_the_array_holds_the_pictures_in_natural_order(folder, tmp_path):
    made = prepared(folder, tmp_path / "cache", size=Size(width_px=96, height_px=64))
    assert made.pictures.shape == (12, 64, 96, 3)
    assert made.pictures.dtype == np.uint8
    assert made.channels == 3
    assert not made.pictures.flags.writeable
    assert [file["name"] for file in made.manifest["files"]] == [f"photo {i}.png" for i in range(12)]
    tenth = photograph(10).resize((96, 64), Image.Resampling.LANCZOS, box=(0, 20 / 3, 160, 120 - 20 / 3))
    assert np.abs(made.pictures[10].astype(int) - np.asarray(tenth)).mean() < 2


def test_a_second_start_decodes_nothing(folder, tmp_path, monkeypatch):
    first = prepared(folder, tmp_path / "cache")
    forbid_decoding(monkeypatch)
    second = prepared(folder, tmp_path / "cache")
    assert second.digest == first.digest
    assert second.manifest == first.manifest
    assert (second.pictures == first.pictures).all()
    assert json.loads(json.dumps(second.manifest)) == second.manifest


def test_the_cache_goes_by_content_and_settings(folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = prepared(folder, cache)
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    assert prepared(moved, cache).digest == first.digest
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted(folder.iterdir(), reverse=True):
            archive.write(path, path.name)
    packed = prepared(tmp_path / "set.zip", cache)
    assert packed.digest == first.digest
    assert "archive" in packed.manifest["source"]
    digests = {first.digest}
    settings: list[dict[str, Any]] = [
        {"fit": "pad"},
        {"mode": "L"},
        {"size": Size(width_px=32, height_px=32)},
    ]
    for changes in settings:
        digests.add(prepared(folder, cache, **changes).digest)
    digests.add(prepared(folder, cache, resample="bilinear").digest)
    (moved / "photo 3.png").write_bytes(encoded(photograph(99), "png"))
    digests.add(prepared(moved, cache).digest)
    assert len(digests) == 6


def test_archive_order_does_not_matter(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted(folder.iterdir(), reverse=True):
            archive.write(path, path.name)
    from_zip = prepared(tmp_path / "set.zip", tmp_path / "one")
    from_folder = prepared(folder, tmp_path / "two")
    assert (from_zip.pictures == from_folder.pictures).all()
    assert from_zip.manifest["files"] == from_folder.manifest["files"]


@pytest.mark.parametrize("harm", ["cut", "manifest", "missing", "other"])
def test_a_damaged_cache_is_made_again(folder, tmp_path, harm):
    cache = tmp_path / "cache"
    first = prepared(folder, cache)
    wanted = np.array(first.pictures)
    (entry,) = (cache / "prepared").iterdir()
    array = entry / "pictures.npy"
    del first
    if harm == "cut":
        os.truncate(array, array.stat().st_size - 100)
    elif harm == "manifest":
        (entry / "manifest.json").write_text("{")
    elif harm == "missing":
        array.unlink()
    else:
        np.save(array, np.array([{}], dtype=object), allow_pickle=True)
    assert (prepared(folder, cache).pictures == wanted).all()
    assert [path.name for path in (cache / "prepared").iterdir()] == [entry.name]


def test_what_a_killed_process_left_is_swept_away(folder, tmp_path):
    names = (f"a.{machine()}.1", f"b.{machine()}.2", "c.elsewhere.3", "d.elsewhere.4")
    left, alive, theirs, forgotten = (tmp_path / f"cache/prepared/{name}.part" for name in names)
    for path in (left, alive, theirs, forgotten):
        path.mkdir(parents=True)
    os.utime(forgotten, (0, time.time() - 2 * prepare_module.LEFT_SEC))
    (tmp_path / "cache/locks").mkdir()
    with hold(tmp_path / "cache/locks/b"):
        prepared(folder, tmp_path / "cache")
    # Locks may not reach from machine to machine, so what another one has begun is left alone for a day.
    assert [path.exists() for path in (left, alive, theirs, forgotten)] == [False, True, True, False]


def test_two_that_want_one_set_prepare_it_once(folder, tmp_path, monkeypatch):
    built = []
    build = prepare_module._build
    monkeypatch.setattr(prepare_module, "_build", lambda *a, **k: (built.append(1), build(*a, **k)))
    with ThreadPoolExecutor() as pool:
        one, other = pool.map(lambda _: prepared(folder, tmp_path / "cache"), range(2))
    assert len(built) == 1
    assert (one.pictures == other.pictures).all()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the super-user writes anywhere")
def test_a_cache_that_others_filled_need_not_be_written(folder, tmp_path):
    cache = tmp_path / "cache"
    first = prepared(folder, cache)
    for path in (cache, *cache.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    assert prepared(folder, cache).digest == first.digest


def test_a_process_that_was_quicker_wins(folder, tmp_path, monkeypatch):
    first = prepared(folder, tmp_path / "cache")
    answers = iter([None])
    load = prepare_module._load
    monkeypatch.setattr(prepare_module, "_load", lambda *a: next(answers, load(*a)))
    second = prepared(folder, tmp_path / "cache")
    assert (first.pictures == second.pictures).all()
    assert len(list((tmp_path / "cache" / "prepared").iterdir())) == 1


def test_a_full_disk_says_so_and_leaves_nothing(folder, tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bonsaigan.data.prepare._write_through", full)
    with pytest.raises(DataError, match=r"No space left.*BONSAIGAN_CACHE"):
        prepared(folder, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "prepared").iterdir())


def test_a_cache_that_cannot_be_written_says_so(folder, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match="BONSAIGAN_CACHE"):
        prepared(folder, tmp_path / "cache")


def test_hostile_files_are_left_out_and_listed(tmp_path):
    hostile = make_folder(tmp_path / "set", good=12)
    made = prepared(tmp_path / "set", tmp_path / "cache")
    left_out = {entry["name"]: entry for entry in made.manifest["left_out"]}
    assert all(entry["kind"] == hostile[name] and entry["reason"] for name, entry in left_out.items())
    assert len(left_out) == 18
    counts = made.manifest["counts"]
    assert counts == {"files": 42, "used": 24, "left_out": 18, "train": 24, "holdout": 0}
    noted = {file["name"] for file in made.manifest["files"] if "notes" in file}
    assert noted | set(left_out) == set(hostile)
    assert json.dumps(made.manifest).isprintable()


def test_too_few_pictures_count_the_reasons(tmp_path):
    make_folder(tmp_path / "set", good=0)
    for path in (tmp_path / "set").rglob("*"):
        if path.suffix.lower() in (".png", ".tiff", ".tif", ".jfif", ".webp"):
            path.unlink()
    with pytest.raises(
        DataError, match=r"usable pictures among .*left out: .*4 not a picture.*at least 8 are"
    ) as caught:
        prepared(tmp_path / "set", tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache" / "prepared").iterdir())


def test_holdout_goes_by_content_and_not_by_order(folder, tmp_path):
    made = prepared(folder, tmp_path / "cache", holdout=0.25)
    assert len(made.holdout_index) == 3
    assert sorted([*made.train_index, *made.holdout_index]) == list(range(12))
    held = {file["sha256"] for file in made.manifest["files"] if file["holdout"]}
    assert len(held) == 3
    for number, path in enumerate(sorted(folder.iterdir(), reverse=True)):
        path.rename(path.with_name(f"renamed {number}.png"))
    again = prepared(folder, tmp_path / "cache", holdout=0.25)
    assert {file["sha256"] for file in again.manifest["files"] if file["holdout"]} == held
    with pytest.raises(DataError, match=r"--holdout 0\.5 leaves 6"):
        prepared(folder, tmp_path / "cache", holdout=0.5)


def test_the_same_holdout_needs_no_new_preparation(folder, tmp_path, monkeypatch):
    prepared(folder, tmp_path / "cache")
    forbid_decoding(monkeypatch)
    assert len(prepared(folder, tmp_path / "cache", holdout=0.2).holdout_index) == 2


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 4)])
def test_a_chosen_mode_is_kept(tmp_path, mode, channels):
    make_folder(tmp_path / "set", good=8)
    made = prepared(tmp_path / "set", tmp_path / "cache", mode=mode)
    assert made.channels == channels
    assert made.manifest["mode"] == mode


def test_modes_change_as_they_should():
    colour = np.asarray(photograph(1)).copy()
    assert (_in_mode(colour, 1)[..., 0] == np.asarray(photograph(1).convert("L"))).all()
    assert (_in_mode(colour, 4)[..., :3] == colour).all()
    assert (_in_mode(colour, 4)[..., 3] == 255).all()
    grey = colour[..., :1]
    assert (_in_mode(grey, 3) == grey).all()
    assert _in_mode(grey, 4).shape[2] == 4
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[0, 0] = (255, 0, 0, 128)
    assert (_in_mode(clear, 3)[1, 1] == 255).all()
    assert _in_mode(clear, 3)[0, 0].tolist() == [255, 127, 127]
    assert _in_mode(clear, 1)[1, 1] == 255


def test_bilinear_is_the_articles_with_its_range(folder, tmp_path):
    for path in folder.iterdir():
        dim = Image.open(path).point([40 + value // 2 for value in range(256)] * 3)
        path.write_bytes(encoded(dim, "png"))
    made = prepared(folder, tmp_path / "cache", fit="squash", resample="bilinear")
    assert made.pictures.min() == 0
    assert made.pictures.max() == 255
    cv2 = pytest.importorskip("cv2")
    files = [folder / f"photo {i}.png" for i in range(12)]
    raw = np.stack(
        [cv2.resize(np.asarray(Image.open(f)), (64, 64), interpolation=cv2.INTER_LINEAR) for f in files]
    )
    wanted = (raw.astype(float) - raw.min()) / (int(raw.max()) - int(raw.min())) * 255
    assert np.abs(made.pictures - wanted).max() <= 3.5  # a level of rounding, stretched


def test_the_embedded_set_is_prepared_and_found_again_without_drawing(tmp_path, monkeypatch):
    pytest.importorskip("bonsaigan.data.bonsai")
    made = prepared("demo:bonsai:8", tmp_path / "cache", size=Size(width_px=32, height_px=32))
    assert made.pictures.shape == (8, 32, 32, 3)
    assert len({file["sha256"] for file in made.manifest["files"]}) == 8
    monkeypatch.setattr("bonsaigan.data.sources._draw_bmp", lambda *a: pytest.fail("drawn again"))
    assert (
        prepared("demo:bonsai:8", tmp_path / "cache", size=Size(width_px=32, height_px=32)).digest
        == made.digest
    )


# --- ranges ------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.sampled_from([1, 3, 4]), st.integers(0, 2**32 - 1))
def test_ranges_there_and_back(count, channels, seed):
    torch = pytest.importorskip("torch")
    pictures = np.random.default_rng(seed).integers(0, 256, (count, 8, 6, channels), dtype=np.uint8)
    images = to_float(pictures)
    assert images.shape == (count, channels, 8, 6)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert -1 <= images.min() <= images.max() <= 1
    assert (to_uint8(images) == pictures).all()
    assert torch.equal(to_float(torch.from_numpy(pictures)), images)


def test_ranges_at_the_ends():
    torch = pytest.importorskip("torch")
    images = to_float(np.array([0, 255], np.uint8).reshape(1, 1, 2, 1))
    assert images.flatten().tolist() == [-1.0, 1.0]
    wild = torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0]).reshape(1, 1, 1, 5)
    assert to_uint8(wild).flatten().tolist() == [0, 0, 128, 255, 255]
    assert to_uint8(wild.to(torch.bfloat16).requires_grad_()).dtype == np.uint8


def test_read_only_arrays_are_taken_without_a_warning(folder, tmp_path):
    made = prepared(folder, tmp_path / "cache")
    before = np.array(made.pictures)
    to_float(made.pictures[:4]).mul_(0)
    assert (made.pictures == before).all()


@pytest.mark.skipif(not ARCHIVE.is_file(), reason="the Caltech-101 archive is not beside the project")
def test_the_articles_photographs_equal_opencv_and_scikit_learn(tmp_path):
    cv2 = pytest.importorskip("cv2")
    scaling = pytest.importorskip("sklearn.preprocessing")
    config = DataConfig(source="caltech101:bonsai", archive=str(ARCHIVE), fit="squash")
    source = open_source(config.source, archive=config.archive)
    made = prepare(source, config, resample="bilinear", cache_dir=tmp_path)
    with zipfile.ZipFile(ARCHIVE) as outer:
        (name,) = (n for n in outer.namelist() if n.endswith("101_ObjectCategories.tar.gz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name)), mode="r:gz") as inner:
            members = {Path(m.name).name: inner.extractfile(m) for m in inner if "/bonsai/image" in m.name}
            photos = {name: member.read() for name, member in members.items() if member is not None}
    decoded = [cv2.imdecode(np.frombuffer(photos[n], np.uint8), cv2.IMREAD_COLOR) for n in sorted(photos)]
    squashed = np.stack(
        [cv2.resize(p, (64, 64), interpolation=cv2.INTER_LINEAR)[:, :, ::-1] for p in decoded]
    )
    scaler = scaling.MinMaxScaler((-1, 1))
    wanted = scaler.fit_transform(squashed.reshape(-1, 1) / 255).reshape(128, 64, 64, 3)
    assert made.pictures.shape == wanted.shape
    assert np.abs((made.pictures / 127.5 - 1) - wanted).max() <= 2 / 255 + 1e-6
