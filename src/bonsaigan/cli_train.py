"""The commands that make a run: train, resume."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from bonsaigan.errors import ConfigError
from bonsaigan.terminal import (
    ArchiveOption,
    DataArgument,
    DeviceOption,
    FitOption,
    MovedOption,
    OwnRunArgument,
    SizeOption,
    make_console,
    progress_bar,
)

if TYPE_CHECKING:
    from rich.console import Console

    from bonsaigan.training.session import Conclude, Plan

MinutesOption = Annotated[
    float | None, typer.Option(help="Budget in minutes of training.", show_default="10")
]
KimgOption = Annotated[float | None, typer.Option(help="Budget in thousands of pictures shown.")]
StepsOption = Annotated[int | None, typer.Option(help="Budget in steps.")]
RunOption = Annotated[
    str | None, typer.Option(help="Name of the run.", show_default="the data's name and a number")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (train, resume):
        app.command()(command)


def train(
    context: typer.Context,
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
        str,
        typer.Option(
            help="L (grey), RGB or RGBA (transparent); auto: L if all are grey, RGBA if half are transparent."
        ),
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
    from bonsaigan import processes, runs
    from bonsaigan.training import session

    console = make_console()
    if resume:
        if run is None:
            raise ConfigError("--resume: give --run NAME, so that it is known which run to go on with")
        if session.is_begun(run):
            moved = processes.from_first(_check_same(context, run, data) if processes.is_first() else None)
            _resume(
                str(runs.named(run)),
                moved,
                minutes=minutes,
                kimg=kimg,
                steps=steps,
                archive=archive,
                device=device,
            )
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
    if dry_run:
        _dry_run(console, plan, device)
        return
    session.start(plan, run=run, device=wishes.device, console=console, conclude=_conclude(console))


def resume(
    run: OwnRunArgument = None,
    minutes: Annotated[
        float | None, typer.Option(help="A new budget in minutes, from the beginning.")
    ] = None,
    kimg: Annotated[float | None, typer.Option(help="A new budget in thousands of pictures.")] = None,
    steps: Annotated[int | None, typer.Option(help="A new budget in steps.")] = None,
    data: MovedOption = None,
    archive: ArchiveOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Go on with a run from its last saved step."""
    _resume(run, data, minutes=minutes, kimg=kimg, steps=steps, archive=archive, device=device)


def _check_same(context: typer.Context, run: str, data: str) -> str | None:
    """Make sure that all that was typed holds for a run that is there already; DATA, if it names a new place.

    Raises:
        ConfigError: a flag says otherwise than the run's settings.
    """
    from bonsaigan import runs
    from bonsaigan.config import Size
    from bonsaigan.data.files import expanded
    from bonsaigan.data.sources import typed_in

    folder = runs.named(run)
    config = runs.read_config(folder)
    begun = {
        "recipe": config.recipe,
        "size": config.data.size,
        "batch": config.batch,
        "accumulate": config.accumulate,
        "lr": config.optimizer.generator_lr,
        "width": config.network.width,
        "init": config.init,
        "seed": config.seed,
        "fit": config.data.fit,
        "mode": config.data.mode,
        "no_flip": "flip" not in config.augment,
        "holdout": config.data.holdout,
        "precision": config.precision,
        "patience": config.patience,
        "evaluate": config.evaluate,
        "dry_run": False,
    }
    options = {option.name: option for option in context.command.params}
    for name, value in begun.items():
        source = context.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE":
            continue
        given = context.params[name]
        if name == "size":
            given = Size.parse(given)
        elif name == "init":
            given = str(runs.named(given))  # it may be gone by now
        measured = given == "auto" and name in ("precision", "mode")
        if given != value and not measured:
            flag = options[name].secondary_opts[0] if given is False else options[name].opts[0]
            raise ConfigError(
                f"{flag}{'' if isinstance(given, bool) else f' {given}'}: --run {run!r} is there already and "
                "goes on by its own settings; leave it out, or choose another name"
            )
    before = typed_in(folder.absolute().parent.parent, config.data.source) or config.data.source
    same = os.path.realpath(expanded(data)) == os.path.realpath(expanded(before))  # `photos` is `photos/`
    return None if same else data


def _resume(
    run: str | None,
    data: str | None,
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
            data=data,
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


def _dry_run(console: Console, plan: Plan, device: str) -> None:
    from bonsaigan.device import choose_device, memory_for
    from bonsaigan.training.loop import measure_begin_sec, measure_step_sec
    from bonsaigan.training.recipes import find

    plan.tell(console)
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
