"""Tracks every face of a clip from frame to frame; each unbroken stretch of one face's track is a tracklet.

Detectors search for faces at the start, every DETECT_EVERY frames, and for RECOVERY frames after a face is lost. A
follower tracks each face forwards, and backwards to where it appeared since the last search. A tracklet ends where its
face is lost, at a cut, or where two followers have come to track the same face. utils/people/tracklets.py assigns
tracklets to people.
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
from utils.media.timeline import lasting
from utils.people.shots import Appearance, AppearanceDescriber, CutDetector
from utils.people.tracklets import ClipFaces, Tracklet
from utils.people.visibility import yaw_degrees

# Spans of time, counted in frames at 25 Hz
DETECT_EVERY = 12
RECOVERY = 6  # frames after a loss, each of which is searched
LOOK_CLOSELY_EVERY = 25  # between two searches for small faces while there is no face at all
APPEARANCE_EVERY = 5

MOST_APPEARANCES = 50  # kept of a tracklet: its first and its last
MOST_FACES = 4  # tracked at once, the largest first
SAME_PLACE = 0.35  # of the smaller box, from which a detection is a face that is tracked already
MERGED = 0.6  # of the smaller box, from which two followers are on one face
MOST_BYTES = 64 * 1024 * 1024  # of recent frames: ten of 1080 lines


@dataclass(frozen=True)
class FrameFaces:
    """The faces of one frame, uint8 RGB [H, W, 3].

    landmarks: float32 [468, 3] of each tracked face. unclear: boxes that the last search found, but no landmarks in
    them. started: tracklets that were found in this frame; they begin here or, tracked backwards, earlier.
    """

    frame: np.ndarray
    is_cut: bool
    landmarks: list[np.ndarray]
    unclear: list[Box]
    started: list[Tracklet]


class _Track:
    """A tracklet that has not ended, and its follower."""

    def __init__(self, follower: FaceFollower, tracklet: Tracklet) -> None:
        self.follower, self.tracklet = follower, tracklet

    @property
    def landmarks(self) -> np.ndarray:
        assert self.follower.landmarks is not None
        return self.follower.landmarks


class PeopleTracker:
    """Tracks all faces of one clip."""

    def __init__(self, scratch: Path | None = None, fps: float = MOTION_FPS, detect_every: int = DETECT_EVERY) -> None:
        """scratch: folder for a file of landmarks. detect_every: frames at 25 Hz between two searches."""
        self._fps, self._detect_every = fps, detect_every
        self._rows = RowStore((N_LANDMARKS, 3), scratch)
        self._finder = FaceFinder()
        self._describe = AppearanceDescriber()
        self._tracks: list[_Track] = []
        self._idle: list[FaceFollower] = []
        self._recent = RecentFrames()
        self._ended: list[Tracklet] = []  # since the oldest of the recent frames
        self._unclear: list[Box] = []

    def __call__(self, frames: Iterable[np.ndarray]) -> ClipFaces:
        """All tracklets of a clip, uint8 RGB [H, W, 3]; frames are consumed one at a time."""
        n_frames, size = 0, (0, 0)
        tracklets: list[Tracklet] = []
        cuts: list[int] = []
        for number, seen in enumerate(self.watch(frames)):
            n_frames, size = number + 1, (seen.frame.shape[1], seen.frame.shape[0])
            tracklets += seen.started
            if seen.is_cut:
                cuts.append(number)
        return ClipFaces(n_frames, size, tracklets, cuts, self._fps)

    def watch(self, frames: Iterable[np.ndarray]) -> Iterator[FrameFaces]:
        """The faces of each frame in turn."""
        find_cut = CutDetector()
        next_search, search_until, next_close_look = 0, 0, 0
        for number, (frame, is_cut) in enumerate(run_ahead((frame, find_cut(frame)) for frame in frames)):
            started = []
            if is_cut:
                self._end(list(self._tracks))
                self._forget()
                next_search, next_close_look = number, number
            if self._follow(frame, number):
                search_until = number + lasting(RECOVERY, self._fps)
            if not self._tracks or number >= next_search or number < search_until:
                is_close = not self._tracks and number >= next_close_look
                started = self._search(frame, number, is_close)
                next_search = number + lasting(self._detect_every, self._fps)
                if is_close:
                    next_close_look = number + lasting(LOOK_CLOSELY_EVERY, self._fps)
                self._forget()
            else:
                self._recent.add(frame)
            yield FrameFaces(frame, is_cut, [track.landmarks for track in self._tracks], self._unclear, started)
        self._end(list(self._tracks))

    def _follow(self, frame: np.ndarray, number: int) -> bool:
        """Continue every tracklet in this frame; whether one ends."""
        lost = [track for track in self._tracks if not track.follower.follow(frame)]
        self._end(lost)
        merged = self._merged(frame, number)
        self._end(merged)
        for track in self._tracks:
            tracklet = track.tracklet
            tracklet.faces.append(track.landmarks)
            if len(tracklet.faces) % lasting(APPEARANCE_EVERY, self._fps) == 0:
                tracklet.appearances.append(self._appearance(frame, number, track.landmarks))
                del tracklet.appearances[MOST_APPEARANCES // 2 : -(MOST_APPEARANCES // 2)]
        return bool(lost or merged)

    def _merged(self, frame: np.ndarray, number: int) -> list[_Track]:
        """Tracks that have slid onto another's face: of two in one place, the one whose appearance fits worse."""
        wrong: list[_Track] = []
        for index, one in enumerate(self._tracks):
            for other in self._tracks[index + 1 :]:
                boxes = box_of(one.landmarks), box_of(other.landmarks)
                if one in wrong or other in wrong or overlap(*boxes) < MERGED:
                    continue
                now = self._appearance(frame, number, one.landmarks)
                is_one = one.tracklet.appearance_distance(now) > other.tracklet.appearance_distance(now)
                wrong.append(one if is_one else other)
        return wrong

    def _search(self, frame: np.ndarray, number: int, closely: bool) -> list[Tracklet]:
        """Begin to track faces that are not tracked yet; returns their tracklets."""
        boxes = self._finder(frame)
        if not boxes and closely:
            boxes = self._finder.look_closely(frame)
        started = []
        self._unclear = []
        for box in sorted(boxes, key=side_of, reverse=True):
            is_known = any(overlap(box, box_of(track.landmarks)) >= SAME_PLACE for track in self._tracks)
            if is_known or len(self._tracks) >= MOST_FACES:
                continue
            follower = self._idle.pop() if self._idle else FaceFollower()
            if not follower.start(frame, box) or follower.landmarks is None:
                self._idle.append(follower)
                self._unclear.append(box)
                continue
            earlier = self._recent.follow_back(follower, frame, box, lambda n, place: self._is_taken(number - n, place))
            faces = RowList(self._rows, [*earlier, follower.landmarks])
            appearance = self._appearance(frame, number, follower.landmarks)
            tracklet = Tracklet(number - len(earlier), faces, [appearance])
            self._tracks.append(_Track(follower, tracklet))
            started.append(tracklet)
        return started

    def _is_taken(self, number: int, box: Box) -> bool:
        """Whether a face that is tracked, or was until just now, was in this place in an earlier frame."""
        tracklets = [*self._ended, *(track.tracklet for track in self._tracks)]
        there = [one.faces[number - one.start] for one in tracklets if one.start <= number < one.stop]
        return any(overlap(box, box_of(face)) >= SAME_PLACE for face in there)

    def _appearance(self, frame: np.ndarray, number: int, landmarks: np.ndarray) -> Appearance:
        descriptor = self._describe(frame, landmarks).astype(np.float32)
        return Appearance(number, descriptor, yaw_degrees(landmarks))

    def _end(self, tracks: list[_Track]) -> None:
        for track in tracks:
            self._tracks.remove(track)
            self._ended.append(track.tracklet)
            self._idle.append(track.follower)

    def _forget(self) -> None:
        """No face is tracked backwards beyond this frame."""
        self._recent.clear()
        self._ended.clear()

    def close(self) -> None:
        for follower in (*self._idle, *(track.follower for track in self._tracks)):
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
    found                              >        tracked forwards alone
    tracklet             <<<<<<<<<<<<<<>        tracked backwards too
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

        is_taken: whether a box, that many frames earlier, is another face's. The follower is left as it was.
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
