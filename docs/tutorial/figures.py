"""Draws the tutorial's figures: python docs/tutorial/figures.py [FOLDER]

The networks' diagrams need the Graphviz program `dot`; the rest needs only what the package needs.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

HERE = Path(__file__).parent
INK, FAINT, ACCENT, WARM, PAPER = "#22303c", "#b8c4ce", "#2f7d4f", "#d9822b", "#ffffff"
DOTS_PER_INCH = 100
FRAME_MSEC, LAST_FRAME_MSEC = 1400, 3500

PICTURE = np.array([[0, 0, 1, 0, 0], [0, 0, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0], [0, 0, 1, 0, 0]])
PLUS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
SMALL = np.array([[1, 2], [3, 4]])
STAMP = np.array([[1, 2], [0, 1]])
WIDE_STAMP = np.array([[1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]])


def main() -> None:
    """Draw everything into the given folder, or beside this script."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    matplotlib.rcParams["svg.hashsalt"] = "bonsaigan"  # the same drawing is the same file
    save_animation(convolution_frames(), folder / "convolution.gif")
    save_animation(transposed_frames(STAMP, stride=1, cut=0), folder / "transposed_stride_1.gif")
    save_animation(transposed_frames(WIDE_STAMP, stride=2, cut=1), folder / "transposed_stride_2.gif")
    save_svg(draw_map(), folder / "map.svg")
    save_svg(draw_game(), folder / "game.svg")
    draw_networks(folder)
    for path in sorted(folder.iterdir()):
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


# ---------------------------------------------------------------------------------------------------------
# Convolutions, one window at a time


def convolution_frames() -> Iterator[Figure]:
    """A 3×3 filter goes over a 5×5 picture and leaves 3×3 numbers."""
    result = np.full((3, 3), np.nan)
    for row, column in np.ndindex(3, 3):
        window = PICTURE[row : row + 3, column : column + 3]
        result[row, column] = (window * PLUS).sum()
        figure, (left, middle, right) = panels((5, 3, 3))
        draw_grid(left, PICTURE, "picture, 5 × 5", mark=(row, column, 3, 3))
        draw_grid(middle, PLUS, "filter, 3 × 3", colour=ACCENT)
        draw_grid(right, result, "result, 3 × 3", mark=(row, column, 1, 1), top=5)
        pairs = [f"{a}·{b}" for a, b in zip(window.ravel(), PLUS.ravel()) if b]
        say(figure, f"the filter's ones pick  {' + '.join(pairs)}  =  {result[row, column]:.0f}")
        yield figure


def transposed_frames(stamp: np.ndarray, *, stride: int, cut: int) -> Iterator[Figure]:
    """Each number of a small map stamps a scaled filter on a larger one; overlapping stamps add up."""
    side = len(stamp)
    large = (len(SMALL) - 1) * stride + side
    result = np.zeros((large, large))
    top = stamped(stamp, stride=stride).max()
    for row, column in np.ndindex(*SMALL.shape):
        value = SMALL[row, column]
        place = row * stride, column * stride
        result[place[0] : place[0] + side, place[1] : place[1] + side] += value * stamp
        figure, (left, middle, right) = panels((2, side, large))
        draw_grid(left, SMALL, "small map, 2 × 2", mark=(row, column, 1, 1), top=4)
        draw_grid(middle, value * stamp, f"{value} × the filter", colour=ACCENT, top=4 * stamp.max())
        draw_grid(right, result, "larger map so far", mark=(*place, side, side), top=top, cut=cut)
        further = "" if value == SMALL[-1, -1] else f"; the next stamp lies {cells(stride)} further"
        say(figure, f"the {value} stamps {value} × the filter{further}")
        yield figure
    figure, (left, middle, right) = panels((2, side, large))
    draw_grid(left, SMALL, "small map, 2 × 2", top=4)
    draw_grid(middle, stamp, "filter", colour=ACCENT, top=4 * stamp.max())
    draw_grid(right, result, f"result, {large - 2 * cut} × {large - 2 * cut}", top=top, cut=cut)
    end = "the faint border is cut off: twice the side" if cut else "where stamps overlap, they have added up"
    say(figure, end)
    yield figure


def stamped(stamp: np.ndarray, *, stride: int) -> np.ndarray:
    """The whole transposed convolution of `SMALL`, before anything is cut off."""
    side = len(stamp)
    large = (len(SMALL) - 1) * stride + side
    result = np.zeros((large, large))
    for row, column in np.ndindex(*SMALL.shape):
        r, c = row * stride, column * stride
        result[r : r + side, c : c + side] += SMALL[row, column] * stamp
    return result


def cells(count: int) -> str:
    return "one cell" if count == 1 else f"{count} cells"


