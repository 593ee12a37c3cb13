"""Boxes, landmark tables and crops: properties that hold for any frame."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from utils.imaging.geometry import (
    LANDMARKS_68,
    Alignment,
    align_five_points,
    crop_box,
    face_box_from_68,
    five_points,
    landmarks_68,
    resize_image,
)

ALIGNMENTS = [
    Alignment(640, 480, 0.82, (307.7, 276.1)),
    Alignment(720, 1280, 0.41, (381.0, 755.7)),
    Alignment(300, 200, 2.3, (20.0, 60.0)),
]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_68_points_are_distinct():
    assert len(set(LANDMARKS_68.tolist())) == 68
    assert LANDMARKS_68.min() >= 0 and LANDMARKS_68.max() < 468


def test_landmarks_68_keeps_leading_dimensions(rng):
    landmarks = rng.normal(size=(3, 468, 2))
    np.testing.assert_array_equal(landmarks_68(landmarks)[2, 30], landmarks[2, 4])


def test_five_points_are_eye_centres_nose_and_mouth_corners():
    points = np.arange(68.0)[:, None].repeat(2, axis=1)
    np.testing.assert_allclose(five_points(points)[:, 0], [37.5, 43.5, 30, 48, 54])


def test_face_box_puts_the_nose_bridge_in_the_middle_and_truncates():
    points = np.full((2, 68, 2), 50.0)
    points[:, 0] = [10.9, 60.0]
    points[:, 16] = [90.9, 60.0]
    points[:, 8] = [50.0, 120.7]
    points[:, 29] = [50.0, 55.0]
    np.testing.assert_array_equal(face_box_from_68(points), [[10, -10, 90, 120]] * 2)


@pytest.mark.parametrize("box", [(-14, -3, 20, 25), (5, 6, 15, 12), (30, 10, 60, 50), (100, 100, 110, 110)])
def test_crop_box_is_black_outside(rng, box):
    image = rng.integers(1, 256, (40, 50, 3)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(image).crop(box))
    np.testing.assert_array_equal(crop_box(image, np.array(box)), expected)


def test_an_empty_box_is_refused():
    with pytest.raises(ValueError, match="empty"):
        crop_box(np.zeros((4, 4), np.uint8), np.array([3, 3, 3, 9]))


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_crop_points_round_trip(rng, alignment):
    points = rng.uniform(0, 500, (7, 468, 2))
    np.testing.assert_allclose(alignment.from_crop(alignment.to_crop(points)), points, atol=1e-9)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_crop_image_equals_resizing_the_whole_frame_first(rng, alignment):
    frame = rng.integers(0, 256, (alignment.height, alignment.width, 3)).astype(np.uint8)
    scaled = Image.fromarray(frame).resize(alignment.scaled_size, Image.Resampling.BICUBIC)
    left, up = alignment.left, alignment.up
    expected = np.asarray(scaled.crop((left, up, left + 224, up + 224)))
    differences = np.abs(alignment.crop_image(frame).astype(int) - expected)
    assert differences.max() <= 1 and (differences > 0).mean() < 0.005


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("box", [(-20, -30, 150, 170), (40, 50, 240, 190), (0, 0, 2000, 2000), (-9, -9, -1, -1)])
def test_paste_to_box_equals_pasting_into_the_whole_frame_first(rng, alignment, box):
    depth = rng.integers(0, 256, (224, 224)).astype(np.uint8)
    left, up = alignment.left, alignment.up
    scaled_width, scaled_height = alignment.scaled_size
    canvas = Image.fromarray(depth).crop((-left, -up, scaled_width - left, scaled_height - up))
    frame = canvas.resize((alignment.width, alignment.height), Image.Resampling.BICUBIC)
    found = alignment.paste_to_box(depth, np.array(box))
    differences = np.abs(found.astype(int) - np.asarray(frame.crop(box)))
    assert differences.max() <= 1 and (differences > 0).mean() < 0.005


def test_alignment_centres_the_model_at_the_rescale_factor():
    model = np.array([[-0.3, 0.3, 0.4], [0.3, 0.3, 0.4], [0, 0, 0.7], [-0.25, -0.35, 0.4], [0.25, -0.35, 0.4]])
    pixels = np.stack([400 + 150 * model[:, 0], 300 - 150 * model[:, 1]], axis=1)
    alignment = align_five_points(pixels, model, 800, 600)
    assert alignment.scale == pytest.approx(102 / 150, rel=1e-6)
    centre = alignment.to_crop(np.array([[400.0, 300.0]]))[0]
    np.testing.assert_allclose(centre, [112, 112], atol=1.5)  # the corner is truncated to whole pixels


def test_points_without_extent_are_refused():
    model = np.random.default_rng(1).normal(size=(5, 3))
    with pytest.raises(ValueError, match="no extent"):
        align_five_points(np.full((5, 2), 7.0), model, 100, 100)


def test_resize_image_takes_width_before_height(rng):
    image = rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)
    assert resize_image(image, 12, 34, "area").shape == (34, 12, 3)
