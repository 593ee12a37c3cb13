"""Arrays in files: round trips, and files that do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from utils.core.errors import BadInput
from utils.files.arrays import load_array, save_array


@pytest.mark.parametrize("name", ["a.npy", "a.dat", "a"])
def test_array_round_trip_under_any_name(tmp_path, name):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    save_array(tmp_path / name, array)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    loaded = load_array(tmp_path / name, (None, 3), "f", "advice")
    np.testing.assert_array_equal(loaded, array)
    assert loaded.dtype == array.dtype


@pytest.mark.parametrize(
    ("shape", "kind", "expected"),
    [((2, 4), "f", r"expected float \[2, 4\], found float32 \[2, 3\]"), ((2, 3), "i", "expected int"), ((6,), "f", "")],
)
def test_array_that_does_not_fit(tmp_path, shape, kind, expected):
    save_array(tmp_path / "a.npy", np.zeros((2, 3), np.float32))
    with pytest.raises(BadInput, match=rf"a\.npy.*{expected}"):
        load_array(tmp_path / "a.npy", shape, kind, "advice")
