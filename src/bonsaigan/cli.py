"""The commands: parse, call, print. Heavy imports stay inside the command that needs them.

Here stand those that make a run; those that use one are in `cli_run.py`, and those that walk in what it
learnt in `cli_explore.py`.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from bonsaigan import cli_explore, cli_run
from bonsaigan.data.files import visible
from bonsaigan.errors import BonsaiganError, ConfigError, TrainingError, first_line
from bonsaigan.terminal import (
    ArchiveOption,
    DeviceOption,
    OwnRunArgument,
    make_console,
    plain,
    progress_bar,
)

if TYPE_CHECKING:
    from rich.console import Console

    from bonsaigan.training.session import Conclude, Plan

STOPPED = 130
"""Exit status after Ctrl-C."""
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Image generators grown from small sets of pictures, on ordinary machines.",
)

DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder, a .zip or .tar(.gz) archive, caltech101:CATEGORY, hf:OWNER/NAME, or demo:bonsai.",
    ),
]
SizeOption = Annotated[str, typer.Option(help="Picture size: 64, or WIDTHxHEIGHT like 96x64.")]
FitOption = Annotated[
    str | None,
    typer.Option(
        help="crop, pad or squash pictures to the size.", show_default="crop; of the recipe article, squash"
    ),
]
MinutesOption = Annotated[
    float | None, typer.Option(help="Budget in minutes of training.", show_default="10")
]
KimgOption = Annotated[float | None, typer.Option(help="Budget in thousands of pictures shown.")]
StepsOption = Annotated[int | None, typer.Option(help="Budget in steps.")]
RunOption = Annotated[
    str | None, typer.Option(help="Name of the run.", show_default="the data's name and a number")
]


def main() -> None:
    """Run a command; a user's mistake becomes one line and exit status 2."""
    for stream in (sys.stdout, sys.stderr):  # a file in a narrow encoding loses a letter, not the work
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except BonsaiganError as error:
        _refuse(str(error), own=type(error) is TrainingError)
    except OSError as error:
        if error.strerror is None:
            raise
        _refuse(f"{error.filename}: {error.strerror}" if error.filename else error.strerror, own=True)
    except (MemoryError, RuntimeError) as error:
        from bonsaigan.device import lacks_memory

        if not lacks_memory(error):
            raise
        said = first_line(error)
        _refuse(f"no memory left for that; ask for fewer or smaller pictures ({said:.80})", own=True)
    except SystemExit as end:
        if end.code == STOPPED:  # typer's own way to end at Ctrl-C, without a word
            print("bonsaigan: stopped", file=sys.stderr)
        raise


def _refuse(why: str, *, own: bool = False) -> NoReturn:
    """Say why, once: torchrun's other processes say the same, but for what is this one's `own` trouble."""
    if own or os.environ.get("LOCAL_RANK", "0") == "0":
        print("bonsaigan:", visible(why).replace("\n", "\\n"), file=sys.stderr)
    raise SystemExit(2)


@app.command()
def doctor(
    data: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="As for `train`; not with --self.")
    ] = None,
    size: SizeOption = "64",
    fit: FitOption = None,
    archive: ArchiveOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write the picture of what the crop keeps.", show_default="doctor.png"),
    ] = None,
    itself: Annotated[
        bool, typer.Option("--self", help="Examine this installation instead, and try a step.")
    ] = False,
) -> None:
    """Say what is wrong with a folder of pictures, and what training would do about it."""
    from rich.table import Table

    from bonsaigan.config import DataConfig, Size
    from bonsaigan.data.doctor import crop_figure
    from bonsaigan.data.doctor import doctor as examine
    from bonsaigan.data.sources import open_source

    console = make_console()
    if itself == (data is not None):
        raise ConfigError("give either DATA, to examine pictures, or --self, to examine the installation")
    if data is None:
        if (size, fit, archive, out) != ("64", None, None, None):
            raise ConfigError("--size, --fit, --archive and --out are for pictures: not with --self")
        from bonsaigan.selfcheck import examine as look

        for name, value in look():
            console.print(f"{name:<32} {plain(value)}", highlight=False)
        return
    target = _beside(data, out)
    config = DataConfig(
        source=data,
        archive=archive,
        size=Size.parse(size),
        fit=fit or "crop",  # pyright: ignore[reportArgumentType]  # checked by DataConfig
    )
    with progress_bar(console, "pictures") as progress:
        source = open_source(data, archive=archive, size=config.size, progress=progress)
        diagnosis = examine(source, config, progress=progress)
    rows = diagnosis.rows()
    if rows:
        table = Table("file", "what", "then", "why", box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(plain(cell) for cell in row))
        console.print(table)
    console.print(plain(diagnosis.summary))
    if diagnosis.used:
        figure = crop_figure(source, diagnosis)
        try:
            figure.save(target)
        except (OSError, ValueError, KeyError) as error:  # no such format, or one that is only read
            said = f"no such format: {error}" if isinstance(error, KeyError) else error
            raise ConfigError(f"--out {str(target)!r}: cannot write there: {said}") from None
        console.print(f"what the crop keeps: {plain(str(target))}", highlight=False)


