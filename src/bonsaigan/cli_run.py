"""The commands that use a run: generate, evaluate, report, export, import-keras, diagram."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bonsaigan.errors import ConfigError
from bonsaigan.terminal import (
    ArchiveOption,
    DeviceOption,
    MovedOption,
    OwnRunArgument,
    RunArgument,
    make_console,
    progress_bar,
    say,
)

EXPORTS = ("safetensors", "onnx", "keras", "torch", "web")
"""The keys of `export.targets.TARGETS`, which are not imported for `--help`."""
GRID_MAX_BYTES = 256 << 20
"""Of the pictures of one grid."""


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (generate, evaluate, report, export, import_keras, diagram):
        app.command()(command)


def generate(
    run: RunArgument = None,
    n: Annotated[int, typer.Option("-n", "--number", min=1, help="How many pictures.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the first picture; the others follow it.")] = 0,
    truncation: Annotated[
        float, typer.Option(help="1 draws everything; less is safer and more alike.")
    ] = 1.0,
    grid: Annotated[
        bool, typer.Option("--grid", help="One picture of all of them instead of single files.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Where to write.", show_default="generated/ in the run")
    ] = None,
    avoid_copies: Annotated[
        bool,
        typer.Option("--avoid-copies", help="Leave out seeds whose pictures look like training pictures."),
    ] = False,
    latest: Annotated[bool, typer.Option("--latest", help="The latest weights instead of the best.")] = False,
    data: MovedOption = None,
    archive: ArchiveOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Draw new pictures. The same seed is always the same picture."""
    from concurrent.futures import ThreadPoolExecutor

    from bonsaigan import runs
    from bonsaigan.device import choose_device
    from bonsaigan.generator import CHUNK, load
    from bonsaigan.plots import save_grid, save_png

    folder = runs.find_run(run)
    seeds: Sequence[int] = range(seed, seed + n)
    where = str(choose_device(device))  # pyright: ignore[reportArgumentType]  # it checks
    generator = load(folder, latest=latest, device=where)
    size = generator.spec.size
    grid_bytes = n * size.width_px * size.height_px * generator.spec.channels
    if grid and grid_bytes > GRID_MAX_BYTES:
        raise ConfigError(f"-n {n} in one --grid: {grid_bytes >> 20} MiB, at most {GRID_MAX_BYTES >> 20} fit")
    if avoid_copies:
        from bonsaigan.appraise import original_seeds, read_real

        console = make_console()
        with progress_bar(console, "pictures") as progress:
            real = read_real(folder, moved=data, archive=archive, progress=progress)
        with console.status("looking for copies"):
            seeds, tried, bluntness = original_seeds(
                generator, real, count=n, seed=seed, truncation=truncation, device=where
            )
        say(f"{tried} seeds looked at, copies left out")
        if len(seeds) < n:
            say(f"most look like copies: {len(seeds)} of the {n} pictures asked for")
        n = len(seeds)
        for sentence in filter(None, (real.note, bluntness)):
            say(sentence)
    target = out or runs.output_folder(run, folder) / "generated"
    try:
        if grid:
            pictures = generator.images(generator.latents(seeds, truncation=truncation))
            path = target / f"grid-seed{seed:06d}-n{n}.png"
            save_grid(path, pictures, columns=max(1, round(n**0.5)))
            say(f"{n} pictures in {path}")
            return
        with progress_bar(make_console(), "pictures") as progress, ThreadPoolExecutor() as pool:
            for start in range(0, n, CHUNK):
                part = seeds[start : start + CHUNK]
                pictures = generator.images(generator.latents(part, truncation=truncation))
                paths = [target / f"seed{number:06d}.png" for number in part]
                list(pool.map(save_png, paths, pictures))
                progress(start + len(part), n)
    except OSError as error:
        raise ConfigError(f"--out {str(target)!r}: cannot write there: {error.strerror}") from None
    say(f"{n} pictures in {target}/")


