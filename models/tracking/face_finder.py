"""Where the faces of a picture are: MediaPipe's two detectors, for near faces and for those across a room.

The detector for distant faces sees faces from about 3 % of the picture's longer side on (measured: 40 px of 1280).
Where a picture shows none at all, the same detector looks at overlapping parts of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

import numpy as np
from jaxtyping import UInt8

from models.tracking.face_tracker import MIN_DETECTION_CONFIDENCE, WARM_UP_FRAME, without_native_logs
from models.tracking.mediapipe_solutions import mediapipe_solution

PART = 480  # pixels, side of the parts; a face of 15 px is then 3 % of them
PART_STEP = 320  # parts overlap by more than the faces that the whole picture hides, up to 4K
MIN_SIDE = 16.0  # pixels
SAME_FACE_OVERLAP = 0.3  # of the smaller box, from which two boxes are one face

Box = tuple[float, float, float, float]  # x1, y1, x2, y2


class FaceFinder:
    """Finds every face in a picture, without memory of the one before."""

    def __init__(self) -> None:
        solution = mediapipe_solution("face_detection")
        with without_native_logs():
            self._near, self._far = (
                solution.FaceDetection(model_selection=selection, min_detection_confidence=MIN_DETECTION_CONFIDENCE)
                for selection in (0, 1)
            )
            for network in (self._near, self._far):
                network.process(WARM_UP_FRAME)

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"]) -> list[Box]:
        """Boxes in pixels, the surest first; one per face."""
        return one_per_face([*self._detect(self._near, frame), *self._detect(self._far, frame)])

    def look_closely(self, frame: UInt8[np.ndarray, "h w 3"]) -> list[Box]:
        """Faces that are too small to be seen in the whole picture."""
        found = []
        for left, top in parts_of(frame.shape[1], frame.shape[0]):
            part = frame[top : top + PART, left : left + PART]
            found += [
                (score, (x1 + left, y1 + top, x2 + left, y2 + top))
                for score, (x1, y1, x2, y2) in self._detect(self._far, part)
            ]
        return one_per_face(found)

    def close(self) -> None:
        self._near.close()
        self._far.close()

    def _detect(self, network: object, image: np.ndarray) -> list[tuple[float, Box]]:
        with without_native_logs():
            result = network.process(np.ascontiguousarray(image))  # type: ignore[attr-defined]
        height, width = image.shape[:2]
        found = []
        for detection in result.detections or []:
            area = detection.location_data.relative_bounding_box
            x1, y1 = area.xmin * width, area.ymin * height
            box = (x1, y1, x1 + area.width * width, y1 + area.height * height)
            if side_of(box) >= MIN_SIDE:
                found.append((float(detection.score[0]), box))
        return found

    def __enter__(self) -> FaceFinder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def parts_of(width: int, height: int) -> Iterator[tuple[int, int]]:
    """Left and top of the overlapping parts of a picture; none if it is hardly larger than one part."""
    if max(width, height) <= PART + PART_STEP // 2:
        return
    for top in _starts(height):
        for left in _starts(width):
            yield left, top


def _starts(length: int) -> list[int]:
    last = max(0, length - PART)
    return [*range(0, last, PART_STEP), last]


def one_per_face(scored: list[tuple[float, Box]]) -> list[Box]:
    """The surest boxes, without those that show a face again."""
    kept: list[Box] = []
    for _, box in sorted(scored, key=lambda item: -item[0]):
        if not any(overlap(box, other) >= SAME_FACE_OVERLAP for other in kept):
            kept.append(box)
    return kept


def side_of(box: Box) -> float:
    return min(box[2] - box[0], box[3] - box[1])


def overlap(one: Box, other: Box) -> float:
    """Shared area over that of the smaller box."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / max(smaller, 1e-6) if width > 0 and height > 0 else 0.0
