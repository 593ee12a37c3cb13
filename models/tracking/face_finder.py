"""Face detection with MediaPipe's two detectors, for near and for distant faces.

The detector for distant faces finds faces from about 3 % of the image's longer side on (measured: 40 px of 1280).
Where it finds none at all, it can search overlapping parts of the image.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from models.tracking.mediapipe import FaceDetector
from utils.imaging.geometry import Box, overlap, side_of

PART = 480  # pixels, side of the parts; a face of 15 px is then 3 % of them
PART_STEP = 320  # parts overlap by more than the size of faces that are missed in the whole image, up to 4K
MIN_SIDE = 16.0  # pixels
SAME_FACE_OVERLAP = 0.3  # of the smaller box, from which two boxes are one face


class FaceFinder:
    """Finds every face in an image, without memory of earlier images."""

    def __init__(self) -> None:
        self._near, self._far = FaceDetector(is_far=False), FaceDetector(is_far=True)

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"]) -> list[Box]:
        """Boxes in pixels by falling score, one per face."""
        return one_per_face([*self._near(frame), *self._far(frame)])

    def look_closely(self, frame: UInt8[np.ndarray, "h w 3"]) -> list[Box]:
        """Faces that are too small to be found in the whole image."""
        found = []
        for left, top in parts_of(frame.shape[1], frame.shape[0]):
            part = frame[top : top + PART, left : left + PART]
            found += [
                (score, (x1 + left, y1 + top, x2 + left, y2 + top)) for score, (x1, y1, x2, y2) in self._far(part)
            ]
        return one_per_face(found)

    def close(self) -> None:
        self._near.close()
        self._far.close()


def parts_of(width: int, height: int) -> Iterator[tuple[int, int]]:
    """Left and top of the overlapping parts of an image; none if it is hardly larger than one part."""
    if max(width, height) <= PART + PART_STEP // 2:
        return
    for top in _starts(height):
        for left in _starts(width):
            yield left, top


def _starts(length: int) -> list[int]:
    last = max(0, length - PART)
    return [*range(0, last, PART_STEP), last]


def one_per_face(scored: list[tuple[float, Box]]) -> list[Box]:
    """Boxes of at least MIN_SIDE by falling score, without second boxes of a face."""
    kept: list[Box] = []
    for _, box in sorted(scored, key=lambda item: -item[0]):
        if side_of(box) >= MIN_SIDE and not any(overlap(box, other) >= SAME_FACE_OVERLAP for other in kept):
            kept.append(box)
    return kept
