"""Everybody in a clip: each face followed from frame to frame, one piece of track per unbroken sight of it.

Detectors look for faces at the start, every DETECT_EVERY frames, and for RECOVERY frames after a face is lost; a
follower then keeps to each, and goes back to where it came since the last search. A piece ends where its face is lost,
at a cut, or where it and another one have come to be the same face. Whose pieces belong together is for
utils/people/people.py to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import numpy as np

from models.tracking.face_finder import Box, FaceFinder, overlap, side_of
from models.tracking.face_follower import FaceFollower
from models.tracking.look_back import RecentFrames
from utils.core.streaming import run_ahead
from utils.core.types import MOTION_FPS, N_LANDMARKS
from utils.files.disk_arrays import RowList, RowStore
from utils.media.motion_timing import lasting
from utils.people.people import ClipFaces, Piece, box_of
from utils.people.shots import CutDetector, Look, LookDescriber
from utils.people.visibility import yaw_degrees

# Spans of time, counted in frames at 25 Hz
DETECT_EVERY = 12
RECOVERY = 6  # after a loss in which every frame is searched
LOOK_CLOSELY_EVERY = 25  # without any face between two searches for small ones
LOOK_EVERY = 5

MOST_LOOKS = 50  # of a piece that are kept, its first and its last
MOST_FACES = 4  # followed at once, the largest first
SAME_PLACE = 0.35  # of the smaller box, from which a detection is of a face that is followed already
MERGED = 0.6  # of the smaller box, from which two followers are on one face


class _Sight:
    """A piece that goes on, and its follower."""

    def __init__(self, follower: FaceFollower, piece: Piece) -> None:
        self.follower, self.piece = follower, piece

    @property
    def box(self) -> Box:
        assert self.follower.landmarks is not None
        return box_of(self.follower.landmarks)


class PeopleTracker:
    """Follows all faces of a clip, frame by frame."""

    def __init__(self, scratch: Path | None = None, fps: float = MOTION_FPS) -> None:
        """``scratch``: folder for the file that what is found is kept in. fps: of the clip."""
        self._fps = fps
        self._rows = RowStore((N_LANDMARKS, 3), scratch)
        self._finder = FaceFinder()
        self._describe = LookDescriber()
        self._sights: list[_Sight] = []
        self._idle: list[FaceFollower] = []
        self._recent = RecentFrames()
        self._ended: list[Piece] = []  # since the oldest of the recent frames

    def __call__(self, frames: Iterable[np.ndarray]) -> ClipFaces:
        """Watch a clip, uint8 RGB [H, W, 3]; frames are consumed one at a time."""
        find_cut, number, size = CutDetector(), -1, (0, 0)
        pieces: list[Piece] = []
        cuts: list[int] = []
        next_search, search_until, next_close_look = 0, 0, 0
        for number, (frame, is_cut) in enumerate(run_ahead((frame, find_cut(frame, None)) for frame in frames)):
            size = (frame.shape[1], frame.shape[0])
            if is_cut:
                cuts.append(number)
                self._end(list(self._sights))
                self._forget()
                next_search, next_close_look = number, number
            if self._follow(frame, number):
                search_until = number + lasting(RECOVERY, self._fps)
            if not self._sights or number >= next_search or number < search_until:
                is_close = not self._sights and number >= next_close_look
                pieces += self._search(frame, number, is_close)
                next_search = number + lasting(DETECT_EVERY, self._fps)
                if is_close:
                    next_close_look = number + lasting(LOOK_CLOSELY_EVERY, self._fps)
                self._forget()
            else:
                self._recent.add(frame)
        self._end(list(self._sights))
        return ClipFaces(number + 1, size, pieces, cuts, self._fps)

    def _follow(self, frame: np.ndarray, number: int) -> bool:
        """Carry every piece on to this frame; whether one ends."""
        lost = [sight for sight in self._sights if not sight.follower.follow(frame)]
        self._end(lost)
        merged = self._merged(frame, number)
        self._end(merged)
        for sight in self._sights:
            assert sight.follower.landmarks is not None
            sight.piece.faces.append(sight.follower.landmarks)
            if len(sight.piece.faces) % lasting(LOOK_EVERY, self._fps) == 0:
                sight.piece.looks.append(self._look(frame, number, sight.follower.landmarks))
                del sight.piece.looks[MOST_LOOKS // 2 : -(MOST_LOOKS // 2)]
        return bool(lost or merged)

    def _merged(self, frame: np.ndarray, number: int) -> list[_Sight]:
        """Pieces that have slid onto another's face: of two in one place, the one whose looks fit worse."""
        wrong: list[_Sight] = []
        for index, one in enumerate(self._sights):
            for other in self._sights[index + 1 :]:
                if one in wrong or other in wrong or overlap(one.box, other.box) < MERGED:
                    continue
                assert one.follower.landmarks is not None
                now = self._look(frame, number, one.follower.landmarks)
                wrong.append(one if one.piece.unlikeness(now) > other.piece.unlikeness(now) else other)
        return wrong

    def _search(self, frame: np.ndarray, number: int, closely: bool) -> list[Piece]:
        """Begin to follow faces that are not followed yet; returns their pieces."""
        boxes = self._finder(frame)
        if not boxes and closely:
            boxes = self._finder.look_closely(frame)
        started = []
        for box in sorted(boxes, key=side_of, reverse=True):
            is_known = any(overlap(box, sight.box) >= SAME_PLACE for sight in self._sights)
            if is_known or len(self._sights) >= MOST_FACES:
                continue
            follower = self._idle.pop() if self._idle else FaceFollower()
            if not follower.start(frame, box) or follower.landmarks is None:
                self._idle.append(follower)
                continue
            earlier = self._recent.follow_back(follower, frame, box, lambda n, place: self._is_taken(number - n, place))
            faces = RowList(self._rows, [*earlier, follower.landmarks])
            piece = Piece(number - len(earlier), faces, [self._look(frame, number, follower.landmarks)])
            self._sights.append(_Sight(follower, piece))
            started.append(piece)
        return started

    def _is_taken(self, number: int, box: Box) -> bool:
        """Whether somebody who is followed, or was until just now, was in this place in an earlier frame."""
        pieces = [*self._ended, *(sight.piece for sight in self._sights)]
        there = [piece.faces[number - piece.start] for piece in pieces if piece.start <= number < piece.stop]
        return any(overlap(box, box_of(face)) >= SAME_PLACE for face in there)

    def _look(self, frame: np.ndarray, number: int, landmarks: np.ndarray) -> Look:
        descriptor = self._describe(frame, landmarks).astype(np.float32)
        return Look(number, descriptor, yaw_degrees(landmarks))

    def _end(self, sights: list[_Sight]) -> None:
        for sight in sights:
            self._sights.remove(sight)
            self._ended.append(sight.piece)
            self._idle.append(sight.follower)

    def _forget(self) -> None:
        """Nobody is followed back beyond this frame."""
        self._recent.clear()
        self._ended.clear()

    def close(self) -> None:
        for follower in (*self._idle, *(sight.follower for sight in self._sights)):
            follower.close()
        self._finder.close()

    def __enter__(self) -> PeopleTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
