"""How many faces a frame shows, and the landmarks of the main one: what the choice of training clips looks at.

Two views complete each other. MediaPipe's FaceMesh follows up to MESH_FACES faces from frame to frame but overlooks
faces that are small in the picture. MediaPipe's full-range detector sees those, knows no landmarks, and looks at
every DETECT_EVERY-th frame and where the mesh finds nothing. What only the detector saw is tried again with the mesh
on a window around it, which it then follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

import numpy as np
from jaxtyping import Float, UInt8

from models.tracking.face_finder import Box, overlap, side_of
from models.tracking.face_tracker import (
    MIN_DETECTION_CONFIDENCE,
    MIN_TRACKING_CONFIDENCE,
    WARM_UP_FRAME,
    without_native_logs,
)
from models.tracking.mediapipe_solutions import mediapipe_solution
from utils.core.types import N_LANDMARKS
from utils.imaging.geometry import crop_box, face_box_from_68, landmarks_68

MESH_FACES = 3
DETECT_EVERY = 5  # frames
WINDOW = 3.0  # side of the window for a face that the mesh overlooks, in sides of the detector's box
SAME_FACE_OVERLAP = 0.2  # intersection over the smaller box from which two boxes are one face


@dataclass(frozen=True)
class Sighting:
    """The main face of a frame and its rival.

    landmarks: float32 [468, 3] in source pixels (z at the same scale), None if no landmarks were found.
    size: pixels, the shorter side of its face box, or of the detector's box where there are no landmarks; 0: no face.
    rival: size of the largest other face over that of the main one; 0 without another face.
    """

    landmarks: np.ndarray | None
    size: float
    rival: float


class FaceWatcher:
    """Looks at the frames of one video in order."""

    def __init__(self) -> None:
        face_mesh, face_detection = mediapipe_solution("face_mesh"), mediapipe_solution("face_detection")
        with without_native_logs():
            self._mesh = face_mesh.FaceMesh(
                static_image_mode=False,
                max_num_faces=MESH_FACES,
                refine_landmarks=True,
                min_detection_confidence=MIN_DETECTION_CONFIDENCE,
                min_tracking_confidence=MIN_TRACKING_CONFIDENCE,
            )
            self._detector = face_detection.FaceDetection(
                model_selection=1, min_detection_confidence=MIN_DETECTION_CONFIDENCE
            )
            for network in (self._mesh, self._detector):
                network.process(WARM_UP_FRAME)
        self._window: np.ndarray | None = None  # int [4], where the mesh looks; None: at the whole frame
        self._detected: list[Box] = []
        self._until_detection, self._had_faces = 0, False

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"]) -> Sighting:
        faces = self._mesh_faces(frame)
        is_lost, self._had_faces = self._had_faces and not faces, bool(faces)
        is_due = is_lost or self._until_detection == 0
        if is_due or not faces:
            self._detected = self._detect(frame)
        if is_due:
            self._until_detection = DETECT_EVERY
            if not faces and self._detected:
                faces = self._look_closer(frame, max(self._detected, key=side_of))
        self._until_detection -= 1
        self._had_faces |= bool(faces)
        if not faces:
            if self._window is not None:
                self._look_at(None)
            sizes = sorted(map(side_of, self._detected), reverse=True)
            return Sighting(None, sizes[0] if sizes else 0.0, sizes[1] / sizes[0] if len(sizes) > 1 else 0.0)
        boxes = [_box_of(face) for face in faces]
        main = int(np.argmax([side_of(box) for box in boxes]))
        if self._detected and not any(_is_one_face(box, boxes[main]) for box in self._detected):
            self._detected = self._detect(frame)  # another scene, or the face has gone far
        others = [box for index, box in enumerate(boxes) if index != main]
        others += [box for box in self._detected if not any(_is_one_face(box, seen) for seen in boxes)]
        size = side_of(boxes[main])
        return Sighting(faces[main], size, max(map(side_of, others), default=0.0) / size)

    def _mesh_faces(self, frame: np.ndarray) -> list[np.ndarray]:
        """Landmarks of every face that the mesh finds where it looks, in pixels of the frame."""
        x1, y1, x2, y2 = (0, 0, frame.shape[1], frame.shape[0]) if self._window is None else self._window.tolist()
        view = frame if self._window is None else crop_box(frame, self._window)
        with without_native_logs():
            result = self._mesh.process(np.ascontiguousarray(view))
        size, corner = np.array([x2 - x1, y2 - y1, x2 - x1], np.float32), np.array([x1, y1, 0], np.float32)
        found = [
            np.array([(p.x, p.y, p.z) for p in face.landmark[:N_LANDMARKS]], np.float32) * size + corner
            for face in result.multi_face_landmarks or []
        ]
        return [face for face in found if side_of(_box_of(face)) >= 1]

    def _look_closer(self, frame: np.ndarray, box: Box) -> list[np.ndarray]:
        x, y, half = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, max(box[2] - box[0], box[3] - box[1]) * WINDOW / 2
        self._look_at(np.rint([x - half, y - half, x + half, y + half]).astype(int))
        return self._mesh_faces(frame)

    def _look_at(self, window: np.ndarray | None) -> None:
        self._window = window
        with without_native_logs():
            self._mesh.reset()  # what it followed lies elsewhere in the new window
            self._mesh.process(WARM_UP_FRAME)

    def _detect(self, frame: np.ndarray) -> list[Box]:
        with without_native_logs():
            result = self._detector.process(np.ascontiguousarray(frame))
        height, width = frame.shape[:2]
        areas = [detection.location_data.relative_bounding_box for detection in result.detections or []]
        boxes = [
            (
                area.xmin * width,
                area.ymin * height,
                (area.xmin + area.width) * width,
                (area.ymin + area.height) * height,
            )
            for area in areas
        ]
        return [box for box in boxes if side_of(box) >= 1]

    def __enter__(self) -> FaceWatcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mesh.close()
        self._detector.close()


def _box_of(landmarks: Float[np.ndarray, "468 3"]) -> Box:
    x1, y1, x2, y2 = face_box_from_68(landmarks_68(landmarks[:, :2])).tolist()
    return x1, y1, x2, y2


def _is_one_face(one: Box, other: Box) -> bool:
    return overlap(one, other) >= SAME_FACE_OVERLAP