def panels(sides: tuple[int, int, int]) -> tuple[Figure, list[Axes]]:
    """Three grids beside each other, all cells of one size, and room below for a sentence."""
    unit = 0.42
    height = max(sides) * unit + 1.25
    figure = Figure(figsize=(6.8, height), dpi=DOTS_PER_INCH, facecolor=PAPER)
    gap = (6.8 - sum(sides) * unit) / 4
    left, axes = gap, []
    for side in sides:
        bottom = 0.65 + (max(sides) - side) * unit / 2
        place = (left / 6.8, bottom / height, side * unit / 6.8, side * unit / height)
        axes.append(figure.add_axes(place))
        left += side * unit + gap
    return figure, axes


def draw_grid(
    axes: Axes,
    values: np.ndarray,
    title: str,
    *,
    colour: str = INK,
    mark: tuple[int, int, int, int] | None = None,
    top: float | None = None,
    cut: int = 0,
) -> None:
    """A grid of numbers; `mark` frames (row, column, rows, columns), `cut` greys a border out."""
    rows, columns = values.shape
    top = top or max(1.0, float(np.nanmax(values)))
    for row, column in np.ndindex(rows, columns):
        value = values[row, column]
        known = not np.isnan(value)
        inside = cut <= row < rows - cut and cut <= column < columns - cut
        strength = 0.55 * float(value) / top if known else 0.0
        fill = blend(colour if colour != INK else "#4a90c2", strength) if inside else "#f2f4f6"
        axes.add_patch(Rectangle((column, row), 1, 1, facecolor=fill, edgecolor=FAINT, linewidth=0.8))
        if known:
            ink = INK if inside else FAINT
            axes.text(
                column + 0.5, row + 0.52, f"{value:.0f}", ha="center", va="center", color=ink, fontsize=11
            )
    if mark is not None:
        row, column, high, wide = mark
        axes.add_patch(Rectangle((column, row), wide, high, fill=False, edgecolor=WARM, linewidth=2.6))
    axes.set(xlim=(-0.06, columns + 0.06), ylim=(rows + 0.06, -0.06))
    axes.axis("off")
    axes.set_title(title, fontsize=11, color=INK, pad=7)


def say(figure: Figure, sentence: str) -> None:
    figure.text(0.5, 0.06, sentence, ha="center", va="bottom", fontsize=11, color=INK)


def blend(colour: str, share: float) -> tuple[float, float, float]:
    full, paper = (np.array(matplotlib.colors.to_rgb(c)) for c in (colour, PAPER))  # pyright: ignore
    red, green, blue = paper + (full - paper) * share
    return float(red), float(green), float(blue)


# ---------------------------------------------------------------------------------------------------------
# Maps

MAP: list[tuple[str, str, int, float, bool]] = [
    # (name, explanation, column, row, on our way)
    ("How machines learn", "", 0, 4.6, True),
    ("With the answers", "each example has a label", 1, 1.5, False),
    ("Without answers", "the examples are all there is", 1, 5.1, True),
    ("By reward", "try, and hear how well it went", 1, 7.9, False),
    ("Name it", "is this a bonsai?", 2, 1.0, False),
    ("Measure it", "how old is it?", 2, 2.1, False),
    ("Sort it", "which of these are alike?", 2, 3.7, False),
    ("Shorten it", "say it in few numbers", 2, 4.8, False),
    ("Make more of it", "draw one that is not there", 2, 6.3, True),
    ("Autoencoders (VAE)", "squeeze and unfold", 3, 4.0, False),
    ("Autoregression", "one piece after the other", 3, 5.1, False),
    ("Diffusion", "take noise away, step by step", 3, 6.2, False),
    ("GANs", "two networks, one game", 3, 7.6, True),
    ("DCGAN, 2015", "recipe `article`", 4, 6.9, True),
    ("Projected GAN, 2021", "recipe `projected`", 4, 8.2, True),
]
BRANCHES = {0: [1, 2, 3], 1: [4, 5], 2: [6, 7, 8], 8: [9, 10, 11, 12], 12: [13, 14]}


def draw_map() -> Figure:
    """Where GANs stand among the ways a machine can learn."""
    figure = Figure(figsize=(11.0, 5.0), facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.04, 5.0), ylim=(8.95, 0.4))
    axes.axis("off")
    width = 0.86
    for parent, children in BRANCHES.items():
        for child in children:
            start, stop, ours = MAP[parent], MAP[child], MAP[child][4] and MAP[parent][4]
            x0, x1, y0, y1 = start[2] + width, stop[2] + 0.0, start[3], stop[3]
            bend = np.linspace(0, 1, 30)
            line = y0 + (y1 - y0) * (3 * bend**2 - 2 * bend**3)
            colour, thick = (ACCENT, 2.4) if ours else (FAINT, 1.4)
            axes.plot(x0 + (x1 - x0) * bend, line, color=colour, linewidth=thick, zorder=1)
    for name, text, column, row, ours in MAP:
        box(axes, column, row - 0.42, width, 0.84, ours=ours)
        shift = 0.14 if text else 0
        axes.text(
            column + width / 2,
            row - shift,
            name,
            ha="center",
            va="center",
            fontsize=9.6,
            color=INK,
            weight="bold",
        )
        if text:
            axes.text(column + width / 2, row + 0.2, text, ha="center", va="center", fontsize=7.6, color=INK)
    return figure


