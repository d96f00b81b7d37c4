"""Appraising a run, and what the end of a training does with it."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import bonsaigan
from bonsaigan import appraise as appraising
from bonsaigan import conclude as concluding
from bonsaigan import runs
from bonsaigan.appraise import PAIR_COLUMNS, PAIR_GAP_PX, RealPictures, appraise, original_seeds, read_real
from bonsaigan.conclude import conclude
from bonsaigan.errors import BonsaiganError, DataError, RunError
from bonsaigan.evaluation import copies as copying
from bonsaigan.evaluation.copies import CopyDetector
from bonsaigan.evaluation.scores import evaluate
from bonsaigan.generator import Generator
from bonsaigan.plots import cut_grid
from bonsaigan.training import session, shared
from bonsaigan.training.session import Trained, Wishes

COUNT = 12
TINY = Wishes(
    recipe="dcgan",
    size="32",
    steps=1,
    batch=4,
    width=64,
    precision="fp32",
    evaluate=False,
    device="cpu",
    holdout=0.4,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    place = tmp_path_factory.mktemp("appraise")
    ended: list[Trained] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BONSAIGAN_CACHE", str(place / "cache"))
        plan = session.plan("demo:bonsai:24", TINY)
        session.start(plan, run=str(place / "r"), device="cpu", conclude=ended.append)
    return ended[0]


@pytest.fixture
def scored(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """The same run as one that is to be scored, with few pictures, and nothing of that done yet."""
    monkeypatch.setattr(concluding, "COUNT", COUNT)
    for name in (runs.SCORES_FILE, runs.CLOSEST_FILE, runs.REPORT_FILE):
        (trained.folder / name).unlink(missing_ok=True)
    config = dataclasses.replace(trained.plan.config, evaluate=True)
    return dataclasses.replace(trained, plan=dataclasses.replace(trained.plan, config=config))


def real_of(trained: Trained) -> RealPictures:
    return RealPictures.of(trained.plan.prepared)


def concluded(trained: Trained) -> str:
    console = Console(file=io.StringIO(), width=200)
    conclude(trained, console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_run_knows_how_it_ended_and_keeps_some_real_pictures(trained: Trained) -> None:
    assert not trained.stopped
    with Image.open(trained.folder / runs.REALS_FILE) as reals:
        assert reals.size == (8 * 34 - 2, 2 * 34 - 2)
    real = real_of(trained)
    assert (len(real.training), len(real.holdout)) == (14, 10)
    cells = cut_grid(np.asarray(Image.open(trained.folder / runs.REALS_FILE)), height=32, width=32, columns=8)
    assert cells is not None
    np.testing.assert_array_equal(np.stack(cells[:14]), real.training)


def test_the_numbers_are_those_of_the_parts(trained: Trained) -> None:
    real = real_of(trained)
    found = appraise(trained.folder, real, count=COUNT, seed=3)
    generator = bonsaigan.load(trained.folder)
    generated = generator.images(generator.latents(range(3, 3 + COUNT)))
    assert found.scores == evaluate(generated, real.training, holdout=real.holdout, seed=3)
    report = CopyDetector(real.training, holdout=real.holdout).check(generated, seeds=range(3, 3 + COUNT))
    assert found.copies.to_dict() == report.to_dict()
    kept = json.loads((trained.folder / runs.SCORES_FILE).read_text())
    assert kept["step"] == 1
    assert kept["scores"]["verdict"] == found.scores.verdict
    assert kept["copies"]["verdict"] == found.copies.verdict


def test_the_closest_pairs_show_what_the_numbers_say(trained: Trained) -> None:
    real = real_of(trained)
    found = appraise(trained.folder, real, count=COUNT)
    generator = bonsaigan.load(trained.folder)
    generated = generator.images(generator.latents(range(COUNT)))
    figure = np.asarray(Image.open(trained.folder / runs.CLOSEST_FILE))
    cells = cut_grid(figure, height=32, width=66, columns=PAIR_COLUMNS, gap_px=PAIR_GAP_PX)
    assert cells is not None
    for pair, cell in zip(found.copies.closest(COUNT), cells):
        training = real.training[pair.training]
        np.testing.assert_array_equal(cell[:, :32], generated[pair.generated])
        np.testing.assert_array_equal(cell[:, 34:], training[:, ::-1] if pair.mirrored else training)


def test_every_set_is_embedded_once(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    def counting(pictures: np.ndarray, **more: object) -> np.ndarray:
        seen.append(pictures.tobytes())
        return np.random.default_rng(len(seen)).normal(size=(len(pictures), 8)).astype(np.float32)

    for module in (appraising, copying):
        monkeypatch.setattr(module, "embed", counting)
    real = real_of(trained)
    appraise(trained.folder, real, count=COUNT)
    mirrored = np.ascontiguousarray(real.training[:, :, ::-1]).tobytes()
    assert len(seen) == len(set(seen)) == 4
    assert {real.training.tobytes(), real.holdout.tobytes(), mirrored} < set(seen)


def test_pictures_of_a_run_that_was_not_trained_here_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not trained here"):
        read_real(tmp_path)


class Replaying:
    """Draws one of its pictures for the seeds it copies, and noise for the others."""

    def __init__(self, pictures: np.ndarray, copied: range):
        self.pictures, self.copied = pictures, copied

    def latents(self, seeds: range, *, truncation: float) -> range:
        return seeds

    def images(self, seeds: range) -> np.ndarray:
        noise = np.random.default_rng(0).integers(0, 256, (len(seeds), 32, 32, 3), dtype=np.uint8)
        copies = self.pictures[[seed % len(self.pictures) for seed in seeds]]
        return np.where(np.array([s in self.copied for s in seeds])[:, None, None, None], copies, noise)


def replay(real: RealPictures, copied: range) -> Generator:
    return Replaying(real.training, copied)  # pyright: ignore[reportReturnType]


def test_seeds_that_copy_are_passed_over(trained: Trained) -> None:
    real = real_of(trained)
    generator = replay(real, range(2, 5))
    seeds, tried, bluntness = original_seeds(generator, real, count=4, seed=0, truncation=1.0)
    assert seeds == [0, 1, 5, 6]
    assert (tried, bluntness) == (8, "")


def test_a_generator_that_copies_nearly_always_gives_what_there_is(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appraising, "GIVE_UP_AFTER", 2)
    real = real_of(trained)
    found = original_seeds(replay(real, range(1, 100)), real, count=4, seed=0, truncation=1.0)
    assert found[:2] == ([0], 8)


def test_a_folder_that_cannot_be_written_is_told_before_the_work(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appraising.os, "access", lambda _path, _mode: False)
    monkeypatch.setattr(appraising, "embed", None)
    with pytest.raises(RunError, match=r"cannot write into .*: Permission denied"):
        appraise(trained.folder, real_of(trained), count=COUNT)


def test_a_generator_that_only_copies_ends_the_search(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appraising, "GIVE_UP_AFTER", 2)
    real = real_of(trained)
    with pytest.raises(BonsaiganError, match="each of 8 pictures looks like a copy"):
        original_seeds(replay(real, range(100)), real, count=4, seed=0, truncation=1.0)


# --- the end of a training ---------------------------------------------------------------------------------


def test_the_end_is_scored_and_reported_from_the_pictures_in_memory(
    scored: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appraising, "prepare_data", None)
    said = concluded(scored)
    assert "The new pictures are still far from the real ones: KID x1000" in said
    assert f"of {COUNT} look" in said
    assert said.splitlines()[-1] == f"report: {scored.folder / 'report.html'}"
    assert json.loads((scored.folder / runs.SCORES_FILE).read_text())["scores"]["generated_count"] == COUNT
    assert (scored.folder / runs.CLOSEST_FILE).exists()


def test_what_is_scored_is_not_scored_again(scored: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    first = concluded(scored)
    with monkeypatch.context() as patch:
        patch.setattr(concluding, "appraise", None)
        assert concluded(scored) == first
    path = scored.folder / runs.SCORES_FILE
    known = json.loads(path.read_text())
    fewer = known | {"scores": known["scores"] | {"generated_count": COUNT - 1}}
    for other in ("{", "[]", json.dumps(known | {"step": known["step"] + 1}), json.dumps(fewer)):
        path.write_text(other)
        assert concluded(scored) == first
        assert json.loads(path.read_text()) == known


@pytest.mark.parametrize("why", ["stopped", "not wished"])
def test_a_stopped_training_is_reported_but_not_scored(scored: Trained, trained: Trained, why: str) -> None:
    ended = dataclasses.replace(scored, stopped=True) if why == "stopped" else trained
    assert concluded(ended) == f"report: {trained.folder / 'report.html'}\n"
    assert not (trained.folder / runs.SCORES_FILE).exists()


@pytest.mark.parametrize(
    ("problem", "told"),
    [(DataError("3 different training pictures"), "not scored: 3 diff"), (KeyboardInterrupt(), "evaluate ")],
)
def test_a_score_that_fails_leaves_the_training_its_report(
    scored: Trained, monkeypatch: pytest.MonkeyPatch, problem: BaseException, told: str
) -> None:
    def fail(*given: object, **more: object) -> None:
        raise problem

    monkeypatch.setattr(concluding, "appraise", fail)
    said = concluded(scored)
    assert told in said
    assert (scored.folder / runs.REPORT_FILE).exists()


def test_a_report_that_cannot_be_written_is_said(trained: Trained) -> None:
    folder = trained.folder / runs.REPORT_FILE
    folder.unlink(missing_ok=True)
    (folder / "in the way").mkdir(parents=True)
    try:
        assert "no report: cannot save" in concluded(trained)
    finally:
        (folder / "in the way").rmdir()
        folder.rmdir()


def test_training_from_python_ends_with_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BONSAIGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(concluding, "COUNT", COUNT)
    monkeypatch.setattr(shared, "EVALUATE_COUNT", COUNT)
    wishes = {"recipe": "dcgan", "size": "32", "steps": 1, "batch": 4, "width": 64, "precision": "fp32"}
    folder = bonsaigan.train("demo:bonsai:16", **wishes)
    for name in (runs.SCORES_FILE, runs.CLOSEST_FILE, runs.REPORT_FILE):
        assert (folder / name).exists()
    said = capsys.readouterr().out
    assert said.startswith("16 pictures from ")
    assert said.rstrip().endswith(f"report: {folder / runs.REPORT_FILE}")
    (folder / runs.REPORT_FILE).unlink()
    assert bonsaigan.resume(folder, quiet=True) == folder
    assert capsys.readouterr().out == ""
    assert (folder / runs.REPORT_FILE).exists()
    assert bonsaigan.resume(folder, steps=2) == folder
    assert bonsaigan.load(folder, latest=True).spec.step == 2


def test_of_a_large_set_a_sample_is_looked_at_and_that_is_said(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = real_of(trained)
    monkeypatch.setattr(appraising, "REAL_MAX", 9)
    real = real_of(trained)
    assert (len(real.training), real.training_count, len(real.holdout)) == (9, 14, 9)
    np.testing.assert_array_equal(real.training, everything.training[real.places])
    found = appraise(trained.folder, real, count=COUNT)
    assert "Of the 14 training pictures 9 were looked at" in found.scores.notes[-1]
    assert "(9 of 14 were looked at)" in found.copies.verdict
    kept = json.loads((trained.folder / runs.SCORES_FILE).read_text())
    places = [pair["training"] for pair in kept["copies"]["closest"]]
    assert places == [int(real.places[pair.training]) for pair in found.copies.closest(COUNT)]
    assert real_of(trained).note == real.note
    assert not everything.note
