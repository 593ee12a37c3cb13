"""Tracking: one record per frame, smoothing within unbroken runs, MediaPipe on a real face."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from models.pipeline.options import Smoothing
from models.tracking.dwpose import DWPose, FrameWindow
from models.tracking.face_tracker import DWPoseTracker, MediaPipeTracker, smooth_runs, track_face
from tests.helpers import media
from tests.helpers.dot_network import write_fixed_network
from utils.core.types import N_LANDMARKS, TrackedFace
from utils.files.disk_arrays import BLOCK_ROWS
from utils.imaging.geometry import face_box_from_68, five_points, landmarks_68

ROOT = Path(__file__).resolve().parents[3]

MODES = get_args(Smoothing)


class ScriptedTracker:
    """Gives a prepared face (or one of prepared landmarks), or None, whatever the frame shows."""

    def __init__(self, script: Sequence[TrackedFace | np.ndarray | None]) -> None:
        self._script = iter(script)

    def __call__(self, _frame: np.ndarray) -> TrackedFace | None:
        face = next(self._script)
        return TrackedFace(face, landmarks_68(face[:, :2])) if isinstance(face, np.ndarray) else face

    def __enter__(self) -> ScriptedTracker:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def face(shift: float = 0.0) -> np.ndarray:
    points = np.random.default_rng(0).uniform(20, 120, (N_LANDMARKS, 3)).astype(np.float32)
    return points + np.float32(shift)


def track(script: Sequence[TrackedFace | np.ndarray | None], smoothing: str = "none", fps: float = 25):
    frames = media.blank_frames(len(script), 16)
    return track_face(frames, ScriptedTracker(script), smoothing, fps)


@pytest.mark.parametrize("smoothing", MODES)
def test_frames_without_a_face_are_zero_and_invalid(smoothing):
    result = track([None, face(), face(1), None, face(2), None], smoothing)
    assert result.valid.tolist() == [False, True, True, False, True, False]
    assert len(result) == 6
    assert (result.landmarks.dtype, result.boxes.dtype, result.valid.dtype) == (np.float32, np.int32, bool)
    assert not result.landmarks[~result.valid].any()
    assert not result.boxes[~result.valid].any()
    assert not result.five_points[~result.valid].any()
    assert (result.boxes[result.valid, 2:] > result.boxes[result.valid, :2]).all()


@pytest.mark.parametrize("smoothing", MODES)
def test_clips_without_any_face_and_without_any_frame(smoothing):
    assert not track([None] * 3, smoothing).valid.any()
    empty = track([], smoothing)
    assert (empty.landmarks.shape, empty.boxes.shape, len(empty)) == ((0, N_LANDMARKS, 3), (0, 4), 0)
    assert empty.five_points.shape == (0, 5, 2)


def test_no_smoothing_is_the_reference():
    script = [face(shift) for shift in (0, 9, 3)]
    result = track(script)
    np.testing.assert_array_equal(result.landmarks, np.stack(script))
    points = landmarks_68(np.stack(script)[..., :2])
    np.testing.assert_array_equal(result.boxes, face_box_from_68(points))
    np.testing.assert_array_equal(result.five_points, five_points(points))


def test_box_smoothing_steadies_the_box_alone():
    rng = np.random.default_rng(1)
    script = [face(shift) for shift in rng.normal(0, 4, 30)]
    plain, box, everything = (track(script, mode) for mode in MODES)
    np.testing.assert_array_equal(box.landmarks, plain.landmarks)
    np.testing.assert_array_equal(box.five_points, plain.five_points)
    jitter = [np.abs(np.diff(result.boxes[:, 0])).mean() for result in (plain, box)]
    assert jitter[1] < jitter[0] / 2
    for steady, shaky in ((everything.landmarks, plain.landmarks), (everything.five_points, plain.five_points)):
        assert np.abs(np.diff(steady, axis=0)).mean() < 0.6 * np.abs(np.diff(shaky, axis=0)).mean()


def test_smoothing_lasts_as_long_at_any_rate():
    """A face that moves to and fro at 1.5 Hz and is lost in between, filmed at 25 and at 50 frames/s."""

    def filmed(fps: int) -> list[np.ndarray | None]:
        times = np.arange(4 * fps) / fps
        return [None if 2 <= t < 2.2 else face(30 * np.sin(2 * np.pi * 1.5 * t)) for t in times]

    for mode in ("box", "all"):
        slow, fast = track(filmed(25), mode), track(filmed(50), mode, fps=50)
        np.testing.assert_array_equal(fast.valid[::2], slow.valid)
        inner = slow.valid & ~np.isin(np.arange(100) % 50, [*range(45, 50), *range(10)])  # ends repeat another frame
        np.testing.assert_allclose(fast.boxes[::2][inner], slow.boxes[inner], atol=1.01)
        np.testing.assert_allclose(fast.landmarks[::2][inner], slow.landmarks[inner], atol=0.3)
        np.testing.assert_allclose(fast.five_points[::2][inner], slow.five_points[inner], atol=0.3)
    plain = track(filmed(50), "none", fps=50)
    np.testing.assert_array_equal(plain.landmarks[7], filmed(50)[7])


def test_a_face_without_extent_is_no_face():
    result = track([face(), np.full((N_LANDMARKS, 3), 50, np.float32), face()])
    assert result.valid.tolist() == [True, False, True]
    assert not result.landmarks[1].any()


def test_smoothing_stays_within_runs():
    values = np.array([5.0, 5, 5, 0, 0, 100, 100, 7])[:, None]
    valid = np.array([1, 1, 1, 0, 0, 1, 1, 0], bool)
    expected = values.copy()
    smooth_runs(values, valid, 2.0)
    np.testing.assert_allclose(values, expected)
    step = np.array([0.0, 0, 0, 10, 10, 10])[:, None]
    smooth_runs(step, np.ones(6, bool), 1.0)
    assert (np.diff(step[:, 0]) > 0).all()
    assert step.mean() == pytest.approx(5)


@pytest.mark.parametrize(
    ("dtype", "sigma"), [(np.float32, 0.7), (np.float64, 2.0), (np.float32, 200.0), (np.float64, 0.05)]
)
def test_stretches_of_a_run_are_smoothed_as_one(dtype, sigma):
    """Bit for bit, with runs longer and shorter than a block, and filters that span several."""
    values = np.random.default_rng(3).normal(0, 50, (3 * BLOCK_ROWS + 40, 2, 2)).astype(dtype)
    valid = np.ones(len(values), bool)
    valid[[5, 2 * BLOCK_ROWS + 30]] = False
    expected = values.copy()
    for run in (slice(0, 5), slice(6, 2 * BLOCK_ROWS + 30), slice(2 * BLOCK_ROWS + 31, None)):
        expected[run] = gaussian_filter1d(values[run], sigma, axis=0, mode="nearest")
    smooth_runs(values, valid, sigma)
    np.testing.assert_array_equal(values, expected)


MEMORY = """
import sys
import numpy as np
from models.tracking.face_tracker import track_face
from utils.imaging.geometry import landmarks_68
from utils.core.types import TrackedFace
def peak():  # of this process alone: ru_maxrss starts with its parent's
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024
class Tracker:
    def __call__(self, frame):
        landmarks = np.random.default_rng(int(frame)).uniform(20, 120, (468, 3)).astype(np.float32)
        return TrackedFace(landmarks, landmarks_68(landmarks[:, :2])) if frame % 100 else None
