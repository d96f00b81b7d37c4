"""Files from strangers: whatever is in them, a loader reads them or says in one line why not.

Hundreds of inputs each here; `benchmarks/fuzz.py` gives each loader thousands.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import socket
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonsaigan.config import Size, TrainConfig, from_dict, read_bounded, read_json
from bonsaigan.data.files import printable, visible
from bonsaigan.errors import ConfigError, RunError
from bonsaigan.generator import GeneratorSpec, read_generator
from bonsaigan.training.checkpoint import Progress
from tests import fuzzing

EXAMPLES = {"report": 20, "report picture": 20, "keras": 100, "picture": 150, "state": 60, "studio": 60}


@pytest.fixture
def work() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize("loader", fuzzing.LOADERS)
def test_the_corpus_itself_is_read(loader: str, work: Path) -> None:
    for name, data in zip(fuzzing.LOADERS[loader].files, fuzzing.inputs(loader)):
        assert fuzzing.try_one(loader, name, data, work) == ""
    assert not list(work.iterdir())


@pytest.mark.parametrize("loader", fuzzing.LOADERS)
def test_what_once_found_a_fault_finds_none(loader: str, work: Path) -> None:
    for name, data in fuzzing.found(loader):
        fuzzing.try_one(loader, name, data, work)


@pytest.mark.parametrize("loader", fuzzing.LOADERS)
def test_mutations_are_read_or_refused_in_one_line(loader: str) -> None:
    names, originals = fuzzing.LOADERS[loader].files, fuzzing.inputs(loader)
    refused = 0
    with tempfile.TemporaryDirectory() as folder:

        @settings(max_examples=EXAMPLES.get(loader, 200), deadline=None, database=None)
        @given(st.integers(0, len(names) - 1), st.integers(0, 2**32 - 1))
        def check(which: int, seed: int) -> None:
            nonlocal refused
            name = names[which]
            data = fuzzing.mutate(
                originals[which], random.Random(seed), is_json=name.endswith((".json", ".jsonl"))
            )
            refused += bool(fuzzing.try_one(loader, name, data, Path(folder)))

        check()
        assert not list(Path(folder).iterdir())
    assert refused or loader in ("picture", "lines", "report", "report picture", "studio")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("kind", [TrainConfig, GeneratorSpec, Progress])
def test_any_json_for_a_dataclass_is_taken_or_refused(kind: type[Any]) -> None:
    names = [field.name for field in dataclasses.fields(kind)]

    @settings(max_examples=60, deadline=None)
    @given(JSON | st.dictionaries(st.sampled_from(names) | st.text(max_size=5), JSON, max_size=len(names)))
    def check(value: Any) -> None:
        said = ""
        try:
            assert isinstance(from_dict(kind, json.loads(json.dumps(value))), kind)
        except ConfigError as error:
            said = str(error)
        assert len(said) < 2000

    check()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_any_text_for_a_size(text: str) -> None:
    said = "--size"
    try:
        assert Size.parse(text).width_px % 16 == 0
    except ConfigError as error:
        said = str(error)
    assert "--size" in said


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(), max_size=40))
def test_no_text_acts_on_a_terminal(text: str) -> None:
    for shown in (visible(text), printable(text)):
        assert shown.replace("\n", "").isprintable()
        shown.encode("utf-8")
        assert visible(shown) == shown
    assert "\n" not in printable(text)


# ---------------------------------------------------------------------------------------------------------
# What is no plain file, what is too large, what asks for too much


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices")
@pytest.mark.parametrize("what", ["pipe", "endless", "socket", "folder"])
def test_what_is_no_plain_file_is_not_read(work: Path, what: str) -> None:
    path = work / "config.json"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "endless":
        path.symlink_to("/dev/zero")
    elif what == "folder":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    with pytest.raises(ConfigError):
        read_json(path)


def test_a_large_file_is_not_read(work: Path) -> None:
    path = work / "big.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte with nothing in it
    with pytest.raises(ConfigError, match="larger than 16 MiB"):
        read_json(path)
    path.write_bytes(bytes(101))
    with pytest.raises(ConfigError, match="larger than"):
        read_bounded(path, limit_bytes=100)


def test_a_generator_that_asks_for_gigabytes_gets_none(work: Path) -> None:
    """Its numbers are within their limits; the weights beside it are not that many."""
    spec = json.loads((fuzzing.CORPUS / "generator.json").read_bytes())
    for family in ("article", "dcgan", "fastgan", "r3gan"):
        spec["family"] = family
        spec["network"] = {"latent": 4096, "width": 4096, "discriminator_width": 4096}
        spec["size"] = {"width_px": 256, "height_px": 256}
        (work / "generator.json").write_text(json.dumps(spec))
        (work / "generator.safetensors").write_bytes((fuzzing.CORPUS / "generator.safetensors").read_bytes())
        before = peak_kib()
        with pytest.raises(RunError, match="does not fit"):
            read_generator(work)
        assert peak_kib() - before < 200 << 10


def peak_kib() -> int:
    resource = pytest.importorskip("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("name", ["\x1b[31mred\x07", "[bold]x", "a\nb", "caf\udce9"])
def test_a_folder_with_a_hostile_name_is_printed_harmlessly(
    work: Path, capfd: pytest.CaptureFixture[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bonsaigan import cli

    folder = work / name
    folder.mkdir()
    (folder / "config.json").write_text("{")
    (folder / "generator.json").write_text("{")
    for command in ("generate", "report", "resume", "evaluate"):
        monkeypatch.setattr("sys.argv", ["bonsaigan", command, str(folder)])
        with pytest.raises(SystemExit):
            cli.main()
        out, err = capfd.readouterr()
        for line in (out + err).splitlines():
            assert line.isprintable()
        assert len(err.splitlines()) <= 1
        if out:
            assert visible(str(folder)).replace("\n", "") in out.replace("\n", "")


def test_a_generous_limit_costs_no_memory(work: Path) -> None:

    (work / "small").write_bytes(b"12345")
    tracemalloc.start()
    try:
        assert read_bounded(work / "small", limit_bytes=1 << 33) == b"12345"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
