"""`hf:OWNER/NAME`: with the real library on a local folder where it is installed, else with a stand-in."""

from __future__ import annotations

import errno
import io
import re
import sys
import threading
import time
import types

import pytest

from bonsaigan.data import hub
from bonsaigan.data.sources import open_source
from bonsaigan.errors import DataError, DownloadError, MissingExtraError
from tests.hostile import encoded, photograph


class Rows(list):
    """As much of an iterable data set as is used."""

    def __init__(self, rows: list[dict], features: dict | None):
        super().__init__(rows)
        self.features = features
        self.info = types.SimpleNamespace(license="cc0-1.0", citation="Nobody (2026)")
        self.columns: list[str] = []

    def select_columns(self, columns: list[str]) -> Rows:
        return type(self)([{key: row[key] for key in columns} for row in self], self.features)

    def cast_column(self, column: str, kind: object) -> Rows:
        return self


class Image:
    def __init__(self, decode: bool = True):
        self.decode = decode


def pretend(monkeypatch: pytest.MonkeyPatch, splits: dict[str, Rows] | Exception) -> list[str]:
    """Put a stand-in for `datasets` in place; returns the list of names it is asked for."""
    asked: list[str] = []

    def load_dataset(name: str, *, streaming: bool) -> dict[str, Rows]:
        assert streaming
        asked.append(name)
        if isinstance(splits, Exception):
            raise splits
        return splits

    module = types.ModuleType("datasets")
    vars(module).update(load_dataset=load_dataset, Image=Image)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def rows(count: int) -> Rows:
    made = [
        {"label": i, "photo": {"bytes": encoded(photograph(i, 40, 30), "jpeg"), "path": f"x/{i}.JPG"}}
        for i in range(count)
    ]
    return Rows([*made, {"label": 9, "photo": None}], {"label": object(), "photo": Image()})


def raise_enospc(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_it_is_fetched_once_and_kept_with_its_licence(tmp_path, monkeypatch):
    asked = pretend(monkeypatch, {"test": rows(1), "train": rows(9)})
    for _ in range(2):
        source = open_source("hf:someone/trees", cache_dir=tmp_path)
        assert [file.name for file in source.files()] == [f"{i:06d}.jpg" for i in range(9)]
        assert (source.name, source.licence, source.citation) == ("trees", "cc0-1.0", "Nobody (2026)")
    assert asked == ["someone/trees"]


def test_two_that_want_it_at_once_fetch_it_once(tmp_path, monkeypatch):
    asked = pretend(monkeypatch, {"train": rows(9)})
    fetch, began = hub._fetch, threading.Event()

    def slow(*arguments: object) -> None:
        began.set()
        time.sleep(0.2)
        fetch(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(hub, "_fetch", slow)
    other = threading.Thread(target=open_source, args=("hf:a/b",), kwargs={"cache_dir": tmp_path})
    other.start()
    assert began.wait(10)
    assert len(list(open_source("hf:a/b", cache_dir=tmp_path).files())) == 9
    other.join()
    assert asked == ["a/b"]


@pytest.mark.parametrize("inside", ["", "zip://x/a.png::"])
def test_bytes_that_are_elsewhere_on_the_hub_are_read_there(tmp_path, monkeypatch, inside):
    asked = []

    def once_in_vain(path, mode):
        asked.append(path)
        if len(asked) == 1:
            raise ConnectionResetError
        return io.BytesIO(b"picture")

    monkeypatch.setattr(hub, "PAUSES_SEC", (0.0,))
    module = types.ModuleType("fsspec")
    vars(module).update(open=once_in_vain)
    monkeypatch.setitem(sys.modules, "fsspec", module)
    path = f"{inside}hf://datasets/a/b@0123/a.png"
    pretend(monkeypatch, {"train": Rows([{"image": {"bytes": None, "path": path}}], None)})
    (file,) = open_source("hf:a/b", cache_dir=tmp_path / "cache").files()
    assert file.read() == b"picture"
    assert asked == [path, path]


@pytest.mark.parametrize(
    "path",
    [
        "/home/ann/private.png",
        "private.png",
        "file:///home/ann/private.png",
        "http://10.0.0.1/camera.jpg",
        "reference://x::hf://datasets/a/b@0/refs.json",
        "zip://a.png::/home/ann/private.zip",
        "hf://datasets/a/b@0/a.zip::file:///home/ann/private.png",
    ],
)
def test_rows_lead_nowhere_but_to_the_hub(tmp_path, monkeypatch, path):
    module = types.ModuleType("fsspec")
    vars(module).update(open=lambda *_: pytest.fail("opened"))
    monkeypatch.setitem(sys.modules, "fsspec", module)
    pretend(monkeypatch, {"train": Rows([{"image": {"bytes": None, "path": path}}], None)})
    with pytest.raises(DataError, match="lies elsewhere"):
        open_source("hf:a/b", cache_dir=tmp_path)
    assert not list(tmp_path.rglob("*.zip")) + list(tmp_path.rglob("*.part"))


def test_a_folder_of_that_name_is_not_taken_for_it(tmp_path, monkeypatch):
    asked = pretend(monkeypatch, {"train": rows(9)})
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="a folder a/b is here"):
        open_source("hf:a/b", cache_dir=tmp_path / "cache")
    assert asked == []


def test_what_can_go_wrong_is_one_line(tmp_path, monkeypatch):
    for name in ("justname", "a/b/c", "../x", "a/\x1b[31m", ""):
        with pytest.raises(DataError, match="OWNER/NAME"):
            open_source(f"hf:{name}", cache_dir=tmp_path)
    pretend(monkeypatch, {"train": Rows([{"text": "x"}], {"text": object()})})
    with pytest.raises(DataError, match="no column of pictures; it has text"):
        open_source("hf:a/b", cache_dir=tmp_path)
    pretend(monkeypatch, ConnectionError("cannot reach\nthe hub"))
    with pytest.raises(DownloadError, match=r"hf:a/b: cannot reach\. Check"):
        open_source("hf:a/b", cache_dir=tmp_path)
    pretend(monkeypatch, {"train": rows(9)})
    with monkeypatch.context() as full:
        full.setattr(hub.zipfile.ZipFile, "writestr", raise_enospc)
        with pytest.raises(DownloadError, match=r"cannot keep it in .*: No space left on device"):
            open_source("hf:a/b", cache_dir=tmp_path)
    monkeypatch.setattr(hub, "HUB_PICTURES_MAX", 3)
    pretend(monkeypatch, {"train": rows(9)})
    with pytest.raises(DataError, match="more than 3 pictures"):
        open_source("hf:a/b", cache_dir=tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"bonsaigan\[hub\]"):
        open_source("hf:a/b", cache_dir=tmp_path)
    assert not list(tmp_path.rglob("*.zip")) + list(tmp_path.rglob("*.part"))


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_the_real_library_on_a_local_folder(tmp_path, monkeypatch):
    """Rows as the library itself makes them; those of a folder have their bytes on this machine."""
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "someone" / "trees" / "train"
    folder.mkdir(parents=True)
    contents = {encoded(photograph(i, 40, 30), "jpeg") for i in range(9)}
    for index, content in enumerate(contents):
        (folder / f"{index}.jpg").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    opened, info = hub._open_rows(datasets, "someone/trees")
    with monkeypatch.context() as here:
        here.setattr(hub, "ON_THE_HUB", re.compile(".*"))
        assert {data for _, data in hub._pictures(opened, "someone/trees")} == contents
    with pytest.raises(DataError, match="lies elsewhere"):
        list(hub._pictures(opened, "someone/trees"))
    assert hasattr(info, "license")
