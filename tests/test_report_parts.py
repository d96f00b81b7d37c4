"""The report's parts: numbers in words, axes, grids, pictures of a given size."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bonsaigan import plots
from bonsaigan.report import charts, words
from bonsaigan.report.images import cells_of, to_uri


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (words.count(1234567.4), "1,234,567"),
        (words.share(0.9375), "94%"),
        (words.span(48), "48 s"),
        (words.span(492), "8.2 min"),
        (words.span(2700), "45 min"),
        (words.span(5 * 3600), "5.0 h"),
        (words.span_of(405, 600), "6.8 of 10.0 minutes"),
        (words.number(-0.48), "−0.48"),
        (words.number(123456.0), "123,456"),
        (words.measure("kid", 0.0169), "16.9"),
        (words.measure("kid", 0.3135), "314"),
        (words.plus_minus("kid", -0.00001, 0.0025), "0.0 ± 2.5"),
        (words.plus_minus("coverage", 0.97, 0.02), "97% ± 2"),
        (words.plus_minus("diversity", 1.0, 0.014), "1.00 ± 0.01"),
    ],
)
def test_numbers_read_well(said: str, expected: str) -> None:
    assert said == expected


finite = st.floats(-1e6, 1e6)
positive = st.floats(1e-3, 1e4)


@given(st.lists(st.tuples(st.floats(0, 1e5), finite), min_size=1, max_size=600), st.floats(-10, 10))
def test_every_point_of_a_chart_lies_in_it(points: list[tuple[float, float]], level: float) -> None:
    points = sorted(points)
    chart = charts.draw(
        [charts.Series(name="a", points=points), charts.Series(name="none")],
        title="t",
        note="n",
        total_sec=points[-1][0],
        axis=charts.linear_axis([v for _, v in points], include=(level,)),
        best=points[0],
        floor=level,
        below_is_good=True,
    )
    (line,) = chart.lines
    numbers = [float(n) for n in re.split("[ ML]", line.path) if n]
    assert len(numbers) // 2 == min(len(points), charts.POINTS_MAX)
    marks = [(t.at, 100) for t in chart.x_ticks] + [(100, t.at) for t in chart.y_ticks]
    for x, y in [*zip(numbers[::2], numbers[1::2]), *marks]:
        assert charts.LEFT <= x <= charts.WIDTH - charts.RIGHT
        assert charts.TOP <= y <= charts.HEIGHT - charts.BOTTOM
    assert chart.x_ticks[0].label == "0"
    assert 2 <= len(chart.y_ticks) <= 8


@given(st.lists(positive, min_size=1, max_size=50))
def test_a_logarithmic_axis_takes_every_value(values: list[float]) -> None:
    axis = charts.log_axis([*values, -3.0], lowest=0.5)
    assert 0 < axis.low < axis.high
    assert 1 <= len(axis.ticks) <= 8
    assert all(0 <= axis.share(v) <= 1 for v in (*values, *axis.ticks, -3.0))


@given(st.integers(0, 200), st.integers(2, 40))
def test_a_choice_keeps_both_ends(count: int, most: int) -> None:
    places = charts.evenly(count, most)
    assert len(places) == len(set(places)) == min(count, most)
    assert places == sorted(places)
    assert not places or (places[0], places[-1]) == (0, count - 1)


@given(st.integers(1, 20), st.integers(1, 5), st.sampled_from([1, 3, 4]), st.integers(1, 3))
def test_a_grid_can_be_cut_again(count: int, columns: int, channels: int, gap_px: int) -> None:
    pictures = np.random.default_rng(count).integers(0, 255, (count, 4, 3, channels), dtype=np.uint8)
    grid = plots.make_grid(pictures, columns=columns, gap_px=gap_px)
    cells = cells_of(grid, height=4, width=3, columns=columns, gap_px=gap_px)
    np.testing.assert_array_equal(np.stack(cells), pictures)
    assert cells_of(grid[:-1], height=4, width=3, columns=columns, gap_px=gap_px) == []


def test_a_picture_is_made_to_fit() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 500, 4), dtype=np.uint8)
    for limit in (3000, 30_000):
        uri = to_uri(noise, limit_bytes=limit, widest_px=400)
        data = base64.b64decode(uri.partition(",")[2])
        assert len(data) <= limit
        with Image.open(io.BytesIO(data)) as image:
            assert image.width <= 400
