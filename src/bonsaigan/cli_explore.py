"""The commands that walk in what a generator learnt: walk, timelapse, invert, directions, mix, studio."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bonsaigan.errors import ConfigError, MissingExtraError
from bonsaigan.terminal import DeviceOption, OwnRunArgument, RunArgument, make_console, progress_bar, say

if TYPE_CHECKING:
    from bonsaigan.generator import Generator

LatestOption = Annotated[bool, typer.Option("--latest", help="The latest weights instead of the best.")]
TruncationOption = Annotated[float, typer.Option(help="1 draws everything; less is safer and more alike.")]
SecondsOption = Annotated[float, typer.Option(min=0.1, max=600, help="Length of the film.")]
FpsOption = Annotated[float, typer.Option(min=1, max=60, help="Frames a second.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (walk, timelapse, invert, directions, mix, studio):
        app.command()(command)


def walk(
    run: RunArgument = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Seeds to walk through, like 3,14,15.", show_default="those from --seed on"),
    ] = None,
    stops: Annotated[
        int, typer.Option(min=2, max=64, help="Pictures to pass, where no --seeds are given.")
    ] = 5,
    seed: Annotated[int, typer.Option(help="The first of them.")] = 0,
    grid: Annotated[str, typer.Option(help="Walks side by side, COLUMNSxROWS like 4x3.")] = "1x1",
    seconds: SecondsOption = 10.0,
    fps: FpsOption = 24.0,
    truncation: TruncationOption = 1.0,
    out: Annotated[
        Path | None, typer.Option(help="A name in .mp4, .gif or .webp.", show_default="walk.mp4 in the run")
    ] = None,
    latest: LatestOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Write a film that walks from picture to picture and back, at an even pace."""
    from bonsaigan import runs
    from bonsaigan.explore.film import check_film

    folder = runs.find_run(run)
    target = out or runs.output_folder(run, folder) / "walk.mp4"
    check_film(target, fps=fps)
    columns, rows = _grid(grid)
    chosen = range(seed, seed + stops * columns * rows) if seeds is None else _numbers(seeds, "--seeds")
    generator = _load(folder, latest=latest, device=device)
    _check_writable(target)
    frames = max(1, round(seconds * fps))
    with make_console().status(f"drawing {frames} frames"):
        film = generator.walk(chosen, frames=frames, columns=columns, rows=rows, truncation=truncation)
        path = film.save(target, fps=fps)
    say(
        f"{frames} frames in {path}; steps from frame to frame vary by "
        f"{film.unevenness:.0%}, plain interpolation's by {film.plain_unevenness:.0%}"
    )


def timelapse(
    run: OwnRunArgument = None,
    seconds: SecondsOption = 8.0,
    fps: FpsOption = 24.0,
    out: Annotated[
        Path | None,
        typer.Option(help="A name in .mp4, .gif or .webp.", show_default="timelapse.mp4 in the run"),
    ] = None,
) -> None:
    """Write a film of how a run learnt: the same pictures, drawn again and again."""
    from bonsaigan import runs
    from bonsaigan.explore.film import check_film, save_film
    from bonsaigan.explore.timelapse import timelapse as frames_of

    folder = runs.find_run(run)
    target = out or runs.output_folder(run, folder) / "timelapse.mp4"
    check_film(target, fps=fps)
    _check_writable(target)
    frames = frames_of(folder, seconds=seconds, fps=fps)
    say(f"{len(frames)} frames in {save_film(target, frames, fps=fps)}")


