from __future__ import annotations

import numpy as np
import pytest

from utils.imaging.contact_sheet import GAP, LABEL_HEIGHT, cut_tile, draw_sheet, spread_frames, view_around


def test_spread_frames():
    assert spread_frames(100, 8) == [0, 14, 28, 42, 57, 71, 85, 99]
    assert spread_frames(3, 8) == [0, 1, 2]
    assert spread_frames(1) == [0]
    assert spread_frames(0) == []


def test_view_is_a_square_around_the_box_or_the_middle():
    x1, y1, x2, y2 = view_around((480, 640), np.array([100, 50, 200, 170], np.int32))
    assert x2 - x1 == y2 - y1 == 2 * int(60 * 1.3)
    assert (x1 + x2, y1 + y2) == (300, 220)
    assert view_around((480, 640), None) == (80, 0, 560, 480)


def test_tile_is_black_outside_the_image_and_has_three_channels():
    tile = cut_tile(np.full((20, 20), 255, np.uint8), (-20, 0, 20, 40), size=40)
    assert tile.shape == (40, 40, 3)
    assert tile[:20, 20:].min() == 255
    assert tile[:, :20].max() == 0
    assert tile[20:].max() == 0


def test_sheet_puts_every_tile_in_its_place():
    columns = [[np.full((10, 10, 3), 10 * (row + 3 * column), np.uint8) for row in range(3)] for column in range(2)]
    sheet = draw_sheet(columns, ["0", "9"])
    assert sheet.shape == (LABEL_HEIGHT + 3 * (10 + GAP) + GAP, 2 * (10 + GAP) + GAP, 3)
    for column in range(2):
        for row in range(3):
            top, left = LABEL_HEIGHT + GAP + row * (10 + GAP), GAP + column * (10 + GAP)
            assert (sheet[top : top + 10, left : left + 10] == 10 * (row + 3 * column)).all()
    assert not np.array_equal(sheet, draw_sheet(columns, ["0", "8"]))


def test_sheet_needs_columns_and_labels():
    with pytest.raises(ValueError, match="label"):
        draw_sheet([], [])
    with pytest.raises(ValueError, match="label"):
        draw_sheet([[np.zeros((4, 4, 3), np.uint8)]], [])
