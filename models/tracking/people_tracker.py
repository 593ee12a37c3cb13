"""Everybody in a clip: each face followed from frame to frame, one piece of track per unbroken sight of it.

Detectors look for faces at the start, every DETECT_EVERY frames, and for RECOVERY frames after a face is lost; a
follower then keeps to each, and goes back to where it came since the last search. A piece ends where its face is lost,
at a cut, or where it and another one have come to be the same face. Whose pieces belong together is for
utils/people/people.py to say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from models.tracking.face_finder import FaceFinder
from models.tracking.face_follower import FaceFollower
from utils.core.streaming import run_ahead
from utils.core.types import MOTION_FPS, N_LANDMARKS
from utils.files.disk_arrays import RowList, RowStore
from utils.imaging.geometry import Box, box_of, overlap, side_of
from utils.media.motion_timing import lasting
from utils.people.people import ClipFaces, Piece
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
MOST_BYTES = 64 * 1024 * 1024  # of frames that are kept: ten of 1080 lines


class _Sight:
    """A piece that goes on, and its follower."""

    def __init__(self, follower: FaceFollower, piece: Piece) -> None:
        self.follower, self.piece = follower, piece

    @property
    def box(self) -> Box:
        assert self.follower.landmarks is not None
        return box_of(self.follower.landmarks)


@dataclass(frozen=True)
class FrameFaces:
    """The faces of one frame, uint8 RGB [H, W, 3].

    landmarks: float32 [468, 3] of each face that is tracked. unclear: boxes of those that the last search found without
    finding their landmarks. started: pieces that begin here, or before by looking back.
    """

    frame: np.ndarray
    is_cut: bool
    landmarks: list[np.ndarray]
    unclear: list[Box]
    started: list[Piece]


class PeopleTracker:
    """Follows all faces of a clip, frame by frame."""

    def __init__(self, scratch: Path | None = None, fps: float = MOTION_FPS, detect_every: int = DETECT_EVERY) -> None:
        """scratch: folder for a file of landmarks. detect_every: frames at 25 Hz between two searches."""
        self._fps, self._detect_every = fps, detect_every
        self._rows = RowStore((N_LANDMARKS, 3), scratch)
        self._finder = FaceFinder()
        self._describe = LookDescriber()
        self._sights: list[_Sight] = []
        self._idle: list[FaceFollower] = []
        self._recent = RecentFrames()
        self._ended: list[Piece] = []  # since the oldest of the recent frames
        self._unclear: list[Box] = []

    def __call__(self, frames: Iterable[np.ndarray]) -> ClipFaces:
        """All pieces of a clip, uint8 RGB [H, W, 3]; frames are consumed one at a time."""
        n_frames, size = 0, (0, 0)
        pieces: list[Piece] = []
        cuts: list[int] = []
        for number, seen in enumerate(self.watch(frames)):
            n_frames, size = number + 1, (seen.frame.shape[1], seen.frame.shape[0])
            pieces += seen.started
            if seen.is_cut:
                cuts.append(number)
        return ClipFaces(n_frames, size, pieces, cuts, self._fps)

    def watch(self, frames: Iterable[np.ndarray]) -> Iterator[FrameFaces]:
        """The faces of each frame in turn."""
        find_cut = CutDetector()
        next_search, search_until, next_close_look = 0, 0, 0
        for number, (frame, is_cut) in enumerate(run_ahead((frame, find_cut(frame)) for frame in frames)):
            started = []
            if is_cut:
                self._end(list(self._sights))
                self._forget()
                next_search, next_close_look = number, number
            if self._follow(frame, number):
                search_until = number + lasting(RECOVERY, self._fps)
            if not self._sights or number >= next_search or number < search_until:
                is_close = not self._sights and number >= next_close_look
                started = self._search(frame, number, is_close)
                next_search = number + lasting(self._detect_every, self._fps)
                if is_close:
                    next_close_look = number + lasting(LOOK_CLOSELY_EVERY, self._fps)
                self._forget()
            else:
                self._recent.add(frame)
            known = [sight.follower.landmarks for sight in self._sights]
            yield FrameFaces(frame, is_cut, [face for face in known if face is not None], self._unclear, started)
        self._end(list(self._sights))

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
        self._unclear = []
        for box in sorted(boxes, key=side_of, reverse=True):
            is_known = any(overlap(box, sight.box) >= SAME_PLACE for sight in self._sights)
            if is_known or len(self._sights) >= MOST_FACES:
                continue
            follower = self._idle.pop() if self._idle else FaceFollower()
            if not follower.start(frame, box) or follower.landmarks is None:
                self._idle.append(follower)
                self._unclear.append(box)
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


class RecentFrames:
    """The frames since the last search; of large ones the newest alone.

    A face that a search finds is tracked backwards through them to where it appeared:

    searched   |           |           |
    frames     . . . . . F F F F F F F F F      F: the face is there
    found                              >        without looking back
    tracklet             <<<<<<<<<<<<<<>        with it
    """

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
        """Landmarks, oldest first, of the face that ``follower`` has found in a box of ``frame``, in earlier frames.

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
