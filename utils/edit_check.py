"""Whether the numbers of a stage-2 folder can be those of faces in a clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utils.array_rows import ArrayRows
from utils.errors import BadInput
from utils.store import LANDMARKS_NAME, SOURCE_LANDMARKS_NAME, STAGE2_ADVICE, EditResult

FARTHEST = 1 << 16  # pixels; no frame is that large
_BLOCK = 1024  # frames whose landmarks are held at once


def require_possible_faces(edit: EditResult) -> None:
    """Raise BadInput for empty or enormous boxes, and landmarks that are not finite or far away, of valid frames."""
    boxes = edit.boxes[edit.valid]
    if (boxes[:, 2:] <= boxes[:, :2]).any() or (np.abs(boxes.astype(np.int64)) > FARTHEST).any():
        expected = f"x1 < x2 and y1 < y2, at most {FARTHEST} pixels from the frame"
        raise BadInput("stage 2 result has an impossible box", edit.directory, expected, advice=STAGE2_ADVICE)
    _require_near(edit.landmarks, edit.valid, edit.directory / LANDMARKS_NAME)
    _require_near(edit.source_landmarks, edit.valid, edit.directory / SOURCE_LANDMARKS_NAME)


def _require_near(landmarks: ArrayRows, valid: np.ndarray, path: Path) -> None:
    for first in range(0, len(valid), _BLOCK):
        points = landmarks[first : first + _BLOCK][valid[first : first + _BLOCK]]
        if not (np.abs(points) <= FARTHEST).all():  # not a number is not near, either
            expected, found = f"finite numbers up to {FARTHEST}", "others"
            raise BadInput("impossible landmarks", path, expected, found, STAGE2_ADVICE)
