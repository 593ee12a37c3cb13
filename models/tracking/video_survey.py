"""Survey of a raw video, by which training clips are chosen: faces of each frame, voice and level of each 20 ms.

Both functions consume their input once; memory holds some 50 bytes per frame and 5 per step of sound.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float

from models.audio.audio_features import pitch_contour
from models.tracking.face_finder import SAME_FACE_OVERLAP
from models.tracking.people_tracker import FrameFaces, PeopleTracker
from utils.core.types import SAMPLES_PER_FEATURE
from utils.curation.clip_choice import RIVAL, SoundFacts, VideoFacts
from utils.imaging.geometry import Box, face_box_from_68, landmarks_68, overlap, side_of
from utils.imaging.landmarks import OUTER_LIPS
from utils.people.shots import PersonChangeDetector, leaps
from utils.people.visibility import is_inside, yaw_degrees

SURVEY_DETECT_EVERY = 5  # frames between two searches for faces, for which a second face may be missed
BLOCK_STEPS = 1500  # steps of sound in memory, 30 s
LEVEL_FLOOR = 1e-10  # mean square, -100 dB


def survey_frames(frames: Iterable[np.ndarray], tracker: PeopleTracker) -> VideoFacts:
    """Survey uint8 RGB frames of one size at 25 Hz, in order. An empty video has no facts, and size 0 x 0."""
    boxes, sizes, rivals, turns, clear, mouth_inside, cuts = [], [], [], [], [], [], []
    person, size, before = PersonChangeDetector(), (0, 0), None
    for number, seen in enumerate(tracker.watch(frames)):
        size = (seen.frame.shape[1], seen.frame.shape[0])
        landmarks, face_size, rival = main_face(seen)
        alone = landmarks if rival < RIVAL else None  # of two faces, either may be the main one
        if seen.is_cut or (before is not None and alone is not None and leaps(before, alone)):
            cuts.append(number)
            person.new_shot()
        before = alone
        turn = 0.0 if landmarks is None else yaw_degrees(landmarks)
        if alone is not None:
            person(number, seen.frame, alone, turn)
        boxes.append(np.zeros(4) if landmarks is None else face_box(landmarks))
        sizes.append(face_size)
        rivals.append(rival)
        turns.append(turn)
        clear.append(landmarks is not None)
        mouth_inside.append(landmarks is not None and is_inside(landmarks[list(OUTER_LIPS), :2], size))
    person.new_shot()
    return VideoFacts(
        size,
        np.array(boxes, np.int32).reshape(-1, 4),
        np.array(sizes, np.float32),
        np.array(rivals, np.float32),
        np.array(turns, np.float32),
        np.array(clear, bool),
        np.array(mouth_inside, bool),
        cuts,
        person.changes,
    )


def main_face(seen: FrameFaces) -> tuple[np.ndarray | None, float, float]:
    """Landmarks of the largest tracked face, its size, and that of the largest other face over it (0: no other face).

    Size: shorter side of the face box, pixels; 0 without a face. Where no face has landmarks, they are None and the
    detector's boxes count.
    """
    unclear = sorted((side_of(box) for box in seen.unclear), reverse=True)
    if not seen.landmarks:
        return None, unclear[0] if unclear else 0.0, unclear[1] / unclear[0] if len(unclear) > 1 else 0.0
    faces = [face_box(landmarks) for landmarks in seen.landmarks]
    main = int(np.argmax([side_of(box) for box in faces]))
    others = [side_of(box) for index, box in enumerate(faces) if index != main]
    others += [side_of(box) for box in seen.unclear if all(overlap(box, face) < SAME_FACE_OVERLAP for face in faces)]
    size = side_of(faces[main])
    return seen.landmarks[main], size, max(others, default=0.0) / max(size, 1.0)


def face_box(landmarks: Float[np.ndarray, "468 3"]) -> Box:
    x1, y1, x2, y2 = face_box_from_68(landmarks_68(landmarks[:, :2])).tolist()
    return x1, y1, x2, y2


def survey_sound(blocks: Iterable[np.ndarray]) -> SoundFacts | None:
    """Survey float32 mono blocks at 16 kHz; None if the sound is shorter than one step."""
    voiced, levels = [], []
    for wave in _equal_blocks(blocks, BLOCK_STEPS * SAMPLES_PER_FEATURE):
        n_steps = len(wave) // SAMPLES_PER_FEATURE
        if n_steps == 0:
            continue
        levels.append(step_levels(wave))
        pitch = pitch_contour(wave)[:n_steps] > 0
        voiced.append(np.pad(pitch, (0, n_steps - len(pitch)), mode="edge"))
    return SoundFacts(np.concatenate(voiced), np.concatenate(levels)) if voiced else None


def step_levels(wave: Float[np.ndarray, " n"]) -> Float[np.ndarray, " t"]:
    """Level of each whole 20 ms step, dB of full scale."""
    n_steps = len(wave) // SAMPLES_PER_FEATURE
    steps = wave[: n_steps * SAMPLES_PER_FEATURE].reshape(n_steps, SAMPLES_PER_FEATURE)
    return 10 * np.log10((steps**2).mean(axis=1) + LEVEL_FLOOR).astype(np.float32)


def _equal_blocks(blocks: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """The same samples in blocks of ``length``; the last one is shorter."""
    waiting: list[np.ndarray] = []
    for block in blocks:
        waiting.append(block)
        if sum(map(len, waiting)) >= length:
            joined = np.concatenate(waiting)
            n_whole = len(joined) // length * length
            yield from joined[:n_whole].reshape(-1, length)
            waiting = [joined[n_whole:]]
    if waiting:
        yield np.concatenate(waiting)