def invert(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A photograph or any picture.")],
    run: RunArgument = None,
    steps: Annotated[int, typer.Option(min=0, max=10_000, help="Steps of the search.")] = 150,
    out: Annotated[
        Path | None,
        typer.Option(help="Picture of the target, the nearest seed and the find.", show_default="in the run"),
    ] = None,
    latest: LatestOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Find the picture of a generator that is most like an image, and say how like it is."""
    import numpy as np

    from bonsaigan import runs
    from bonsaigan.plots import save_grid

    folder = runs.find_run(run)
    target = _png(out or runs.output_folder(run, folder) / f"inverted-{image.stem}.png")
    generator = _load(folder, latest=latest, device=device)
    _check_writable(target)
    with progress_bar(make_console(), "steps") as progress:
        found = generator.invert(image, steps=steps, fit=runs.fit_of(folder), progress=progress)
    near = generator.images(generator.latents([found.seed]))[0]
    _write(target, lambda: save_grid(target, np.stack([found.target, near, found.picture]), columns=3))
    say(found.verdict)
    say(f"target, nearest seed, find: {target}")


def directions(
    run: RunArgument = None,
    k: Annotated[int, typer.Option("-k", "--number", min=1, help="How many.")] = 8,
    seed: Annotated[int, typer.Option(help="The picture that is moved.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Where to write.", show_default="directions.png in the run")
    ] = None,
    latest: LatestOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Show the directions that change pictures most: a row for each, from amount -3 to 3."""
    import numpy as np

    from bonsaigan import runs
    from bonsaigan.plots import save_grid

    folder = runs.find_run(run)
    target = _png(out or runs.output_folder(run, folder) / "directions.png")
    generator = _load(folder, latest=latest, device=device)
    _check_writable(target)
    with make_console().status("looking for directions"):
        found = generator.directions(k)
    z = generator.latents([seed])
    amounts = range(-3, 4)
    cells = [generator.images(found.move(z, {i: float(a)}))[0] for i in range(k) for a in amounts]
    _write(target, lambda: save_grid(target, np.stack(cells), columns=len(amounts)))
    for place, (name, change) in enumerate(zip(found.names, found.changes)):
        say(f"{place}  {name:16} {change:.3f}")
    say(f"pictures, a row for each: {target}")


def mix(
    shape: Annotated[int, typer.Argument(metavar="SHAPE", help="Seed whose layout is drawn.")],
    style: Annotated[int, typer.Argument(metavar="STYLE", help="Seed whose colours and surfaces are taken.")],
    run: RunArgument = None,
    levels: Annotated[
        str | None,
        typer.Option(help="Levels of the style to take, like 1,2; 0 is the coarsest.", show_default="all"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write.", show_default="in the run")] = None,
    latest: LatestOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Draw one seed's shape in another seed's style, where the generator allows (FastGAN's does)."""
    from bonsaigan import runs
    from bonsaigan.plots import save_png

    folder = runs.find_run(run)
    target = _png(out or runs.output_folder(run, folder) / f"mix-{shape}-{style}.png")
    generator = _load(folder, latest=latest, device=device)
    picture = generator.mix(shape, style, levels=None if levels is None else _numbers(levels, "--levels"))
    _write(target, lambda: save_png(target, picture))
    say(str(target))


def studio(
    run: RunArgument = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 opens the page to your network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 7860,
    device: DeviceOption = "auto",
) -> None:
    """Open a local page to explore a generator, or to watch a training."""
    from importlib.util import find_spec

    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise MissingExtraError(feature="bonsaigan studio", extra="studio")
    from bonsaigan import runs
    from bonsaigan.device import choose_device
    from bonsaigan.studio.server import serve

    where = str(choose_device(device))  # pyright: ignore[reportArgumentType]  # it checks
    folder = runs.find_run(run)
    serve(folder, own=runs.output_folder(run, folder), host=host, port=port, device=where)


def _load(folder: Path, *, latest: bool, device: str) -> Generator:
    from bonsaigan.generator import load

    return load(folder, latest=latest, device=device)


def _grid(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,2})[x×](\d{1,2})", text)
    if match is None or 0 in (int(number) for number in match.groups()):
        raise ConfigError(f"--grid {text!r}: expected COLUMNSxROWS like 4x3")
    return int(match[1]), int(match[2])


def _numbers(text: str, flag: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"\d{1,19}", part) for part in parts):
        raise ConfigError(f"{flag} {text!r}: expected whole numbers with commas between, like 3,14,15")
    return [int(part) for part in parts]


def _check_writable(target: Path) -> None:
    """Make sure of it before minutes of work, not after them."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(target.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise ConfigError(f"--out {str(target)!r}: cannot write there: {error.strerror}") from None


def _png(path: Path) -> Path:
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--out {str(path)!r}: a picture's name ends in .png")
    return path


def _write(target: Path, save: Callable[[], None]) -> None:
    try:
        save()
    except OSError as error:
        raise ConfigError(f"--out {str(target)!r}: cannot write there: {error.strerror}") from None
