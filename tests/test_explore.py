"""Walks, directions, mixing, inversion and films, on a tiny generator."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from bonsaigan import plots, runs
from bonsaigan.config import NetworkConfig, Size
from bonsaigan.errors import ConfigError, DataError, RunError
from bonsaigan.explore import directions, film, inversion
from bonsaigan.explore.directions import NAMES, measures, principal_directions
from bonsaigan.explore.film import save_film
from bonsaigan.explore.inversion import as_target
from bonsaigan.explore.paths import loop, respaced, steps_of, unevenness
from bonsaigan.explore.timelapse import timelapse
from bonsaigan.generator import Generator, GeneratorSpec
from bonsaigan.models import build_generator


def make(family: str = "fastgan", *, channels: int = 3, width: int = 64) -> Generator:
    """A generator of random weights, strong enough that seeds differ."""
    torch.manual_seed(0)
    network = NetworkConfig(latent=16, width=width, discriminator_width=8)
    size = Size(width_px=48, height_px=32)
    spec = GeneratorSpec(
        family=family, network=network, size=size, channels=channels, recipe="projected", step=5
    )
    built = build_generator(family, network=network, size=size, channels=channels)
    with torch.no_grad():
        for layer in built.modules():
            if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
                torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    return Generator(built, spec)


def read_film(path: Path) -> np.ndarray:
    """The frames of a film, uint8 (N, H, W, 3)."""
    if path.suffix != ".mp4":
        with Image.open(path) as film:
            return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)])
    program = imageio_ffmpeg.get_ffmpeg_exe()
    command = [program, "-loglevel", "error", "-i", str(path), "-f", "image2pipe", "-c:v", "ppm", "-"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    frames, file = [], io.BytesIO(data)
    while file.tell() < len(data):
        _, size, _ = (file.readline() for _ in range(3))
        width, height = map(int, size.split())
        frames.append(np.frombuffer(file.read(width * height * 3), np.uint8).reshape(height, width, 3))
    return np.stack(frames)


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Fewer seeds and steps than people get, enough for tiny generators."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(directions, "SAMPLES", 128)
        patch.setattr(inversion, "SEEDS", 48)
        patch.setattr(inversion, "STARTS", 2)
        patch.setattr(inversion, "STEPS", 20)
        patch.setattr(inversion, "PAIRS", 4)
        yield


@pytest.fixture(scope="module")
def generator() -> Generator:
    return make()


# --- walks -------------------------------------------------------------------------------------------------


def test_a_loop_passes_its_stops_and_closes() -> None:
    stops = torch.randn(3, 16)
    points = loop(stops, np.array([0.0, 1.0, 2.0, 2.999999]))
    torch.testing.assert_close(points[:3], stops)
    torch.testing.assert_close(points[3], stops[0], atol=1e-3, rtol=0)


def test_respacing_evens_out_a_known_speed() -> None:
    at = np.linspace(0, 1, 101)[:-1]
    steps = np.diff(np.append(at, 1.0) ** 3)
    assert unevenness(steps) > 0.8
    placed = respaced(at, steps, end=1.0)
    assert placed[0] == 0
    assert np.all(np.diff(placed) > 0)
    assert unevenness(np.diff(np.append(placed, 1.0) ** 3)) < 0.02


def test_a_walk_is_three_times_as_even_as_plain_slerp(generator: Generator) -> None:
    film = generator.walk([3, 9, 4], frames=72)
    assert film.frames.shape == (72, 32, 48, 3)
    assert unevenness(steps_of(film.frames)) == pytest.approx(film.unevenness)
    assert film.plain_unevenness > 0.1
    assert film.unevenness <= film.plain_unevenness / 3
    np.testing.assert_array_equal(film.frames[0], generator.images(generator.latents([3]))[0])


def test_a_walk_fills_a_grid_and_says_what_it_lacks(generator: Generator) -> None:
    film = generator.walk(range(8), frames=8, columns=2, rows=2)
    assert film.frames.shape == (8, 2 * 32 + 2, 2 * 48 + 2, 3)
    assert film.latents.shape == (8, 4, 16)
    alone = generator.walk([0, 1], frames=8)
    np.testing.assert_array_equal(film.frames[:, :32, :48], alone.frames)
    for seeds, more, said in (
        ([1], {}, "two or more"),
        ([1, 2, 3], {"columns": 2}, "each cell"),
        ([1, 2, 3], {"frames": 5}, "5 frames"),
    ):
        with pytest.raises(ConfigError, match=said):
            generator.walk(seeds, **more)


@pytest.mark.parametrize("kind", ["mp4", "gif", "webp"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_films_come_back_with_every_frame(kind: str, channels: int, tmp_path: Path) -> None:
    frames = np.zeros((6, 33, 49, channels), np.uint8)
    frames[..., -1] = 255
    for place, frame in enumerate(frames):
        frame[..., 0] = 40 * place
    path = save_film(tmp_path / "new" / f"film.{kind}", frames, fps=12)
    back = read_film(path)
    assert len(back) == 6
    shortest = 256 if kind == "mp4" else 128
    assert min(back.shape[1:3]) >= shortest
    assert np.all(np.diff(back[..., 0].astype(float).mean(axis=(1, 2))) > 20)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_film_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.mp4, \.gif, \.webp"):
        save_film(tmp_path / "film.avi", np.zeros((2, 32, 32, 3), np.uint8))
    with pytest.raises(ConfigError, match=r"--fps 51: must be above 0 up to 50 for a \.gif"):
        save_film(tmp_path / "film.gif", np.zeros((2, 32, 32, 3), np.uint8), fps=51)
    (tmp_path / "file").touch()
    for name in ("a.gif", "a.mp4"):
        with pytest.raises(ConfigError, match="cannot write"):
            save_film(tmp_path / "file" / name, np.zeros((2, 32, 32, 3), np.uint8))


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_a_film_that_memory_does_not_hold_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (8, 128, 128, 3), dtype=np.uint8)
    monkeypatch.setattr(film, "HELD_MAX_BYTES", 8 * 128 * 128 * (1 if kind == "gif" else 3))
    before = save_film(tmp_path / f"film.{kind}", frames).read_bytes()
    with pytest.raises(ConfigError, match=r"128x128 pixels .* make it shorter"):
        save_film(tmp_path / f"film.{kind}", np.concatenate((frames, frames[:1])))
    assert (tmp_path / f"film.{kind}").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [f"film.{kind}"]


def test_a_film_that_ffmpeg_did_not_finish_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_film(tmp_path / "film.mp4", np.zeros((6, 32, 32, 3), np.uint8))
    before = path.read_bytes()
    write = imageio_ffmpeg.write_frames

    def cut_short(name: str, *arguments: object, **options: object) -> Iterator[None]:
        try:
            yield from write(name, *arguments, **options)  # pyright: ignore[reportArgumentType]
        finally:
            Path(name).write_bytes(Path(name).read_bytes()[:100])

    monkeypatch.setattr(imageio_ffmpeg, "write_frames", cut_short)
    with pytest.raises(ConfigError, match="ffmpeg wrote 0 of 8 frames"):
        save_film(path, np.zeros((8, 32, 32, 3), np.uint8))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["film.mp4"]


def test_a_time_lapse_begins_with_the_first_grid_and_ends_with_the_last(tmp_path: Path) -> None:
    for step in (5, 10, 200):
        cells = np.full((4, 32, 32, 3), step, np.uint8)
        plots.save_grid(tmp_path / runs.SAMPLES_DIR / f"{step:06d}.png", cells, columns=2)
    plots.save_png(tmp_path / runs.SAMPLES_DIR / "summary-000010.png", np.zeros((9, 9, 3), np.uint8))
    lapse = timelapse(tmp_path, seconds=2.0, fps=20)
    frames = np.stack(list(lapse))
    assert frames.shape == (40, 66, 66, 3) == (len(lapse), *frames.shape[1:])
    shown = frames[:, 0, 0, 0]
    assert (shown[0], shown[-1]) == (5, 200)
    assert np.all(np.diff(shown.astype(int)) >= 0)
    few = list(timelapse(tmp_path, seconds=1.0, fps=2))  # fewer frames than grids
    assert [frame[0, 0, 0] for frame in few] == [5, 200]
    with pytest.raises(RunError, match="no grids"):
        timelapse(tmp_path / "other", seconds=1, fps=10)


# --- directions --------------------------------------------------------------------------------------------


def test_principal_directions_find_the_ones_that_were_planted() -> None:
    torch.manual_seed(0)
    z = torch.randn(400, 16)
    planted = torch.linalg.qr(torch.randn(16, 3)).Q.T
    strengths = torch.tensor([9.0, 5.0, 3.0])
    x = (z @ planted.T * strengths) @ torch.randn(3, 200) + 0.05 * torch.randn(400, 200)
    found = principal_directions(z, x, count=3)
    covered = (found @ planted.T).norm(dim=1)
    assert covered.min() > 0.97
    assert found.norm(dim=1) == pytest.approx(1.0, abs=1e-5)


def test_directions_are_ordered_by_what_they_change(generator: Generator) -> None:
    found = generator.directions(4)
    assert found.vectors.shape == (4, 16)
    assert list(found.changes) == sorted(found.changes, reverse=True)
    assert len(set(found.names)) == 4
    assert generator.directions(4) is found
    z = generator.latents(range(8))
    moved = found.move(z, {0: 2.0, 3: -1.0})
    torch.testing.assert_close(moved.norm(dim=1), z.norm(dim=1))
    torch.testing.assert_close(found.move(z, {}), z)
    changed = generator.images(found.move(z, {0: 2.0})).astype(float) - generator.images(
        found.move(z, {0: -2.0})
    )
    assert np.sqrt(np.square(changed).mean(axis=(1, 2, 3))).mean() / 255 == pytest.approx(
        found.changes[0], rel=1e-3
    )


def test_a_name_is_true(generator: Generator) -> None:
    found = generator.directions(4)
    z = generator.latents(range(8))
    told = 0
    for place, name in enumerate(found.names):
        if name in NAMES:
            high, low = (measures(generator.images(found.move(z, {place: a}))) for a in (2.0, -2.0))
            assert (high - low).mean(axis=0)[NAMES.index(name)] > 0
            told += 1
    assert told


def test_measures_see_what_they_are_named_after() -> None:
    canvas = np.full((2, 32, 32, 3), 128, np.uint8)
    canvas[0, 4:12, 4:12] = 0
    canvas[1, 20:28, 20:28] = 255
    first, second = measures(canvas)
    for name in ("brighter", "to the right", "lower"):
        assert second[NAMES.index(name)] > first[NAMES.index(name)], name


@pytest.mark.parametrize("family", ["article", "dcgan", "r3gan"])
def test_every_family_has_directions_and_only_fastgan_mixes(family: str) -> None:
    other = make(family, width=32)
    assert other.directions(2).vectors.isfinite().all()
    with pytest.raises(ConfigError, match="no levels to mix"):
        other.mix(1, 2)


def test_limits_of_directions_are_said(generator: Generator) -> None:
    for k in (0, 9):
        with pytest.raises(ConfigError, match="from 1 up to 8"):
            generator.directions(k)
    z = generator.latents([0])
    with pytest.raises(ConfigError, match="there are 4"):
        generator.directions(4).move(z, {4: 1.0})
    with pytest.raises(ConfigError, match="up to 4"):
        generator.directions(4).move(z, {0: float("nan")})


# --- mixing ------------------------------------------------------------------------------------------------


def test_mixing_takes_the_gates_of_another_and_nothing_stays_behind(generator: Generator) -> None:
    a, b = generator.images(generator.latents([5, 6]))
    np.testing.assert_array_equal(generator.mix(5, 5), a)
    np.testing.assert_array_equal(generator.mix(5, 6, levels=[]), a)
    mixed = generator.mix(5, 6)
    assert not np.array_equal(mixed, a)
    assert not np.array_equal(mixed, b)
    assert not np.array_equal(generator.mix(5, 6, levels=[0]), mixed)
    np.testing.assert_array_equal(generator.images(generator.latents([5]))[0], a)
    with pytest.raises(ConfigError, match="--levels 9"):
        generator.mix(5, 6, levels=[9])


# --- inversion ---------------------------------------------------------------------------------------------


def test_inversion_finds_a_picture_that_was_drawn(generator: Generator) -> None:
    wanted = generator.images(generator.latents([5000]))[0]
    told: list[tuple[int, int | None]] = []
    found = generator.invert(wanted, steps=30, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (30, 30)
    np.testing.assert_array_equal(found.target, wanted)
    np.testing.assert_array_equal(generator.images(found.latent[None])[0], found.picture)
    for distance in (found.perceptual, found.pixels):
        assert distance.after < distance.before < distance.different
    assert f"{found.features.share:.2f}" in found.verdict
    own = generator.invert(generator.images(generator.latents([7]))[0], steps=3)
    assert (own.seed, own.pixels.before) == (7, 0)
    assert own.pixels.after < 0.01


@pytest.mark.parametrize("family", ["fastgan", "dcgan", "r3gan", "article"])
def test_what_inversion_finds_is_never_farther_than_the_nearest_seed(family: str) -> None:
    generator = make(family)
    found = generator.invert(generator.images(generator.latents([7]))[0], steps=0)
    assert (found.seed, found.pixels.before) == (7, 0)
    assert found.pixels.after < 0.005
    assert found.perceptual.after < 1e-4


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_image_becomes_a_target(channels: int, tmp_path: Path) -> None:
    generator = make(channels=channels)
    clear = Image.new("RGBA", (200, 90), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 100, 90))
    clear.save(tmp_path / "clear.png")
    for image in (tmp_path / "clear.png", clear, np.asarray(clear), (tmp_path / "clear.png").read_bytes()):
        target = as_target(generator, image)
        assert target.shape == (32, 48, channels)
        if channels == 3:
            assert target[16, 40].tolist() == [255, 255, 255]
    turned = Image.new("CMYK", (40, 200))
    turned.getexif()[0x0112] = 6  # a camera held upright
    turned.save(tmp_path / "turned.jpg")
    with Image.open(tmp_path / "turned.jpg") as photo:
        np.testing.assert_array_equal(
            as_target(generator, photo, fit="pad"), as_target(generator, tmp_path / "turned.jpg", fit="pad")
        )
    deep = Image.fromarray(np.linspace(0, 65535, 40 * 60, dtype=np.int32).reshape(40, 60))
    assert np.ptp(as_target(generator, deep)[..., 0]) > 200
    for other in (Image.new("RGBX", (40, 60)), clear.convert("LAB"), clear.convert("PA")):
        assert as_target(generator, other).shape == (32, 48, channels)
    for unusable in (np.zeros((40, 60, 3)), clear.convert("La")):
        with pytest.raises(DataError, match="the image: "):
            as_target(generator, unusable)
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff nothing")
    halves = Image.new("RGB", (200, 32), "black")
    halves.paste("white", (150, 0, 200, 32))
    cropped, whole = (as_target(generator, halves, fit=fit)[16, :, 0] for fit in ("crop", "squash"))
    assert (cropped.max(), whole[0], whole[-1]) == (0, 0, 255)
    for bad in ("bad.jpg", "missing.png"):
        with pytest.raises(DataError, match=bad):
            as_target(generator, tmp_path / bad)
