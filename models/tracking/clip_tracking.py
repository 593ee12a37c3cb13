"""Track of the speaker's face through a clip, and the frames that get a new mouth; first step of stage 2 and of the
preparation of training data.

frames ──► tracklets of all faces ──► people ──► speaker ──► gaps filled, unusable frames left out ──► FaceTrack
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from models.tracking.dwpose import DWPose
from models.tracking.face_tracker import (
    DWPoseTracker,
    LandmarkTracker,
    MediaPipeTracker,
    is_same_face,
    is_sure,
    track_face,
    track_of,
)
from models.tracking.people_tracker import PeopleTracker
from models.tracking.speaker_choice import ClipSound, SpeakerChoice, choose_speaker, choose_with_more
from utils.core.types import MOTION_FPS, N_LANDMARKS, FaceTrack
from utils.files.disk_arrays import disk_zeros, index_blocks, rows_of
from utils.imaging.geometry import landmarks_68
from utils.people.face_frames import ShownFrames, fade_frames, fade_strength, interpolate, judge_frames
from utils.people.speaker import Speaker
from utils.people.tracklets import ClipFaces, Person, gather_people
from utils.weights.packs import Pack


def open_tracker(pack: Pack, device: torch.device) -> LandmarkTracker:
    """MediaPipe's face mesh, with DWPose's 68 points where the pack has it."""
    if pack.dwpose is None:
        return MediaPipeTracker()
    return DWPoseTracker(DWPose.load(pack.dwpose, device), MediaPipeTracker())


@dataclass(frozen=True)
class TrackedClip:
    """The track is valid where the new mouth is shown. shown, choice: None without any face, and if ``faithful``."""

    track: FaceTrack
    people: list[Person] = field(default_factory=list)
    choice: SpeakerChoice | None = None
    shown: ShownFrames | None = None
    fps: float = MOTION_FPS

    def strength(self, valid: np.ndarray) -> np.ndarray:
        """Opacity of the new mouth in each frame, float32 [N]; ``valid``: the track's frames that are used."""
        return valid.astype(np.float32) if self.shown is None else fade_strength(valid, fade_frames(self.fps))

    def describe(self) -> list[str]:
        """Lines on the speaker and the reason, if there are several people, and on frames that stay untouched."""
        lines = []
        if self.choice is not None and len(self.people) > 1:
            lines.append(f"{len(self.people)} people; speaker {self.choice.index}: {self.choice.reason}")
        return lines if self.shown is None else lines + self.shown.describe(self.fps)


def track_clip(
    frames: Iterable[np.ndarray],
    pack: Pack,
    device: torch.device,
    sound: ClipSound,
    speaker: Speaker | None = None,
    smoothing: str = "box",
    faithful: bool = False,
    fps: float = MOTION_FPS,
    scratch: Path | None = None,
    read_first: Callable[[int], Iterable[np.ndarray]] | None = None,
) -> TrackedClip:
    """Follow the speaker through frames of one size, which are consumed once; large arrays lie in ``scratch``.

    read_first: decodes that many of the clip's first frames, where ``frames`` may be too few to find the speaker.
    faithful: any face that is found in each frame, as in the original; no frame is left out or faded.
    """
    if faithful and speaker is None:
        with open_tracker(pack, device) as tracker:
            return TrackedClip(track_face(frames, tracker, smoothing, fps, scratch), fps=fps)
    dwpose = None if pack.dwpose is None else DWPose.load(pack.dwpose, device)
    points: list[np.ndarray | None] = []
    with PeopleTracker(scratch, fps) as tracker:
        clip = tracker(frames if dwpose is None else _with_points(frames, dwpose, points))
    people = gather_people(clip)
    if not people:
        return TrackedClip(track_of(*_no_faces(clip.n_frames, scratch), smoothing), fps=fps)
    speaker = speaker or Speaker()
    if speaker.word == "auto" and read_first is not None:
        choice = choose_with_more(people, lambda n: _people_in(read_first(n), scratch, fps), sound, clip.n_frames, fps)
    else:
        choice = choose_speaker(people, speaker, sound, clip.n_frames, fps)
    track, shown = track_person(clip, people[choice.index], smoothing, points, scratch)
    return TrackedClip(track, people, choice, shown, fps)


def _people_in(frames: Iterable[np.ndarray], scratch: Path | None, fps: float) -> tuple[list[Person], int]:
    with PeopleTracker(scratch, fps) as tracker:
        clip = tracker(frames)
    return gather_people(clip), clip.n_frames


def track_person(
    clip: ClipFaces, person: Person, smoothing: str, points: list[np.ndarray | None], scratch: Path | None = None
) -> tuple[FaceTrack, ShownFrames]:
    """``points``: the 68 points of each frame where another network has found some, else empty or None."""
    landmarks, points68, seen = _no_faces(clip.n_frames, scratch)
    for tracklet in person.tracklets:
        seen[tracklet.start : tracklet.stop] = True
        for index, face in zip(
            rows_of(np.arange(tracklet.start, tracklet.stop), landmarks), tracklet.faces, strict=True
        ):
            landmarks[index] = face
    for block in index_blocks(np.flatnonzero(seen), landmarks):
        points68[block] = landmarks_68(landmarks[block][..., :2])
    for index, found in enumerate(points):
        if found is not None and seen[index] and is_same_face(found, points68[index]):
            points68[index] = found
    shown = judge_frames(landmarks, seen, clip.size, clip.cuts, clip.fps)
    interpolate(points68, seen, shown.interpolated)
    return track_of(landmarks, points68, shown.shown, smoothing, clip.fps), shown


def _no_faces(n_frames: int, scratch: Path | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Landmarks, 68 points and whether a frame has them, all zero."""
    landmarks = disk_zeros((n_frames, N_LANDMARKS, 3), scratch)
    return landmarks, np.zeros((n_frames, 68, 2), np.float32), np.zeros(n_frames, bool)


def _with_points(frames: Iterable[np.ndarray], dwpose: DWPose, points: list[np.ndarray | None]) -> Iterator[np.ndarray]:
    for frame in frames:
        found = dwpose(frame)
        points.append(found.points if is_sure(found) else None)
        yield frame
