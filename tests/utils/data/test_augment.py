from __future__ import annotations

import numpy as np
import pytest

from utils.data import augment as au
from utils.imaging.images import truncate_to_bytes


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def test_whole_image_at_its_own_size_is_unchanged(image):
    placement = au.Placement(left=0.0, top=0.0, side=1.0, mirrored=False)
    assert np.array_equal(placement.apply(image, 64), image)
    assert np.array_equal(au.ColorChange(1.0, 1.0, 1.0).apply(image), image)


def test_placement_cuts_and_mirrors(image):
    placement = au.Placement(left=0.25, top=0.5, side=0.5, mirrored=True)
    assert np.array_equal(placement.apply(image, 32), image[32:, 16:48][:, ::-1])
    assert placement.apply(image[..., 0], 16).shape == (16, 16)


def test_placement_keeps_to_the_image(image):
    for left in (0.0, 0.0999, 0.1):
        assert au.Placement(left, left, 0.9, mirrored=False).apply(image, 20).shape == (20, 20, 3)


def test_no_augmentation_changes_nothing(image):
    rng = np.random.default_rng(0)
    assert np.array_equal(au.sample_placement(au.NO_AUGMENTATION, rng).apply(image, 64), image)
    assert np.array_equal(au.sample_color(au.NO_AUGMENTATION, rng).apply(image), image)
    assert au.sample_shift(au.NO_AUGMENTATION, 64, rng) == (0, 0)


def test_ranges_are_the_reference_s():
    rng, augment = np.random.default_rng(0), au.Augmentation()
    placements = [au.sample_placement(augment, rng) for _ in range(500)]
    areas = np.array([placement.side**2 for placement in placements])
    assert 0.8 <= areas.min() < 0.82 and 0.98 < areas.max() <= 1.0
    assert all(p.left + p.side <= 1 and p.top + p.side <= 1 and not p.mirrored for p in placements)
    colors = [au.sample_color(augment, rng) for _ in range(500)]
    assert 0.9 <= min(c.brightness for c in colors) < 0.91 and 1.09 < max(c.contrast for c in colors) <= 1.1
    assert 0.05 < np.mean([c.saturation == 0 for c in colors]) < 0.15
    shifts = np.array([au.sample_shift(augment, 256, rng) for _ in range(500)])
    assert np.abs(shifts).max() == 5  # 2 % of 256


def test_colors(image):
    gray = au.ColorChange(1.0, 1.0, 0.0).apply(image)
    assert np.ptp(gray.astype(int), axis=2).max() <= 1
    dark = au.ColorChange(0.5, 1.0, 1.0).apply(image)
    assert np.abs(dark.astype(int) - image // 2).max() <= 1
    flat = au.ColorChange(1.0, 0.0, 1.0).apply(image)
    assert np.ptp(flat) <= 1


def test_shift_moves_content_and_fills_with_black():
    image = np.arange(1, 17, dtype=np.uint8).reshape(4, 4)
    moved = au.shift_image(image, 1, -2)
    assert np.array_equal(moved[:2, 1:], image[2:, :3])
    assert not moved[2:].any() and not moved[:, 0].any()


def test_bytes_are_rounded_down():
    assert truncate_to_bytes(np.float32([-1, 0, 0.999, 1, 2])).tolist() == [0, 0, 254, 255, 255]