n, smoothing = int(sys.argv[1]), sys.argv[2]
track_face(np.arange(10), Tracker(), smoothing)
before = peak()
track = track_face(np.arange(n), Tracker(), smoothing)
assert track.valid.sum() > 0.7 * n
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured in other units")
@pytest.mark.parametrize("smoothing", ["none", "all"])
def test_the_landmarks_of_a_long_clip_are_not_held(smoothing):
    command = [sys.executable, "-c", MEMORY, "9000", smoothing]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    assert int(result.stdout) < 25  # MiB; the landmarks are 48, and their smoothed copy as many


@pytest.fixture(scope="module")
def portrait_landmarks() -> np.ndarray:
    with MediaPipeTracker() as tracker:
        return tracker(media.portrait()).landmarks


def test_mediapipe_finds_the_features(portrait_landmarks):
    x, y, _ = portrait_landmarks.T
    assert portrait_landmarks.shape == (N_LANDMARKS, 3)
    assert portrait_landmarks.dtype == np.float32
    assert (x > 0).all() and (x < 192).all() and (y > 0).all() and (y < 192).all()
    brow, nose_tip, upper_lip, lower_lip, chin = y[[9, 4, 13, 14, 152]]
    assert brow < nose_tip < upper_lip <= lower_lip < chin
    assert x[33] < x[4] < x[263]


def test_landmarks_are_pixels_of_frames_of_any_shape(portrait_landmarks):
    wide = np.pad(media.portrait(), ((10, 20), (60, 100), (0, 0)), mode="edge")
    with MediaPipeTracker() as tracker:
        found = tracker(wide).landmarks
    assert np.abs(found[:, :2] - portrait_landmarks[:, :2] - (60, 10)).mean() < 2.5


