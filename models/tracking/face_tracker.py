"""Landmarks, box and alignment points of one face per frame, smoothed over time; trackers behind one protocol.

The original looks for a face three times: MTCNN for five points, DWPose for 68, S3FD for a box. If the boxes of MTCNN
and S3FD overlap well (IoU above 0.5) its box follows the rule of geometry.face_box_from_68, else it is MTCNN's.
Here the box always follows the rule, and the five points come from the same 68.

What that changes in the alignment: MTCNN marks the pupils, ``five_points`` the middles between the corners of each eye,
as the five-point model has them. Measured with MediaPipe's iris centres for the pupils (775 frames of eight talking
clips): a pupil lies 2 to 3.4 % of the eyes' distance above that middle (3.6 % away on average, blinks and gaze
included), and aligning with it makes the 224 px crop's scale 2.1 % smaller on average (4.8 % at most) and moves the
nose by 1.0 px of the crop (2.2 at most).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter1d

from models.tracking.mediapipe import FaceMesh
from utils.core.types import MOTION_FPS, N_LANDMARKS, FaceTrack, TrackedFace
from utils.files.disk_arrays import BLOCK_ROWS, RowList, RowStore, blocks_of, disk_zeros, release, rows_of
from utils.imaging.geometry import face_box_from_68, five_points, landmarks_68
from utils.media.timeline import time_scale

if TYPE_CHECKING:
    from models.tracking.dwpose import DWPose, DWPoseFace

BOX_SIGMA = 2.0  # frames at 25 Hz
LANDMARK_SIGMA = 0.7  # frames at 25 Hz
REACH = 4.0  # standard deviations, of a Gaussian over time
N_POINTS = 68
MIN_DWPOSE_SCORE = 0.3  # mean of the 68; DWPose's own pictures leave out points below it
MAX_DISAGREEMENT = 0.25  # of the face's height, mean distance of DWPose's points to MediaPipe's


class LandmarkTracker(Protocol):
    """Finds the landmarks of the main face in each frame of a clip, in order."""

    def __call__(self, frame: np.ndarray) -> TrackedFace | None:
        """uint8 RGB [H, W, 3] → the main face, or None without one."""
        ...

    def __enter__(self) -> LandmarkTracker: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class MediaPipeTracker:
    """MediaPipe FaceMesh in video mode with refined lips and eyes; its models come inside the wheel."""

    def __init__(self) -> None:
        self._mesh = FaceMesh()

    def __call__(self, frame: np.ndarray) -> TrackedFace | None:
        landmarks = self._mesh(frame)
        return None if landmarks is None else TrackedFace(landmarks, landmarks_68(landmarks[:, :2]))

    def __enter__(self) -> MediaPipeTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mesh.close()


class DWPoseTracker:
    """The face that ``mesh`` finds, its 68 points from DWPose; the landmarks, for masks and fitting, stay mesh's.

    mesh's own 68 points stay in frames where DWPose's score is low (MIN_DWPOSE_SCORE, or a point is not found) or its
    points are another face's (MAX_DISAGREEMENT); n_kept counts these frames. Without a face of mesh there is none.
    """

    def __init__(self, dwpose: DWPose, mesh: LandmarkTracker) -> None:
        self._dwpose, self._mesh = dwpose, mesh
        self.n_kept = 0

    def __call__(self, frame: np.ndarray) -> TrackedFace | None:
        face = self._mesh(frame)
        if face is None:
            return None
        found = self._dwpose(frame)
        if is_sure(found) and is_same_face(found.points, face.points68):
            return TrackedFace(face.landmarks, found.points)
        self.n_kept += 1
        return face

    def __enter__(self) -> DWPoseTracker:
        self._mesh.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mesh.__exit__(kind, error, trace)


def is_sure(found: DWPoseFace) -> bool:
    return bool(found.scores.min() > 0 and found.scores.mean() >= MIN_DWPOSE_SCORE)


def is_same_face(points: Float[np.ndarray, "68 2"], known: Float[np.ndarray, "68 2"]) -> bool:
    """Whether two sets of the 68 points can belong to one face; ``known`` gives its size."""
    height = np.ptp(known[:, 1])
    return bool(np.linalg.norm(points - known, axis=-1).mean() <= MAX_DISAGREEMENT * height)


def track_face(
    frames: Iterable[np.ndarray],
    tracker: LandmarkTracker,
    smoothing: str = "box",
    fps: float = MOTION_FPS,
    scratch: Path | None = None,
) -> FaceTrack:
    """Follow the face through a clip; frames, ``fps`` of them per second, are consumed one at a time.

    ``smoothing``: "none" as the reference, "box" steadies the crop box over time, "all" the landmarks and the
    68 points too, over the same time at any rate. The landmarks lie in ``scratch``.
    """
    found, points68 = RowList(RowStore((N_LANDMARKS, 3), scratch)), RowList(RowStore((N_POINTS, 2), scratch))
    seen: list[bool] = []
    for frame in frames:
        face = tracker(frame)
        seen.append(face is not None)
        if face is not None:
            found.append(face.landmarks)
            points68.append(face.points68)
    valid = np.array(seen, bool)
    landmarks = disk_zeros((len(valid), N_LANDMARKS, 3), scratch)
    points = np.zeros((len(valid), N_POINTS, 2), np.float32)
    for number, index in enumerate(rows_of(np.flatnonzero(valid), landmarks)):
        landmarks[index], points[index] = found[number], points68[number]
    return track_of(landmarks, points, valid, smoothing, fps)


def track_of(
    landmarks: Float[np.ndarray, "n 468 3"],
    points: Float[np.ndarray, "n 68 2"],
    valid: Bool[np.ndarray, " n"],
    smoothing: str,
    fps: float = MOTION_FPS,
) -> FaceTrack:
    """The track of landmarks and 68 points, source pixels, that are used in ``valid`` frames. See track_face.

    ``landmarks``, which may be a disk array, and ``points`` become the track's own.
    """
    valid, scale = valid.copy(), time_scale(fps)
    if smoothing == "all":
        for values in (landmarks, points):
            smooth_runs(values, valid, LANDMARK_SIGMA * scale)
    boxes = face_box_from_68(points)
    if smoothing in ("box", "all"):
        exact = boxes.astype(np.float64)
        smooth_runs(exact, valid, BOX_SIGMA * scale)
        boxes = np.rint(exact).astype(np.int32)
    valid &= (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    aligning = five_points(points)
    boxes[~valid], aligning[~valid] = 0, 0
    for block, is_known in zip(blocks_of(landmarks), blocks_of(valid), strict=True):
        block[~is_known] = 0
    return FaceTrack(landmarks, boxes, valid, aligning)


def smooth_runs(values: np.ndarray, valid: np.ndarray, sigma: float) -> None:
    """Gaussian smoothing over time (axis 0), in place, within each unbroken run of valid frames.

    A run is smoothed BLOCK_ROWS frames at a time, each time with as many around them as the filter reaches:

        before | begin ... end | after        before: as it was before it was smoothed
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], valid.astype(np.int8), [0]])))
    reach = int(REACH * sigma + 0.5)
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        before = values[start:start].copy()
        for begin in range(start, stop, BLOCK_ROWS):
            end = min(begin + BLOCK_ROWS, stop)
            part = np.concatenate([before, values[begin : min(end + reach, stop)]])
            n_before, n_done = len(before), len(before) + end - begin
            smoothed = gaussian_filter1d(part, sigma, axis=0, mode="nearest", radius=reach)
            values[begin:end] = smoothed[n_before:n_done]
            before = part[max(0, n_done - reach) : n_done]
            release(values)
