"""What the commands share: a console, a progress bar, text that is safe to print, common options."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bonsaigan.data.files import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

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
RunArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]",
        help="A run's folder, its name under runs/, hf:OWNER/NAME, starter:bonsai, or nothing: the newest.",
    ),
]
OwnRunArgument = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="A run's folder, its name under runs/, or nothing: the newest."),
]
"""Where a training's own files are needed."""
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda (one of several: cuda:1) or mps.")]
MovedOption = Annotated[
    str | None, typer.Option("--data", metavar="DATA", help="Where the run's pictures are, if they moved.")
]
ArchiveOption = Annotated[
    str | None, typer.Option(help="A local copy of the Caltech-101 archive, instead of a download.")
]


@contextlib.contextmanager
def progress_bar(console: Console, what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar for files or bytes; it is there while there is something left, at most until the end."""
    from rich.progress import Progress

    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None, start=False, visible=False)

        def update(done: int, total: int | None) -> None:
            if total is not None:
                bar.start_task(task)
            bar.update(task, completed=done, total=total, visible=total is None or done < total)

        yield update


def make_console(*, quiet: bool = False) -> Console:
    """A console for any text: nothing in it acts on the terminal, and lines that go to a file are not folded.

    Of torchrun's processes the first one speaks. A notebook gets plain lines: rich's own display there asks
    for another package.
    """
    from rich.console import Console

    class CarefulConsole(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(visible(text), **options)

    return CarefulConsole(
        soft_wrap=sys.stdout is None or not sys.stdout.isatty(),
        quiet=quiet or os.environ.get("RANK", "0") != "0",
        force_jupyter=False,
    )


def say(text: str) -> None:
    """Print a line in which there may be names from anywhere."""
    print(visible(text))


def plain(text: str) -> str:
    """Text with nothing in it that rich would take for markup."""
    from rich.markup import escape

    return escape(text)
