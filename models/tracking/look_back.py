"""A face that a search finds was there before, since the last search: it is followed backwards to where it came.

searched   |           |           |
frames     . . . . . F F F F F F F F F      F: the face is there
found                              >        without looking back
piece                <<<<<<<<<<<<<<>        with it
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from models.tracking.face_finder import Box
from models.tracking.face_follower import FaceFollower
from utils.people.people import box_of

MOST_BYTES = 64 * 1024 * 1024  # of frames that are kept: ten of 1080 lines


class RecentFrames:
    """The frames since the last search; of large ones the newest alone."""

    def __init__(self) -> None:
        self._frames: deque[np.ndarray] = deque()

    def add(self, frame: np.ndarray) -> None:
        self._frames.append(frame)
        while len(self._frames) * frame.nbytes > MOST_BYTES:
            self._frames.popleft()

    def clear(self) -> None:
        self._frames.clear()

    def follow_back(
        self, follower: FaceFollower, frame: np.ndarray, box: Box, is_taken: Callable[[int, Box], bool]
    ) -> list[np.ndarray]:
        """Landmarks, oldest first, of the face that ``follower`` has found in a box of ``frame``, in the frames before.

        is_taken: whether a box, so many frames before, is another face's. The follower is left as it was.
        """
        found: list[np.ndarray] = []
        for n_before, earlier in enumerate(reversed(self._frames), 1):
            if not follower.follow(earlier) or follower.landmarks is None:
                break
            if is_taken(n_before, box_of(follower.landmarks)):
                break
            found.append(follower.landmarks)
        if self._frames:
            follower.start(frame, box)
        return found[::-1]