def evaluate(
    run: OwnRunArgument = None,
    n: Annotated[
        int, typer.Option("-n", "--number", min=8, max=10_000, help="How many pictures to draw and score.")
    ] = 500,
    seed: Annotated[int, typer.Option(help="Seed of the first picture, and of the random subsets.")] = 0,
    features: Annotated[
        str, typer.Option(help="efficientnet-lite2, or inception (needs torch-fidelity).")
    ] = ("efficientnet-lite2"),
    latest: Annotated[bool, typer.Option("--latest", help="The latest weights instead of the best.")] = False,
    data: MovedOption = None,
    archive: ArchiveOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Score a generator against its pictures, and look for copies of them."""
    from rich.table import Table

    from bonsaigan import runs
    from bonsaigan.appraise import appraise, read_real
    from bonsaigan.device import choose_device

    folder = runs.find_run(run, trained=True)
    where = str(choose_device(device))  # pyright: ignore[reportArgumentType]  # it checks
    console = make_console()
    with progress_bar(console, "pictures") as progress:
        real = read_real(folder, moved=data, archive=archive, progress=progress)
    with console.status(f"drawing and scoring {n} pictures"):
        found = appraise(folder, real, count=n, seed=seed, network=features, latest=latest, device=where)
    scores, copies = found.scores, found.copies
    table = Table("measure", "generated", "floor: real against real", "better", box=None, pad_edge=False)
    for row in scores.rows():
        table.add_row(*row)
    console.print(table)
    say(
        f"{n} generated against {len(real.training)} training pictures, step {found.step}, "
        f"{scores.network}, {scores.filter}, seed {seed}"
    )
    for sentence in (scores.verdict, *scores.notes, copies.verdict, copies.comparison):
        say(sentence)
    say(
        f"numbers: {folder / runs.SCORES_FILE}; generated pictures beside the nearest training pictures: "
        f"{folder / runs.CLOSEST_FILE}"
    )


def report(run: RunArgument = None) -> None:
    """Write a page about a run, report.html: pictures, curves, scores, copies. It opens offline."""
    from bonsaigan import runs
    from bonsaigan.report.page import write_report

    folder = runs.find_run(run)
    say(str(write_report(folder, own=runs.output_folder(run, folder))))


def export(
    run: RunArgument = None,
    to: Annotated[str, typer.Option(help=f"{', '.join(EXPORTS)}.")] = "safetensors",
    out: Annotated[
        Path | None, typer.Option(help="The file or folder to write.", show_default="export/ in the run")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store weights as fp16: half the size.")] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="For web: a folder of the npm package onnxruntime-web, to be copied into the page's."
        ),
    ] = None,
    push: Annotated[
        str | None, typer.Option(help="OWNER/NAME: upload the safetensors to the Hugging Face hub.")
    ] = None,
    latest: Annotated[bool, typer.Option("--latest", help="The latest weights instead of the best.")] = False,
) -> None:
    """Write a generator for another program, and check there that it draws the same pictures."""
    from bonsaigan import hub, runs
    from bonsaigan.export.card import HERE, publishable
    from bonsaigan.export.targets import TARGETS
    from bonsaigan.export.targets import export as write
    from bonsaigan.generator import load

    if to not in TARGETS:
        raise ConfigError(f"--to {to!r}: choose one of {', '.join(TARGETS)}")
    if push is not None:
        if to != "safetensors":
            raise ConfigError(f"--push {push!r}: uploads --to safetensors, not --to {to}")
        hub.check_name(push, flag="--push")
    folder = runs.find_run(run)
    generator = load(folder, latest=latest)
    spec, card = publishable(folder, generator.spec, address=f"hf:{push}" if push else HERE, page=to == "web")
    target = out or runs.output_folder(run, folder) / "export" / TARGETS[to].name
    with make_console().status(f"writing and checking {TARGETS[to].name}"):
        written = write(generator, to=to, out=target, half=half, bundle=bundle, spec=spec, card=card)
    say(str(written))
    if push is not None:
        say(f"uploaded: {hub.push(written.path, push)}")


def import_keras(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .keras or .h5 file of an article's generator.")
    ],
    run: Annotated[
        str | None, typer.Option(help="Name of the run.", show_default="the file's name and a number")
    ] = None,
) -> None:
    """Make a run of a generator that Keras saved, so that `generate` and the rest take it."""
    from bonsaigan import runs
    from bonsaigan.data.sources import slug
    from bonsaigan.export.keras_file import import_keras as read
    from bonsaigan.generator import save_generator

    generator = read(file)
    folder = runs.create_run(run, source_name=slug(file.stem))
    save_generator(folder, generator.network, generator.spec)
    say(f"draw with: bonsaigan generate {runs.typed(folder)}")


def diagram(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="See `bonsaigan recipes`.")],
    size: Annotated[str, typer.Option(help="Picture size: 64, or WIDTHxHEIGHT like 96x64.")] = "64",
    out: Annotated[Path | None, typer.Option(help="Where to write.", show_default="diagrams/RECIPE")] = None,
) -> None:
    """Show the layers of a recipe's networks, and draw them with Graphviz."""
    import torch

    from bonsaigan import diagrams
    from bonsaigan.config import Size
    from bonsaigan.training import recipes

    chosen = recipes.find(recipe)
    config = recipes.default_config(chosen, Size.parse(size))
    generator, discriminator = chosen.generator(config).eval(), chosen.discriminator(config).eval()
    z = torch.zeros(2, config.network.latent)
    told = [torch.zeros(2, config.network.told)] if config.network.told else []
    judged = diagrams.composite(
        lambda images: chosen.judge(discriminator, [*chosen.view(discriminator, images), *told]),
        discriminator=discriminator,
    )
    combined = diagrams.composite(
        lambda latents: chosen.judge(discriminator, [*chosen.view(discriminator, generator(latents)), *told]),
        generator=generator,
        discriminator=discriminator,
    )
    images = torch.zeros(2, config.channels, config.data.size.height_px, config.data.size.width_px)
    networks = {
        "generator": (generator, (z,)),
        "discriminator": (judged, (images,)),
        "combined": (combined, (z,)),
    }
    merge = ("discriminator.features",) if chosen.split_view else ()
    for name, (network, inputs) in networks.items():
        say(diagrams.to_text(diagrams.layer_table(network, *inputs, merge=merge), name))
    for path in diagrams.write_diagrams(networks, out or Path("diagrams") / recipe, merge=merge):
        say(str(path))
    if not diagrams.dot_found():
        say(diagrams.NO_DOT_HINT)