@app.command()
def train(
    data: DataArgument,
    recipe: Annotated[str, typer.Option(help="See `bonsaigan recipes`.")] = "projected",
    size: SizeOption = "64",
    minutes: MinutesOption = None,
    kimg: KimgOption = None,
    steps: StepsOption = None,
    run: RunOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run if it is there already, by its own settings.")
    ] = False,
    batch: Annotated[int | None, typer.Option(help="Pictures a step.", show_default="the recipe's")] = None,
    accumulate: Annotated[int, typer.Option(help="Passes that a batch is taken in, for less memory.")] = 1,
    lr: Annotated[
        float | None,
        typer.Option(
            help="The generator's first learning rate; all others follow.", show_default="the recipe's"
        ),
    ] = None,
    width: Annotated[int | None, typer.Option(help="Generator width.", show_default="the recipe's")] = None,
    init: Annotated[
        str | None, typer.Option(metavar="RUN", help="Start from the networks of another run.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The source of all randomness.")] = 0,
    fit: FitOption = None,
    mode: Annotated[
        str, typer.Option(help="Colours: L (greyscale), RGB, RGBA (transparent), or as most pictures are.")
    ] = "auto",
    no_flip: Annotated[
        bool, typer.Option("--no-flip", help="Never mirror the pictures: for lettering and the like.")
    ] = False,
    holdout: Annotated[
        float, typer.Option(help="Share of the pictures kept out of training, 0 to 0.5.")
    ] = 0.0,
    archive: ArchiveOption = None,
    device: DeviceOption = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    patience: Annotated[
        int, typer.Option(help="Stop after so many scores without a better one; 0 never.")
    ] = 0,
    evaluate: Annotated[
        bool, typer.Option("--evaluate/--no-evaluate", help="Score while training and at its end.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure a step, show the settings, stop.")
    ] = False,
) -> None:
    """Train a generator on a set of pictures."""
    from bonsaigan import processes
    from bonsaigan.training import session

    console = make_console()
    if resume:
        if run is None:
            raise ConfigError("--resume: give --run NAME, so that it is known which run to go on with")
        if session.is_begun(run):
            if processes.is_first():
                _check_same(run, data, dry_run=dry_run)
            _resume(run, minutes=minutes, kimg=kimg, steps=steps, archive=archive, device=device)
            return
    wishes = session.Wishes(
        recipe=recipe,
        size=size,
        minutes=minutes,
        kimg=kimg,
        steps=steps,
        batch=batch,
        accumulate=accumulate,
        lr=lr,
        width=width,
        init=init,
        seed=seed,
        fit=fit,  # pyright: ignore[reportArgumentType]  # checked by DataConfig
        mode=mode,  # pyright: ignore[reportArgumentType]  # checked by DataConfig
        flip=not no_flip,
        holdout=holdout,
        archive=archive,
        device=device,  # pyright: ignore[reportArgumentType]  # checked by choose_device
        precision=precision,  # pyright: ignore[reportArgumentType]  # checked by choose_precision
        patience=patience,
        evaluate=evaluate,
    )
    with progress_bar(console, "pictures") as progress:
        plan = session.plan(data, wishes, progress=progress)
    _tell_plan(console, plan)
    if dry_run:
        _dry_run(console, plan, device)
        return
    session.start(plan, run=run, device=wishes.device, console=console, conclude=_conclude(console))


