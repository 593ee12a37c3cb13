"""Images: round trips and damaged files."""

from __future__ import annotations

import numpy as np
import pytest

from utils.core.errors import BadInput
from utils.files.image_files import read_gray, read_rgb, write_gray, write_rgb


def test_damaged_images(tmp_path):
    path = tmp_path / "a.png"
    write_gray(path, np.zeros((8, 8), np.uint8))
    path.write_bytes(path.read_bytes()[:40])
    for read in (read_gray, read_rgb):
        with pytest.raises(BadInput, match=r"a\.png.*take another"):
            read(path, "take another")


def test_images_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    gray, rgb = rng.integers(0, 256, (5, 7), np.uint8), rng.integers(0, 256, (5, 7, 3), np.uint8)
    write_gray(tmp_path / "new" / "gray.png", gray)
    write_rgb(tmp_path / "rgb.png", rgb)
    np.testing.assert_array_equal(read_gray(tmp_path / "new" / "gray.png", "advice"), gray)
    np.testing.assert_array_equal(read_rgb(tmp_path / "rgb.png", "advice"), rgb)
    write_rgb(tmp_path / "flat.jpg", np.full((16, 16, 3), (200, 100, 50), np.uint8))
    assert np.abs(read_rgb(tmp_path / "flat.jpg", "advice").astype(int) - (200, 100, 50)).max() <= 3
