"""What fuzzing needs: a kept corpus, mutations of it, and every parser and loader of ours behind one call.

`python -m tests.make_corpus` makes the corpus anew. `benchmarks/fuzz.py` runs thousands of inputs; an input
that found a fault is kept in corpus/found/LOADER/ and tried again by every run of the tests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bonsaigan.config import Budget, ComponentsConfig, DataConfig, NetworkConfig, Size, TrainConfig
from bonsaigan.data.files import Refused, visible
from bonsaigan.data.picture import examine, hush_libtiff
from bonsaigan.data.prepare import PreparedSet
from bonsaigan.data.sources import open_source
from bonsaigan.errors import BonsaiganError, ConfigError, RunError
from bonsaigan.export.keras_file import read_keras
from bonsaigan.generator import Generator, read_generator
from bonsaigan.report.facts import read_facts
from bonsaigan.report.page import contents, render
from bonsaigan.studio import points
from bonsaigan.studio.explorer import Explorer
from bonsaigan.training import checkpoint
from bonsaigan.training.health import Health
from bonsaigan.training.history import read_history
from bonsaigan.training.pictures import as_it_began
from bonsaigan.training.recipes import default_config, find
from bonsaigan.training.trainer import Trainer

CORPUS = Path(__file__).parent / "corpus"
SIZE = Size(width_px=32, height_px=32)
NETWORK = NetworkConfig(latent=4, width=1, discriminator_width=1)
UNREAD, REFUSED, HANG_SEC = 1, 3, 5
JSON_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**31, 2**63, 10**400, -(10**400), 0.5, -0.0, 1e308, float("inf"), float("nan"),
    "", "x", "\x1b[2J", "\ud800", "../..", "é" * 5000, [], {}, [[[[]]]], {"": {}}, [0] * 2000,
)  # fmt: skip
"""What a stranger writes in the place of a value."""
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
"""What a stranger writes in the place of a length."""


@dataclass(frozen=True, kw_only=True)
class Loader:
    """A parser or loader of ours."""

    files: tuple[str, ...]
    """Files of the corpus that it reads."""
    load: Callable[[Path], None]
    """Reads a mutated one; may raise a `BonsaiganError` and nothing else."""


def mutate(data: bytes, chance: random.Random, *, is_json: bool) -> bytes:
    """The content of a file, changed in one to four ways."""
    for _ in range(chance.randint(1, 4)):
        if is_json and chance.random() < 0.7:
            data = _mutate_json(data, chance)
        else:
            data = _mutate_bytes(data, chance)
    return data


def _mutate_bytes(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    length = min(len(data) - at, int(2 ** chance.uniform(0, 10)))
    way = chance.randrange(7)
    if way == 0 and data:
        at = min(at, len(data) - 1)
        return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
    if way == 1:
        return data[:at]
    if way == 2:
        return data[:at] + data[at + length :]
    if way == 3:
        return data[:at] + data[at : at + length] * chance.randint(2, 9) + data[at + length :]
    if way == 4:
        return data[:at] + chance.randbytes(length) + data[at + length :]
    if way == 5:
        other = chance.randrange(len(data) + 1)
        return data[:at] + data[other : other + length] + data[at + length :]
    number, width = chance.choice(NUMBERS), chance.choice((1, 2, 4, 8))
    order = chance.choice(("little", "big"))
    return data[:at] + (number % 256**width).to_bytes(width, order) + data[at + width :]


def _mutate_json(data: bytes, chance: random.Random) -> bytes:
    try:
        lines = [json.loads(line) for line in data.splitlines()] if data[:2] != b"{\n" else [json.loads(data)]
    except (ValueError, RecursionError):
        return _mutate_bytes(data, chance)
    holders = [lines, *(holder for line in lines for holder in _holders(line))]
    holder: Any = chance.choice([h for h in holders if h] or [lines])
    if holder:
        key = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if chance.random() < 0.2:
            del holder[key]
        elif chance.random() < 0.2 and isinstance(holder, dict):
            holder[chance.choice(("", "\x1b]0;x\x07", "step", "__class__"))] = holder.pop(key)
        else:
            holder[key] = chance.choice(JSON_VALUES)
    text = "\n".join(json.dumps(line) for line in lines)
    return text.encode("utf-8", "surrogatepass")


def _holders(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, list)):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _holders(inner)


def inputs(loader: str) -> list[bytes]:
    """The corpus of a loader, in the order of its file names."""
    return [(CORPUS / name).read_bytes() for name in LOADERS[loader].files]


def found(loader: str) -> list[tuple[str, bytes]]:
    """(file of the corpus it came from, content) of each input that once found a fault."""
    kept = sorted((CORPUS / "found" / loader).glob("*"))
    return [(path.name.partition(".")[2], path.read_bytes()) for path in kept]


def try_one(loader: str, name: str, data: bytes, work: Path) -> str:
    """Give a loader an input in the place of a file of its corpus, in an empty folder.

    Returns:
        "" when it was read, else the one line it was refused with.

    Raises:
        AssertionError: a line that would act on a terminal or is none.
        Exception: whatever the loader raises that is not one of our errors.
    """
    path = work / Path(name).name
    path.write_bytes(data)
    try:
        LOADERS[loader].load(path)
    except BonsaiganError as error:
        return one_line(str(error))
    finally:
        path.unlink(missing_ok=True)
    return ""


def one_line(said: str) -> str:
    """What is shown of an error; that it is short and harmless is made sure of."""
    shown = visible(said)
    assert shown.replace("\n", "").isprintable()
    assert len(shown) < 4000, f"{len(shown)} characters: {shown[:200]}"
    return shown


@contextlib.contextmanager
def no_side_effects() -> Iterator[None]:
    """Raise when something is written, run, or fetched meanwhile."""
    if not _WATCH:
        sys.addaudithook(_watch)  # it stays for good
        _WATCH.append(False)
    compiled, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    _WATCH.append(True)
    try:
        yield
    finally:
        _WATCH.pop()
        sys.dont_write_bytecode = compiled


_WATCH: list[bool] = []
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "os.remove",
             "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "shutil.rmtree", "os.chmod",
             "pickle.find_class", "ctypes.dlopen")  # fmt: skip


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not _WATCH[-1]:
        return
    if event in FORBIDDEN:
        raise SideEffect(f"{event} {arguments!r:.200}")
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & 0o3:
        raise SideEffect(f"{arguments[0]!r:.200} opened for writing")


class SideEffect(BaseException):
    """A loader did more than load."""


def tiny_config() -> TrainConfig:
    """Of the run that the corpus is of."""
    config = default_config(find("article"), SIZE)
    return dataclasses.replace(
        config,
        network=NETWORK,
        data=DataConfig(source="photos", size=SIZE),
        budget=Budget(steps=10),
        augment=("colour", "translation"),
        optimizer=dataclasses.replace(config.optimizer, generator_decay_share=0.5, generator_decay_kimg=1.0),
        components=ComponentsConfig(first_steps=5, weight=30.0, until_step=10),
        generator_turns=2,
    )


# ---------------------------------------------------------------------------------------------------------
# The loaders


def _archive(path: Path) -> None:
    for file in open_source(str(path)).files():
        with contextlib.suppress(BonsaiganError, Refused):
            file.read()


def _picture(path: Path) -> None:
    hush_libtiff()  # it opens a library, the first time
    with no_side_effects():
        for resample in ("antialias", "bilinear"):
            found = examine(path.read_bytes(), size=SIZE, fit="crop", resample=resample)
            assert all(finding.message.isprintable() for finding in found.findings)


def _config(path: Path) -> None:
    from bonsaigan.runs import read_config

    config = read_config(path.parent)
    assert TrainConfig.from_json(config.to_json()) == config


def _generator(path: Path) -> None:
    with _beside(path, "generator.json", "generator.safetensors"):
        generator = read_generator(path.parent)
    if generator.network.latent == NETWORK.latent:  # pyright: ignore[reportOperatorIssue]
        assert generator.images(generator.latents(range(2))).dtype == np.uint8


def _state(path: Path) -> None:
    folder = path.parent / "checkpoint"
    folder.mkdir()
    try:
        for name in ("state.json", "state.safetensors"):
            data = (path if path.name == name else CORPUS / name).read_bytes()
            if name == "state.json" and path.name != name:
                # Damage is found by the checksum; a stranger would make it right.
                state = json.loads(data) | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
                data = json.dumps(state).encode()
            (folder / name).write_bytes(data)
        trainer = Trainer(tiny_config(), device=torch.device("cpu"))
        with no_side_effects():
            tensors, progress, _ = checkpoint.load(folder)
            checkpoint.unpack(tensors, trainer._parts())
            assert progress.done_share(trainer.config.budget) >= 0
    finally:
        for name in ("state.json", "state.safetensors"):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def _data(path: Path) -> None:
    listed = json.loads((CORPUS / "data.json").read_bytes())
    count = len(listed["files"])
    prepared = PreparedSet(
        pictures=np.zeros((count, 32, 32, 3), np.uint8),
        channels=3,
        train_index=np.arange(count),
        holdout_index=np.arange(0),
        manifest=listed,
        digest="",
    )
    assert len(as_it_began(path.parent, prepared).train_index) == count


def _lines(path: Path) -> None:
    health = Health(tiny_config(), guessing_loss=1.4)
    health.catch_up(read_history(path))
    for finding in health.standing:
        assert len(finding.what) < 4000


def _report(path: Path) -> None:
    with _beside(path, "config.json", "data.json", "metrics.jsonl", "metrics.json", "generator.json"):
        page = render(read_facts(path.parent))
        page.encode("utf-8", "replace")


def _report_picture(path: Path) -> None:
    (path.parent / "samples").mkdir(exist_ok=True)
    sample = path.rename(path.parent / "samples/000004.png")
    try:
        with _beside(path, "config.json", "metrics.jsonl"), no_side_effects():
            contents(read_facts(path.parent))
    finally:
        sample.unlink()
        sample.parent.rmdir()


def _studio(path: Path) -> None:
    with _beside(path, "generator.json", "generator.safetensors", "favourites.json"):
        explorer = Explorer(path.parent)
        for moment in explorer.moments():
            explorer.generator(moment)
        names = explorer.favourites()
    generator = _whole_generator()
    for name in names:
        with contextlib.suppress(ConfigError):  # of another generator
            points.parse(name).latent(generator, generator.directions(2), truncation=1.0)


@functools.cache
def _whole_generator() -> Generator:
    return read_generator(CORPUS)


def _keras(path: Path) -> None:
    import h5py  # noqa: F401  # it looks the machine over when it is imported

    # As `import_keras` does: the HDF5 library hangs over some of these files, where no exception reaches it.
    child = os.fork()
    if not child:
        status = UNREAD
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(HANG_SEC)
            with no_side_effects():
                read_keras(path)
            status = 0
        except BonsaiganError as error:
            status = REFUSED if one_line(str(error)) else UNREAD
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status != UNREAD, "another error than ours"
    if status:
        raise RunError("refused" if status == REFUSED else f"ended by signal {-status}")


@contextlib.contextmanager
def _beside(path: Path, *names: str) -> Iterator[None]:
    """Whole files of the corpus beside a mutated one."""
    others = [path.parent / name for name in names if name != path.name]
    for other in others:
        other.write_bytes((CORPUS / other.name).read_bytes())
    try:
        with no_side_effects():
            yield
    finally:
        for other in others:
            other.unlink()


def _plain(load: Callable[[Path], None]) -> Callable[[Path], None]:
    def guarded(path: Path) -> None:
        with no_side_effects():
            load(path)

    return guarded


PICTURE_FORMS = ("jpeg", "png", "gif", "webp", "bmp", "tiff", "ppm")
LOADERS: dict[str, Loader] = {
    "archive": Loader(
        files=("set.zip", "set.tar", "set.tar.gz", "set.tar.bz2", "set.tar.xz"), load=_plain(_archive)
    ),
    "picture": Loader(files=tuple(f"photo.{form}" for form in PICTURE_FORMS), load=_picture),
    "config": Loader(files=("config.json",), load=_plain(_config)),
    "generator": Loader(files=("generator.json", "generator.safetensors"), load=_generator),
    "state": Loader(files=("state.json", "state.safetensors"), load=_state),
    "data": Loader(files=("data.json",), load=_plain(_data)),
    "lines": Loader(files=("metrics.jsonl",), load=_plain(_lines)),
    "report": Loader(
        files=("config.json", "data.json", "metrics.jsonl", "metrics.json", "generator.json"), load=_report
    ),
    "report picture": Loader(files=("grid.png",), load=_report_picture),
    "studio": Loader(files=("generator.json", "favourites.json"), load=_studio),
    "keras": Loader(files=("generator.keras", "generator.h5"), load=_keras),
}
