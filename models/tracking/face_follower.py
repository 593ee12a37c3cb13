"""One face's landmarks from frame to frame: MediaPipe's FaceMesh, on a window around that face alone.

The window makes small faces large enough, excludes other people's faces, and saves time on large frames. It stays in
place while the face is well inside, so that FaceMesh's own tracking works; a window of most of the frame becomes all of
it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from models.tracking.mediapipe import FaceMesh
from utils.imaging.geometry import Box, box_of, overlap
from utils.people.shots import leaps

WINDOW = 3.0  # side of the window, in sides of the face's box
NARROW_WINDOW = 1.7  # of the second attempt, where the wide window shows another face too
WHOLE_FRAME = 0.6  # share of the frame from which a window becomes all of it
MARGIN = 0.3  # of the face's side that must lie between it and the window's edge, where that is not the frame's
GROWTH = 1.6  # of the face since the window was chosen, from which it is chosen anew
MIN_FACE_OVERLAP = 0.25  # of the landmarks' box with the detector's box


class FaceFollower:
    """Follows one face at a time. ``landmarks``: float32 [468, 3] of the last frame, source pixels; None: lost."""

    def __init__(self) -> None:
        self._mesh = FaceMesh()
        self.landmarks: np.ndarray | None = None
        self._window, self._side = (0, 0, 0, 0), 0.0

    def start(self, frame: UInt8[np.ndarray, "h w 3"], box: Box) -> bool:
        """Begin to follow the face in a box; returns whether its landmarks are found."""
        self.landmarks = None
        for width in (WINDOW, NARROW_WINDOW):
            self._look_at(frame, box, width)
            found = self._find(frame)
            if found is not None and overlap(box_of(found), box) >= MIN_FACE_OVERLAP:
                self.landmarks = found
                return True
        return False

    def follow(self, frame: UInt8[np.ndarray, "h w 3"]) -> bool:
        """Find the same face in the next frame; returns whether it is there. A face that leaps counts as lost."""
        before = self.landmarks
        if before is None:
            return False
        found = self._find(frame)
        self.landmarks = None if found is None or leaps(before, found) else found
        if self.landmarks is not None and self._is_out_of_window(frame):
            self._move_window(frame, self.landmarks)
        return self.landmarks is not None

    def close(self) -> None:
        self._mesh.close()

    def _move_window(self, frame: np.ndarray, known: np.ndarray) -> None:
        """Choose a new window; the known landmarks stay if the face is not found there."""
        if not self.start(frame, box_of(known)):
            self.landmarks = known

    def _is_out_of_window(self, frame: np.ndarray) -> bool:
        assert self.landmarks is not None
        box, side = box_of(self.landmarks), _side(self.landmarks)
        if not self._side / GROWTH <= side <= self._side * GROWTH:
            return True
        height, width = frame.shape[:2]
        x1, y1, x2, y2 = self._window
        gaps = [(box[0] - x1, x1 > 0), (box[1] - y1, y1 > 0), (x2 - box[2], x2 < width), (y2 - box[3], y2 < height)]
        return any(gap < MARGIN * side for gap, counts in gaps if counts)

    def _look_at(self, frame: np.ndarray, box: Box, width: float) -> None:
        frame_height, frame_width = frame.shape[:2]
        self._side = max(box[2] - box[0], box[3] - box[1])
        x, y, half = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, self._side * width / 2
        x1, y1 = max(0, round(x - half)), max(0, round(y - half))
        x2, y2 = min(frame_width, round(x + half)), min(frame_height, round(y + half))
        is_most = (x2 - x1) * (y2 - y1) >= WHOLE_FRAME * frame_width * frame_height
        window = (0, 0, frame_width, frame_height) if width == WINDOW and is_most else (x1, y1, x2, y2)
        self._mesh.reset()  # it has followed another face, or this one at another place of the window
        self._window = window

    def _find(self, frame: np.ndarray) -> np.ndarray | None:
        x1, y1, x2, y2 = self._window
        if x2 <= x1 or y2 <= y1:
            return None
        found = self._mesh(frame[y1:y2, x1:x2])
        if found is None:
            return None
        found = found + np.array([x1, y1, 0], np.float32)
        return found if min(np.ptp(found[:, 0]), np.ptp(found[:, 1])) >= 1 else None


def _side(landmarks: np.ndarray) -> float:
    x1, y1, x2, y2 = box_of(landmarks)
    return max(x2 - x1, y2 - y1)
