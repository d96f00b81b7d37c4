"""Parts of a set that stay on the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonsaigan.data.selection import Selection, spread_out

PICTURES = np.random.default_rng(0).integers(0, 256, (20, 4, 6, 3), dtype=np.uint8)


@given(st.lists(st.integers(0, 19), max_size=20), st.data())
def test_it_reads_as_the_array_would(places: list[int], data: st.DataObject) -> None:
    index = np.array(places, dtype=np.int64)
    chosen, whole = Selection(PICTURES, index), PICTURES[index]
    assert (chosen.shape, chosen.dtype, chosen.ndim, len(chosen)) == (whole.shape, whole.dtype, 4, len(whole))
    np.testing.assert_array_equal(np.asarray(chosen), whole)
    np.testing.assert_array_equal(chosen[2:7], whole[2:7])
    if places:
        which = np.array(data.draw(st.lists(st.integers(0, len(places) - 1), max_size=5)), dtype=np.int64)
        np.testing.assert_array_equal(chosen[which], whole[which])
        np.testing.assert_array_equal(chosen[len(places) - 1], whole[-1])


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (10_000_000, 64, 64, 3)}
        )
        file.truncate(file.tell() + 10_000_000 * 64 * 64 * 3)  # 123 GB, none of it on the disk
    mapped = np.load(tmp_path / "huge.npy", mmap_mode="r")
    chosen = Selection(mapped, np.arange(0, 10_000_000, 2))
    assert chosen[np.array([3, 4_999_999])].shape == (2, 64, 64, 3)
    assert spread_out(chosen, 5).shape == (5, 64, 64, 3)
    with pytest.raises(ValueError, match="copied"):
        chosen.__array__(copy=False)


def test_a_sample_is_spread_over_the_set() -> None:
    np.testing.assert_array_equal(spread_out(PICTURES, 30), PICTURES)
    np.testing.assert_array_equal(spread_out(PICTURES, 3), PICTURES[[0, 10, 19]])
