from __future__ import annotations

import numpy as np
import pytest

from models.face_tracker import MediaPipeTracker, smooth_runs, track_face
from utils.geometry import face_box_from_68, landmarks_68
from utils.types import N_LANDMARKS

N_FRAMES = 30


class RecordedTracker:
    """Gives recorded landmarks, one frame after the other."""

    def __init__(self, landmarks: list[np.ndarray | None]) -> None:
        self._landmarks = iter(landmarks)

    def __call__(self, frame: np.ndarray) -> np.ndarray | None:
        return next(self._landmarks)

    def __enter__(self) -> RecordedTracker:
        return self

    def __exit__(self, *error: object) -> None:
        return None


@pytest.fixture
def trembling():
    """Landmarks of a face that stands still, with one pixel of noise; frames 10 to 12 show nothing."""
    rng = np.random.default_rng(0)
    face = rng.uniform(100, 300, (N_LANDMARKS, 3)).astype(np.float32)
    face[152, 1] = 310  # the chin is below the rest, the bridge of the nose in the upper half
    face[195, 1] = 200
    landmarks = [face + rng.normal(0, 1, face.shape).astype(np.float32) for _ in range(N_FRAMES)]
    return [None if 10 <= index < 13 else points for index, points in enumerate(landmarks)]


def track(landmarks: list[np.ndarray | None], smoothing: str):
    frames = (np.zeros((400, 400, 3), np.uint8) for _ in landmarks)
    return track_face(frames, RecordedTracker(landmarks), smoothing)


def test_without_smoothing_every_box_follows_its_own_frame(trembling):
    result = track(trembling, "none")
    for index, points in enumerate(trembling):
        assert result.valid[index] == (points is not None)
        if points is None:
            assert not result.landmarks[index].any()
        else:
            assert np.array_equal(result.landmarks[index], points)
            assert np.array_equal(result.boxes[index], face_box_from_68(landmarks_68(points[:, :2])))


def test_smoothing_steadies_the_box_or_all(trembling):
    plain, box, everything = (track(trembling, smoothing) for smoothing in ("none", "box", "all"))

    def tremble(values):
        valid_pairs = plain.valid[1:] & plain.valid[:-1]
        return np.abs(np.diff(values.astype(float), axis=0))[valid_pairs].mean()

    assert tremble(box.boxes) < 0.5 * tremble(plain.boxes)
    assert np.array_equal(box.landmarks, plain.landmarks)
    assert tremble(everything.landmarks) < 0.8 * tremble(plain.landmarks)
    for result in (box, everything):
        assert np.array_equal(result.valid, plain.valid)


def test_frames_before_and_after_a_gap_do_not_mix():
    values = np.array([0.0, 0.0, 0.0, 99.0, 10.0, 10.0])
    valid = np.array([True, True, True, False, True, True])
    assert smooth_runs(values, valid, sigma=2.0).tolist() == values.tolist()


def test_a_clip_without_a_face_has_no_valid_frame():
    result = track([None] * 3, "box")
    assert len(result) == 3
    assert not result.valid.any()


def test_mediapipe_finds_the_face_of_a_photograph():
    from skimage.data import astronaut

    photograph = astronaut()
    with MediaPipeTracker() as tracker:
        points = tracker(photograph)
        assert tracker(np.zeros_like(photograph)) is None
    assert points.shape == (N_LANDMARKS, 3)
    nose_tip, chin, forehead = points[4], points[152], points[10]
    assert forehead[1] < nose_tip[1] < chin[1]
    assert np.linalg.norm(nose_tip[:2] - (224, 128)) < 20  # where the photograph has it, in pixels
