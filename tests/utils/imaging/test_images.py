"""The 8-bit depth image."""

from __future__ import annotations

import numpy as np

from utils.imaging.images import depth_to_uint8


def test_near_is_bright_far_is_dark_background_is_black():
    depth = np.array([[0.0, 9.0], [10.0, 11.0]], np.float32)
    np.testing.assert_array_equal(depth_to_uint8(depth), [[0, 255], [127, 0]])


def test_nothing_rendered_gives_a_black_image():
    assert not depth_to_uint8(np.zeros((5, 7), np.float32)).any()


def test_a_flat_surface_is_all_bright():
    np.testing.assert_array_equal(depth_to_uint8(np.full((2, 2), 10.0, np.float32)), 255)
