from __future__ import annotations

import cv2
import numpy as np
import pytest

from utils.core.types import N_LANDMARKS
from utils.imaging.landmarks import OUTER_LIPS
from utils.imaging.masks import JAW_LINE, NOSE, UNDER_NOSE, lower_face_mask, mouth_mask

SIZE = (200, 180)  # height, width
CENTER_X, UNDER_NOSE_Y, MOUTH_Y, CHIN_Y = 90, 95, 125, 170


def face(chin_y: float = CHIN_Y) -> np.ndarray:
    """Landmarks of a schematic face: a half ellipse of jaw, an ellipse of lips, a nose above."""
    points = np.full((N_LANDMARKS, 2), (CENTER_X, 30.0), np.float32)
    angles = np.linspace(np.pi, 0, len(JAW_LINE))
    points[list(JAW_LINE)] = np.stack((CENTER_X + 70 * np.cos(angles), 100 + (chin_y - 100) * np.sin(angles)), axis=1)
    points[list(UNDER_NOSE)] = np.stack((np.linspace(50, 130, len(UNDER_NOSE)), np.full(7, UNDER_NOSE_Y)), axis=1)
    angles = np.linspace(0, 2 * np.pi, len(OUTER_LIPS), endpoint=False)
    points[list(OUTER_LIPS)] = np.stack((CENTER_X - 25 * np.cos(angles), MOUTH_Y - 12 * np.sin(angles)), axis=1)
    points[list(NOSE)] = np.stack((np.linspace(75, 105, len(NOSE)), np.linspace(70, 90, len(NOSE))), axis=1)
    return points


def hull_region(landmarks: np.ndarray) -> np.ndarray:
    region = np.zeros(SIZE, np.uint8)
    hull = cv2.convexHull(np.rint(landmarks[list(JAW_LINE + UNDER_NOSE)]).astype(np.int32))
    cv2.fillConvexPoly(region, hull, 1)
    return region.astype(bool)


def test_mouth_mask_is_one_on_the_lips_only():
    mask = mouth_mask(face(), SIZE)
    assert mask.dtype == np.uint8 and mask.shape == SIZE
    assert mask[MOUTH_Y, CENTER_X] == 1
    assert np.isclose(mask.sum(), np.pi * 25 * 12, rtol=0.1)


def test_mouth_mask_truncates_coordinates():
    whole = np.floor(face())
    assert np.array_equal(mouth_mask(whole + np.float32(0.9), SIZE), mouth_mask(whole, SIZE))


def test_lower_face_mask_is_exactly_zero_outside_the_hull_and_on_the_nose():
    mask = lower_face_mask(face(), SIZE)
    assert mask.dtype == np.float32 and mask.shape == SIZE
    assert (mask[~hull_region(face())] == 0).all()
    assert mask.min() == 0 and mask.max() == 1


def test_the_mouth_is_shown_in_full():
    assert lower_face_mask(face(), SIZE)[mouth_mask(face(), SIZE) == 1].min() == 1


def test_a_nose_that_hangs_into_the_hull_stays_as_it_was():
    bowed = face()
    bowed[list(NOSE)] += (0, 25)
    mask = lower_face_mask(bowed, SIZE)
    assert all(mask[int(y), int(x)] == 0 for x, y in np.rint(bowed[list(NOSE)]))


def test_an_open_jaw_is_covered_and_the_old_chin_too():
    closed, opened = face(), face(chin_y=188)
    both = lower_face_mask(closed, SIZE, opened)
    assert both[180, CENTER_X] > 0 and lower_face_mask(closed, SIZE)[180, CENTER_X] == 0
    assert lower_face_mask(opened, SIZE, closed)[165, CENTER_X] > 0
    assert (both[~(hull_region(closed) | hull_region(opened))] == 0).all()


def test_the_feather_grows_inwards():
    sharp, soft = lower_face_mask(face(), SIZE, feather=0.0), lower_face_mask(face(), SIZE, feather=0.1)
    assert np.array_equal(sharp > 0, soft > 0)
    assert set(np.unique(sharp)) == {0.0, 1.0}
    assert (soft <= sharp).all() and soft.sum() < sharp.sum()


def test_the_mask_fades_towards_the_borders_of_the_image():
    cut_at_the_chin = lower_face_mask(face(), (CHIN_Y - 10, 180))
    assert cut_at_the_chin[-1].max() < 0.1


@pytest.mark.parametrize("shift", [(-1000, 0), (0, 1000)])
def test_a_face_outside_the_image_leaves_the_mask_empty(shift):
    moved = face() + np.float32(shift)
    assert not lower_face_mask(moved, SIZE).any() and not mouth_mask(moved, SIZE).any()