def test_face_that_leaves_and_returns_silently(capfd):
    frames = [*media.face_frames(3), *media.blank_frames(3), *media.face_frames(3)]
    with MediaPipeTracker() as tracker:
        result = track_face(frames, tracker, "box")
    assert result.valid.tolist() == [True] * 3 + [False] * 3 + [True] * 3
    assert capfd.readouterr() == ("", "")


def test_same_clip_same_track():
    tracks = []
    for _ in range(2):
        with MediaPipeTracker() as tracker:
            tracks.append(track_face(media.face_frames(4), tracker).landmarks)
    np.testing.assert_array_equal(tracks[0], tracks[1])


def seen_by_dwpose(tmp_path: Path, points: np.ndarray, score: float | np.ndarray = 1.0) -> DWPoseTracker:
    """A tracker whose DWPose sees the 68 ``points`` in every frame of the portrait's size."""
    window = FrameWindow(192, 192)
    network = write_fixed_network(tmp_path / "fixed.onnx", (points - window.corner) / window.pixel, score)
    return DWPoseTracker(DWPose.load(network, flip_test=False), MediaPipeTracker())


def test_dwpose_gives_the_box_and_the_alignment(tmp_path, portrait_landmarks):
    bin_size = FrameWindow(192, 192).pixel / 2
    expected = landmarks_68(portrait_landmarks[:, :2]) + (3, -4)
    with seen_by_dwpose(tmp_path, expected) as tracker:
        result = track_face([media.portrait(), np.zeros((192, 192, 3), np.uint8)], tracker, "none")
    assert tracker.n_kept == 0
    assert result.valid.tolist() == [True, False]
    np.testing.assert_allclose(result.five_points[0], five_points(expected), atol=bin_size / 2 + 1e-3)
    np.testing.assert_allclose(result.boxes[0], face_box_from_68(expected), atol=2)
    np.testing.assert_array_equal(result.landmarks[0], portrait_landmarks)


@pytest.mark.parametrize(("shift", "score"), [(0.0, 0.25), (60.0, 1.0)], ids=["unsure", "another face"])
def test_mediapipe_fills_in_for_dwpose(tmp_path, portrait_landmarks, shift, score):
    points = landmarks_68(portrait_landmarks[:, :2])
    with seen_by_dwpose(tmp_path, points + shift, score) as tracker:
        result = track_face([media.portrait()], tracker, "none")
    assert tracker.n_kept == 1
    np.testing.assert_array_equal(result.five_points[0], five_points(points))


def test_one_point_not_found_keeps_mediapipes(tmp_path, portrait_landmarks):
    points = landmarks_68(portrait_landmarks[:, :2])
    scores = np.ones(len(points))
    scores[5] = 0
    with seen_by_dwpose(tmp_path, points, scores) as tracker:
        np.testing.assert_array_equal(tracker(media.portrait()).points68, points)
    assert tracker.n_kept == 1


def test_points_are_steadied_apart_from_the_landmarks():
    landmarks = face()
    points = landmarks_68(landmarks[:, :2])
    jitter = np.random.default_rng(2).normal(0, 3, (30, 1, 2)).astype(np.float32)
    plain, box, everything = (track([TrackedFace(landmarks, points + j) for j in jitter], m) for m in MODES)
    np.testing.assert_allclose(plain.five_points, five_points(points + jitter), rtol=1e-5)
    np.testing.assert_array_equal(plain.boxes, face_box_from_68(points + jitter))
    np.testing.assert_array_equal(box.five_points, plain.five_points)
    assert np.abs(np.diff(everything.five_points, axis=0)).mean() < 0.6 * np.abs(np.diff(jitter, axis=0)).mean()
    np.testing.assert_allclose(everything.landmarks, np.tile(landmarks, (30, 1, 1)), rtol=1e-5)


MESSAGES = """
import logging, threading, time
from tqdm import tqdm
from models.tracking.mediapipe import without_native_logs

silent, n = threading.Event(), 20

def speak():
    silent.wait()
    for number in range(n):
        logging.getLogger("decoder").warning("damaged %d", number)
        tqdm.write(f"frame {number}", file=__import__("sys").stderr)

speaker = threading.Thread(target=speak)
speaker.start()
while speaker.is_alive():
    with without_native_logs():
        silent.set()
        time.sleep(0.01)
"""


def test_what_another_thread_says_is_not_silenced():
    """The decoder runs beside MediaPipe; its warning of damage comes once."""
    said = subprocess.run([sys.executable, "-c", MESSAGES], cwd=ROOT, capture_output=True, text=True, check=True).stderr
    assert said.split() == [word for n in range(20) for word in ("damaged", str(n), "frame", str(n))]
