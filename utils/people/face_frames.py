"""Frames of a tracked face that get a new mouth, and its opacity in each (pure).

face       F F F F F . . F F F F F F F F . . . . . . . . F F F F F F F F
shown      # # # # # # # # # # # # # # # - - - - - - - - # # # # # # # #     a short gap is interpolated
strength   1 1 1 1 1 1 1 1 1 1 . . . . . 0 0 0 0 0 0 0 0 . . . . . 1 1 1     beside a long gap the mouth fades
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from utils.core.types import MOTION_FPS
from utils.files.disk_arrays import rows_of
from utils.imaging.landmarks import OUTER_LIPS
from utils.media.timeline import lasting
from utils.people.visibility import MAX_TURN, FrameState, bridge_gaps, is_inside, runs, yaw_degrees

# Spans of time, counted in frames at 25 Hz
LONGEST_GAP = 5  # without a face, or turned too far, that is interpolated
FADE = 5  # beside an untouched frame, over which the new mouth fades in or out
SHORTEST_SHOWN = 5  # between untouched frames; a shorter span stays untouched too

PROFILE_LIMIT = MAX_TURN  # degrees of yaw, beyond which a mouth corner is hidden

REASONS = {
    FrameState.NO_FACE: "face not in sight",
    FrameState.TURNED: f"turned aside by more than {PROFILE_LIMIT:.0f} degrees",
    FrameState.OUTSIDE: "mouth cut off by the frame's edge",
    FrameState.UNCLEAR: "seen too shortly",
}


@dataclass(frozen=True)
class ShownFrames:
    """states uint8 [N] (FrameState): ONE_FACE where the new mouth is shown. interpolated bool [N]."""

    states: np.ndarray
    interpolated: np.ndarray

    @property
    def shown(self) -> Bool[np.ndarray, " n"]:
        return self.states == FrameState.ONE_FACE

    def describe(self, fps: float) -> list[str]:
        """One line for each reason why frames stay untouched, and one for interpolated frames."""
        lines = []
        for state, reason in REASONS.items():
            chosen = self.states == state
            if chosen.any():
                lines.append(f"untouched, {reason}: {frames_text(chosen, fps)}")
        if self.interpolated.any():
            lines.append(f"interpolated: {frames_text(self.interpolated, fps)}")
        return lines


def judge_frames(
    landmarks: Float[np.ndarray, "n 468 3"],
    seen: Bool[np.ndarray, " n"],
    size: tuple[int, int],
    cuts: Collection[int],
    fps: float = MOTION_FPS,
) -> ShownFrames:
    """``landmarks`` in source pixels are filled in place in short gaps; ``size``: width and height of the frames."""
    boundaries, longest = set(cuts), lasting(LONGEST_GAP, fps)
    presence = np.where(seen, FrameState.ONE_FACE, FrameState.NO_FACE).astype(np.uint8)
    known = bridge_gaps(presence, boundaries, longest) == FrameState.ONE_FACE
    interpolate(landmarks, seen, known)
    states = np.full(len(seen), FrameState.NO_FACE, np.uint8)
    for index in rows_of(np.flatnonzero(known), landmarks):
        states[index] = _state_of(landmarks[index], size)
    bridged = bridge_gaps(states, boundaries, longest)
    states = np.where(known, bridged, states)
    states = without_flashes(states, lasting(SHORTEST_SHOWN, fps))
    return ShownFrames(states, known & ~seen & (states == FrameState.ONE_FACE))


def _state_of(landmarks: np.ndarray, size: tuple[int, int]) -> FrameState:
    if not is_inside(landmarks[list(OUTER_LIPS), :2], size):
        return FrameState.OUTSIDE
    return FrameState.TURNED if abs(yaw_degrees(landmarks)) > PROFILE_LIMIT else FrameState.ONE_FACE


def interpolate(values: Float[np.ndarray, "n *shape"], seen: np.ndarray, wanted: np.ndarray) -> None:
    """Fill the ``wanted`` rows that were not ``seen`` linearly between the nearest seen rows, in place."""
    rows = np.flatnonzero(seen)
    for index in np.flatnonzero(wanted & ~seen):
        after = int(np.searchsorted(rows, index))
        low, high = rows[after - 1], rows[after]
        share = (index - low) / (high - low)
        values[index] = (1 - share) * values[low] + share * values[high]


def without_flashes(states: UInt8[np.ndarray, " n"], shortest: int) -> UInt8[np.ndarray, " n"]:
    """Leave a face untouched that shows for less than ``shortest`` frames between untouched frames."""
    calm = states.copy()
    is_shown = (states == FrameState.ONE_FACE).astype(np.uint8)
    for start, stop in runs(is_shown, set()):
        if is_shown[start] and start > 0 and stop < len(states) and stop - start < shortest:
            calm[start:stop] = FrameState.UNCLEAR
    return calm


def fade_frames(fps: float) -> int:
    """Frames of a fade; the ramp from 0 to 1 is one step longer, and as long in seconds as at 25 Hz."""
    return lasting(FADE + 1, fps) - 1


def fade_strength(shown: Bool[np.ndarray, " n"], fade: int = FADE) -> Float32[np.ndarray, " n"]:
    """1 where the mouth is shown, 0 where it is not, a ramp of ``fade`` frames inside beside untouched frames.

    The first and the last frame of a clip are no untouched neighbours.
    """
    strength = shown.astype(np.float32)
    for distance, edge in itertools.product(range(fade), np.flatnonzero(np.diff(shown.astype(np.int8)))):
        level = np.float32((distance + 1) / (fade + 1))
        inside = edge - distance if shown[edge] else edge + 1 + distance
        if 0 <= inside < len(shown) and shown[inside]:
            strength[inside] = min(strength[inside], level)
    return strength


def frames_text(chosen: Bool[np.ndarray, " n"], fps: float) -> str:
    """Number of frames and their times: "25 frames (2.00 to 3.00 s)"."""
    spans = [
        f"{start / fps:.2f} to {stop / fps:.2f}"
        for start, stop in runs(chosen.astype(np.uint8), set())
        if chosen[start]
    ]
    more = f" and {len(spans) - 8} more" if len(spans) > 8 else ""
    n = int(chosen.sum())
    return f"{n} frame{'' if n == 1 else 's'} ({', '.join(spans[:8])} s{more})"
