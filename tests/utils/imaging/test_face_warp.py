"""Warp of a face: moved and fixed pixels, and the source of the mouth's inside."""

import numpy as np
import pytest

from utils.core.errors import BadInput
from utils.imaging.face_warp import MouthPicture, compose_reference, face_triangles, warp_face
from utils.imaging.landmarks import INNER_LIPS, LOWER_INNER_LIP, UPPER_INNER_LIP
from utils.weights import packs

SIZE = 128
LOWER_LIP = (*INNER_LIPS[11:], 17, 84, 181, 91, 146, 314, 405, 321, 375)


@pytest.fixture
def landmarks(mini_face) -> np.ndarray:
    """The mini pack's mean face, its mouth a little open, in pixels of an image of 128."""
    points = mini_face.copy()
    low, high = points.min(axis=0), points.max(axis=0)
    points = (points - low) / (high - low).max() * 96 + 16
    gap = 3 - (points[LOWER_INNER_LIP, 1] - points[UPPER_INNER_LIP, 1])
    points[list(LOWER_LIP), 1] += gap
    return points


@pytest.fixture
def mini_face() -> np.ndarray:
    from safetensors.numpy import load_file

    mean = load_file(packs.face_mesh())["meanshape"].reshape(-1, 3)
    return mean[:, :2] * (1, -1)


def coordinates() -> np.ndarray:
    """An image whose red is 2 x its column and whose green is 2 x its row."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return np.stack([2 * columns, 2 * rows, np.zeros_like(rows)], axis=-1).astype(np.uint8)


def test_a_face_that_stays_is_the_same_image(landmarks):
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    assert np.array_equal(warp_face(image, landmarks, landmarks), image)


def test_a_shifted_face_is_the_shifted_image(landmarks):
    shown = warp_face(coordinates(), landmarks, landmarks + (5, -3))
    expected = coordinates()[8:-8, 8:-8].astype(int) - (10, -6, 0)
    assert np.abs(shown[8:-8, 8:-8] - expected).max() <= 1


def test_landmarks_move_to_their_targets(landmarks):
    target = landmarks + np.random.default_rng(1).normal(0, 0.3, landmarks.shape)
    target[list(LOWER_LIP)] += (0, 4)
    shown = warp_face(coordinates(), landmarks, target)
    for index in (UPPER_INNER_LIP, LOWER_INNER_LIP, 4, 61, 291):
        column, row = np.rint(target[index]).astype(int)
        np.testing.assert_allclose(shown[row, column, :2] / 2, landmarks[index], atol=2.0)


def test_a_window_is_a_part_of_the_whole(landmarks):
    image = np.random.default_rng(2).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    target = landmarks * 1.05
    whole = warp_face(image, landmarks, target)
    assert np.array_equal(warp_face(image, landmarks, target, (30, 40, 90, 100)), whole[40:100, 30:90])


def test_between_the_lips_another_frame_shows(landmarks):
    face, mouth_face = np.full((SIZE, SIZE, 3), 50, np.uint8), np.full((SIZE, SIZE, 3), 200, np.uint8)
    target = landmarks.copy()
    target[list(LOWER_LIP), 1] += 8
    shown = compose_reference(face, landmarks, [MouthPicture(mouth_face, landmarks)], target, SIZE)
    middle = target[[UPPER_INNER_LIP, LOWER_INNER_LIP]].mean(axis=0).astype(int)
    assert shown[middle[1], middle[0], 0] > 180
    outside = np.ones((SIZE, SIZE), bool)
    low, high = (
        target[list(INNER_LIPS)].min(axis=0).astype(int) - 8,
        target[list(INNER_LIPS)].max(axis=0).astype(int) + 9,
    )
    outside[low[1] : high[1], low[0] : high[0]] = False
    assert (shown[outside] == 50).all()


def test_mouths_are_mixed_by_their_shares_at_any_size(landmarks):
    """The second picture is cut out of a frame twice as large."""
    face, dark, bright = (np.full((SIZE, SIZE, 3), level, np.uint8) for level in (50, 100, 200))
    large = np.repeat(np.repeat(bright, 2, axis=0), 2, axis=1)[60:, 40:]
    mouths = [MouthPicture(dark, landmarks, 0.75), MouthPicture(large, landmarks * 2 - (40, 60), 0.25)]
    target = landmarks.copy()
    target[list(LOWER_LIP), 1] += 8
    shown = compose_reference(face, landmarks, mouths, target, SIZE)
    column, row = target[[UPPER_INNER_LIP, LOWER_INNER_LIP]].mean(axis=0).astype(int)
    assert abs(int(shown[row, column, 0]) - 125) <= 3


def test_a_window_of_a_composed_reference_is_a_part_of_the_whole(landmarks):
    image = np.random.default_rng(3).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    arguments = (image, landmarks, [MouthPicture(image, landmarks)], landmarks * 1.03, SIZE)
    whole, part = compose_reference(*arguments), compose_reference(*arguments, window=(30, 70, 100, 110))
    assert np.abs(whole[70:110, 30:100].astype(int) - part).max() <= 1  # the blur at the window's edge


def test_a_mouth_outside_the_image_changes_nothing(landmarks):
    image = coordinates()
    away = landmarks + (3 * SIZE, 0)
    assert np.array_equal(compose_reference(image, away, [MouthPicture(image, away)], away, SIZE), image)


def test_a_turned_face_shows_no_triangle_from_behind(landmarks):
    """One side of the face folded over: without the test for the front, its colours cover the visible side."""
    target = landmarks.copy()
    nose = target[4, 0]
    right = target[:, 0] > nose + 20
    target[right, 0] = 2 * (nose + 20) - target[right, 0]
    shown = warp_face(coordinates(), landmarks, target)
    column, row = np.rint(target[4]).astype(int)
    assert abs(shown[row, column, 0] / 2 - landmarks[4, 0]) <= 2


def test_triangles_cover_the_face_without_a_hole(landmarks):
    triangles, n_outside, n_mesh = face_triangles()
    edges: dict[tuple[int, int], int] = {}
    for corners in triangles[n_outside:]:
        for a, b in zip(corners, np.roll(corners, -1), strict=True):
            edge = (min(a, b), max(a, b))
            edges[edge] = edges.get(edge, 0) + 1
    assert n_mesh == 852
    assert set(edges.values()) == {1, 2}
    assert sum(count == 1 for count in edges.values()) == 36  # only the face oval is a border


def test_without_the_mini_pack_the_missing_file_is_named(monkeypatch, tmp_path, landmarks):
    monkeypatch.setattr(packs, "MINI_DIR", tmp_path)
    face_triangles.cache_clear()
    with pytest.raises(BadInput, match=r"face_model\.safetensors") as caught:
        warp_face(coordinates(), landmarks, landmarks)
    assert "\n" not in str(caught.value)
