"""Choice of the segments of a raw video that become training clips, and their crops (pure).

frames   . . F F F F F F F F | F F F F F F S S F F . . F F      . no face   F one face   S several   | cut
rows     0-2 2---------------10----------16-18------------
kept           2+10 ... 10-10      too short                    frames trimmed at each end of a kept segment
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8

from utils.core.types import FEATURE_RATE, MOTION_FPS
from utils.people.visibility import MAX_TURN, FrameState, bridge_gaps, runs

MIN_FRAMES = 300  # upstream: preprocess_trim_crop_video
TRIMMED = 10  # frames at each end, as upstream
MARGIN = 0.25  # of the mean box, on each side of the union, as upstream
MIN_FACE = 96  # pixels; enlarged 2.7 times to the generator's 256; passes VoxCeleb's and GRID's faces
RIVAL = 0.4  # of the main face's size, from which another face is counted
# Share of 20 ms steps with a pitch. 39 talking clips: 0.21 to 0.69; noise, silence, clicks, chords: 0; tones: 1.
VOICED_SHARE = (0.12, 0.9)
MIN_LEVEL = -50.0  # dB of full scale, mean over the segment. Talking clips: -33 to -11
MIN_LEVEL_SPREAD = 5.0  # dB between the 10th and 90th percentile of the steps. Talking clips: 8 to 46; hum: 0.4


REASONS = {
    FrameState.NO_FACE: "no face",
    FrameState.SEVERAL: "several faces",
    FrameState.UNCLEAR: "no landmarks on the face",
    FrameState.TURNED: "mouth not visible: face turned away",
    FrameState.OUTSIDE: "mouth outside the frame",
}
CUT, SPEAKER, END = "cut", "another speaker", "end of the video"


@dataclass(frozen=True)
class Limits:
    """Limits of a segment that is kept: frames, pixels, degrees, share. min_voiced 0 takes clips without speech too."""

    min_frames: int = MIN_FRAMES
    min_face: float = MIN_FACE
    max_turn: float = MAX_TURN
    min_voiced: float = VOICED_SHARE[0]


@dataclass(frozen=True)
class VideoFacts:
    """The survey of N frames at 25 Hz; zero in frames without landmarks.

    boxes int32 [N, 4] face box; sizes float32 [N] its shorter side (without landmarks: the detector's box), pixels;
    rivals float32 [N] size of the largest other face over that of the main face; turns float32 [N] yaw, degrees;
    clear bool [N] landmarks were found; mouth_inside bool [N] all of the mouth lies in the frame;
    cuts, changes: frames that begin another shot, or another person's face without a cut.
    """

    size: tuple[int, int]  # width, height
    boxes: np.ndarray
    sizes: np.ndarray
    rivals: np.ndarray
    turns: np.ndarray
    clear: np.ndarray
    mouth_inside: np.ndarray
    cuts: list[int]
    changes: list[int]

    def __len__(self) -> int:
        return len(self.clear)


@dataclass(frozen=True)
class SoundFacts:
    """50 steps per second: voiced bool [T]; levels float32 [T], dB of full scale."""

    voiced: np.ndarray
    levels: np.ndarray


@dataclass(frozen=True)
class Segment:
    """Frames ``start`` to ``stop`` (excluded) of one state; ``until``: what ended it. Measures are medians."""

    start: int
    stop: int
    state: FrameState
    until: str
    face_size: float  # pixels, 0 without a face
    turn: float  # degrees
    voiced_share: float
    level: float  # dB
    level_spread: float  # dB
    reasons: tuple[str, ...] = ()  # of a rejection; none: it is kept

    @property
    def is_kept(self) -> bool:
        return not self.reasons

    @property
    def trimmed(self) -> range:
        """The frames of the clip that it becomes."""
        return range(self.start + TRIMMED, self.stop - TRIMMED)


def choose_segments(facts: VideoFacts, sound: SoundFacts | None, limits: Limits) -> list[Segment]:
    """Segments that tile the video in order, each kept or rejected with reasons. ``sound``: None without any."""
    states = bridge_gaps(frame_states(facts, limits), {*facts.cuts, *facts.changes})
    return [
        _measured(start, stop, states, facts, sound, limits)
        for start, stop in runs(states, {*facts.cuts, *facts.changes})
    ]


def frame_states(facts: VideoFacts, limits: Limits) -> UInt8[np.ndarray, " n"]:
    """The FrameState of every frame."""
    states = np.full(len(facts), FrameState.ONE_FACE, np.uint8)
    states[~facts.mouth_inside] = FrameState.OUTSIDE
    states[np.abs(facts.turns) > limits.max_turn] = FrameState.TURNED
    states[~facts.clear] = FrameState.UNCLEAR
    states[facts.rivals >= RIVAL] = FrameState.SEVERAL
    states[facts.sizes <= 0] = FrameState.NO_FACE
    return states


def crop_of(facts: VideoFacts, frames: range, margin: float = MARGIN) -> Int[np.ndarray, " 4"]:
    """The fixed crop of a clip: union of its face boxes and a margin, inside the frame, with even sides.

    Raises ValueError if no frame has landmarks.
    """
    boxes = facts.boxes[frames.start : frames.stop][facts.clear[frames.start : frames.stop]]
    if len(boxes) == 0:
        raise ValueError(f"no face in the frames {frames.start} to {frames.stop}")
    return union_crop(boxes, facts.size, margin)


def union_crop(boxes: Int[np.ndarray, "n 4"], size: tuple[int, int], margin: float = MARGIN) -> Int[np.ndarray, " 4"]:
    """x1, y1, x2, y2 around all boxes, ``margin`` of the mean box wider on each side, inside a frame of ``size``."""
    extra = margin * (boxes[:, 2:] - boxes[:, :2]).mean(axis=0)
    low = np.floor(boxes[:, :2].min(axis=0) - extra).astype(int).clip(0)
    high = np.minimum(np.ceil(boxes[:, 2:].max(axis=0) + extra).astype(int), size)
    high -= (high - low) % 2  # H.264 halves the colour planes
    return np.concatenate([low, high])


def _measured(
    start: int,
    stop: int,
    states: np.ndarray,
    facts: VideoFacts,
    sound: SoundFacts | None,
    limits: Limits,
) -> Segment:
    state, part = FrameState(int(states[start])), slice(start, stop)
    clear = facts.clear[part]
    seen = clear if clear.any() else facts.sizes[part] > 0
    face_size = float(np.median(facts.sizes[part][seen])) if seen.any() else 0.0
    turn = float(np.median(np.abs(facts.turns[part][clear]))) if clear.any() else 0.0
    voiced_share, level, spread = speech_measures(sound, start, stop)
    if stop in facts.cuts:
        until = CUT
    elif stop in facts.changes:
        until = SPEAKER
    else:
        until = REASONS.get(FrameState(int(states[stop])), "one face") if stop < len(states) else END
    if state != FrameState.ONE_FACE:
        reasons = [REASONS[state]]
        if state == FrameState.UNCLEAR:
            reasons += _face_reasons(face_size, limits)
    else:
        reasons = [f"{stop - start} of {limits.min_frames} frames"] if stop - start < limits.min_frames else []
        reasons += _face_reasons(face_size, limits)
        reasons += sound_reasons(sound, voiced_share, level, spread, limits)
    return Segment(start, stop, state, until, face_size, turn, voiced_share, level, spread, tuple(reasons))


def _face_reasons(face_size: float, limits: Limits) -> list[str]:
    return [f"face of {face_size:.0f} px, {limits.min_face:.0f} needed"] if face_size < limits.min_face else []


def speech_measures(sound: SoundFacts | None, start: int, stop: int) -> tuple[float, float, float]:
    """Share of voiced steps, mean level and spread of levels between two frames; 0, -inf, 0 without sound there."""
    if sound is None:
        return 0.0, -math.inf, 0.0
    steps = slice(start * FEATURE_RATE // MOTION_FPS, stop * FEATURE_RATE // MOTION_FPS)
    voiced, levels = sound.voiced[steps], sound.levels[steps].astype(np.float64)
    if len(levels) == 0:
        return 0.0, -math.inf, 0.0
    low, high = np.percentile(levels, [10, 90])
    return float(voiced.mean()), float(10 * np.log10(np.mean(10 ** (levels / 10)))), float(high - low)


def sound_reasons(
    sound: SoundFacts | None, voiced_share: float, level: float, spread: float, limits: Limits
) -> list[str]:
    """The first reason why the sound of a segment is not speech; none if it is."""
    if limits.min_voiced <= 0:
        return []
    if sound is None or math.isinf(level):
        return ["no sound"]
    if level < MIN_LEVEL:
        return [f"silence: {level:.0f} dB, {MIN_LEVEL:.0f} needed"]
    if not limits.min_voiced <= voiced_share <= VOICED_SHARE[1]:
        allowed = f"{limits.min_voiced:g} to {VOICED_SHARE[1]:g}"
        return [f"sound is not speech: {voiced_share:.2f} of it voiced, {allowed} expected"]
    if spread < MIN_LEVEL_SPREAD:
        return [f"sound is not speech: its level varies by {spread:.1f} dB, {MIN_LEVEL_SPREAD:g} expected"]
    return []
