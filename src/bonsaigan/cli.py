"""The commands: parse, call, print. Heavy imports stay inside the command that needs them.

Here stand those that need no run; those that make one are in `cli_train.py`, those that use one in
`cli_run.py`, and those that walk in what it learnt in `cli_explore.py`.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from bonsaigan import cli_explore, cli_run, cli_train
from bonsaigan.data.files import visible
from bonsaigan.errors import BonsaiganError, ConfigError, TrainingError, first_line
from bonsaigan.terminal import ArchiveOption, FitOption, SizeOption, make_console, plain, progress_bar

STOPPED = 130
"""Exit status after Ctrl-C."""
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Image generators grown from small sets of pictures, on ordinary machines.",
)


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


cli_train.register(app)


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