def draw_game() -> Figure:
    """The two players and what passes between them."""
    figure = Figure(figsize=(9.4, 3.6), facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 9.4), ylim=(3.6, 0))
    axes.axis("off")
    nodes = {
        "noise": (0.2, 2.05, 1.5, "100 random\nnumbers", False),
        "generator": (2.3, 2.05, 1.7, "Generator\npaints", True),
        "fake": (4.6, 2.05, 1.5, "painted\npictures", False),
        "real": (4.6, 0.45, 1.5, "real\npictures", False),
        "judge": (6.7, 1.25, 1.7, "Discriminator\njudges", True),
    }
    for x, y, width, text, player in nodes.values():
        box(axes, x, y, width, 0.9, ours=player)
        weight = "bold" if player else "normal"
        axes.text(
            x + width / 2, y + 0.45, text, ha="center", va="center", fontsize=10, color=INK, weight=weight
        )
    for start, stop in (((1.7, 2.5), (2.3, 2.5)), ((4.0, 2.5), (4.6, 2.5)), ((6.1, 2.5), (6.7, 1.95))):
        arrow(axes, start, stop, INK)
    arrow(axes, (6.1, 0.9), (6.7, 1.45), INK)
    arrow(axes, (8.4, 1.7), (8.85, 1.7), INK)
    axes.text(8.9, 1.7, "real?", ha="left", va="center", fontsize=10, color=INK)
    arrow(axes, (7.55, 2.15), (3.15, 2.95), WARM, bend=-0.32)
    axes.text(5.4, 3.42, "how to look more real", ha="center", va="center", fontsize=9.5, color=WARM)
    arrow(axes, (9.1, 1.5), (7.9, 1.25), WARM, bend=0.75)
    axes.text(8.45, 0.62, "where it was wrong", ha="center", va="center", fontsize=9.5, color=WARM)
    return figure


def box(axes: Axes, x: float, y: float, width: float, height: float, *, ours: bool) -> None:
    face, edge = ("#e4f2e9", ACCENT) if ours else ("#f4f6f8", FAINT)
    shape = "round,pad=0,rounding_size=0.08"
    axes.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle=shape, facecolor=face, edgecolor=edge, linewidth=1.4, zorder=2
        )
    )


def arrow(
    axes: Axes, start: tuple[float, float], stop: tuple[float, float], colour: str, *, bend: float = 0.0
) -> None:
    style: dict[str, Any] = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.6}
    style["connectionstyle"] = f"arc3,rad={bend}"
    axes.annotate("", xy=stop, xytext=start, arrowprops=style, zorder=1)


# ---------------------------------------------------------------------------------------------------------
# Networks, and files


def draw_networks(folder: Path) -> None:
    """The diagrams of the article's networks, as `bonsaigan diagram article` draws them."""
    import torch

    from bonsaigan.config import Size
    from bonsaigan.diagrams import dot_found, draw, layer_table
    from bonsaigan.models.article import ArticleDiscriminator, ArticleGenerator

    if not dot_found():
        print("no Graphviz program `dot`: the networks' diagrams are left as they are")
        return
    size = Size.parse("64")
    for name, network, example in (
        ("generator", ArticleGenerator(size=size), torch.zeros(1, 100)),
        ("discriminator", ArticleDiscriminator(size=size), torch.zeros(1, 3, 64, 64)),
    ):
        (folder / f"{name}.svg").write_bytes(
            draw(layer_table(network, example), title=name).pipe(format="svg")
        )


def save_svg(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})


def save_animation(figures: Iterator[Figure], path: Path) -> None:
    """A GIF of few colours that stays on its last picture for a while."""
    frames = []
    for figure in figures:
        data = io.BytesIO()
        figure.savefig(data, format="png")
        frames.append(Image.open(data).convert("RGB"))
    every = Image.fromarray(np.concatenate([np.asarray(frame) for frame in frames]))
    palette = every.quantize(64)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [FRAME_MSEC] * (len(frames) - 1) + [LAST_FRAME_MSEC]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=times, loop=0, optimize=True)


if __name__ == "__main__":
    main()