@app.command()
def resume(
    run: OwnRunArgument = None,
    minutes: Annotated[
        float | None, typer.Option(help="A new budget in minutes, from the beginning.")
    ] = None,
    kimg: Annotated[float | None, typer.Option(help="A new budget in thousands of pictures.")] = None,
    steps: Annotated[int | None, typer.Option(help="A new budget in steps.")] = None,
    archive: ArchiveOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Go on with a run from its last saved step."""
    _resume(run, minutes=minutes, kimg=kimg, steps=steps, archive=archive, device=device)


@app.command()
def recipes() -> None:
    """Show the table of recipes."""
    from rich.table import Table

    from bonsaigan.training.recipes import RECIPES

    table = Table("recipe", "what it is", "loss", "from", box=None, pad_edge=False)
    for recipe in RECIPES.values():
        table.add_row(f"[bold]{recipe.name}", recipe.summary, recipe.loss.name, recipe.source)
    make_console().print(table)


cli_run.register(app)
cli_explore.register(app)


def _beside(data: str, out: Path | None) -> Path:
    """Where `doctor` writes: never among the pictures, of which its own would be one the next time."""
    from bonsaigan.data.files import expanded

    inside = Path(os.path.realpath(expanded(data)))  # `resolve` fails on a link that leads to itself
    target = Path("doctor.png") if out is None else out
    if not (inside.is_dir() and Path(os.path.realpath(target)).is_relative_to(inside)):
        return target
    if out is not None:
        raise ConfigError(f"--out {str(out)!r}: lies among the pictures of DATA; name another place")
    return inside.parent / "doctor.png"


def _check_same(run: str, data: str, *, dry_run: bool) -> None:
    """Make sure that to go on with a run is what `train --resume` was meant to do."""
    from bonsaigan import runs
    from bonsaigan.data.files import expanded

    if dry_run:
        raise ConfigError(f"--dry-run: --run {run!r} is there already, and --resume would go on with it")
    before = runs.read_config(runs.named(run)).data.source
    if os.path.realpath(expanded(data)) != os.path.realpath(expanded(before)):  # `photos` is `photos/`
        raise ConfigError(
            f"--resume: --run {run!r} was trained on {before!r}, not on {data!r}; choose another name"
        )


def _resume(
    run: str | None,
    *,
    minutes: float | None,
    kimg: float | None,
    steps: int | None,
    archive: str | None,
    device: str,
) -> None:
    from bonsaigan.config import Budget
    from bonsaigan.training import session

    console = make_console()
    budget = Budget.asked(minutes=minutes, kimg=kimg, steps=steps)
    with progress_bar(console, "pictures") as progress:
        session.resume(
            run,
            budget=budget,
            archive=archive,
            device=device,  # pyright: ignore[reportArgumentType]  # checked by choose_device
            console=console,
            progress=progress,
            conclude=_conclude(console),
        )


def _conclude(console: Console) -> Conclude:
    from functools import partial

    from bonsaigan.conclude import conclude

    return partial(conclude, console=console)


def _tell_plan(console: Console, plan: Plan) -> None:
    config, manifest = plan.config, plan.prepared.manifest
    count = len(plan.prepared.pictures)
    left_out = manifest["left_out"]
    console.print(f"{count} pictures from {plain(str(manifest['source']))}", highlight=False)
    if manifest.get("licence"):
        console.print(f"licence: {plain(str(manifest['licence']))}", highlight=False)
    if manifest.get("citation"):
        console.print(f"cite: {plain(str(manifest['citation']))}", highlight=False)
    for entry in left_out[:10]:
        console.print(f"left out: {plain(entry['name'])}: {plain(entry['reason'])}", highlight=False)
    if len(left_out) > 10:
        console.print(f"and {len(left_out) - 10} more; all of them are listed in data.json", highlight=False)
    console.print(
        f"recipe {config.recipe}, {config.data.size} px, batch {config.batch}, {config.precision}, "
        f"{config.budget}, seed {config.seed}",
        highlight=False,
    )


def _dry_run(console: Console, plan: Plan, device: str) -> None:
    from bonsaigan.device import choose_device, memory_for
    from bonsaigan.training.loop import measure_begin_sec, measure_step_sec
    from bonsaigan.training.recipes import find

    where = choose_device(device)  # pyright: ignore[reportArgumentType]
    with memory_for(plan.config):
        step_sec = measure_step_sec(plan.config, plan.training_pictures, device=where)
        begin_sec = measure_begin_sec(plan.config, plan.training_pictures, device=where)
    console.print_json(plan.config.to_json(), ensure_ascii=True)
    budget, recipe = plan.config.budget, find(plan.config.recipe)
    step_nimg = recipe.step_nimg(plan.config)
    if budget.minutes is not None:
        steps = max(0.0, budget.minutes * 60 - begin_sec) / step_sec
        console.print(f"{step_sec:.3f} s a step: about {steps:.0f} steps in {budget}", highlight=False)
    else:
        steps = budget.steps if budget.steps is not None else (budget.kimg or 0) * 1000 / step_nimg
        minutes = (begin_sec + steps * step_sec) / 60
        console.print(f"{step_sec:.3f} s a step: {budget} take about {minutes:.1f} minutes", highlight=False)
    usual = recipe.defaults(plan.config.data.size).batch
    if recipe.milestones and plan.config.batch == usual:
        when = ", ".join(
            f"{what} after {steps:,} steps ({(begin_sec + steps * step_sec) / 60:.1f} minutes here)"
            for steps, what in recipe.milestones
        )
        console.print(f"128 photographs at 64 px were {when}; larger pictures take more", highlight=False)
