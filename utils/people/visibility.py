"""Visibility of a face: the state of each frame, runs of one state, turn of the head (pure)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Float, UInt8

BRIDGED = 5  # frames; another state that lasts no longer than this between frames with one face is ignored

# Degrees of yaw, by the mesh's own depth, which flattens: its 35 is a three-quarter view in which both mouth corners
# show. The largest in 39 talking clips is 35.
MAX_TURN = 45.0


class FrameState(IntEnum):
    """Faces of a frame. UNCLEAR: a face without landmarks; TURNED, OUTSIDE: one whose mouth is hidden or cut off."""

    ONE_FACE = 0
    NO_FACE = 1
    SEVERAL = 2
    UNCLEAR = 3
    TURNED = 4
    OUTSIDE = 5


def runs(states: UInt8[np.ndarray, " n"], boundaries: set[int]) -> Iterator[tuple[int, int]]:
    """(start, stop) of unbroken runs of one state; a run also ends at a boundary."""
    begins = set(np.flatnonzero(np.diff(states)) + 1) | {frame for frame in boundaries if 0 < frame < len(states)}
    edges = [0, *sorted(int(frame) for frame in begins), len(states)]
    return ((start, stop) for start, stop in itertools.pairwise(edges) if stop > start)


def bridge_gaps(
    states: UInt8[np.ndarray, " n"], boundaries: set[int], longest: int = BRIDGED
) -> UInt8[np.ndarray, " n"]:
    """Fill gaps of up to ``longest`` frames between frames with one face, unless there is a boundary.

    A face that is missing, or a second face that appears, for so short a time is taken for a detector's error.
    """
    bridged = states.copy()
    is_gap = (states != FrameState.ONE_FACE).astype(np.uint8)
    for start, stop in runs(is_gap, set()):
        is_inner = is_gap[start] and start > 0 and stop < len(states)
        if is_inner and stop - start <= longest and boundaries.isdisjoint(range(start, stop + 1)):
            bridged[start:stop] = FrameState.ONE_FACE
    return bridged


def yaw_degrees(landmarks: Float[np.ndarray, "468 3"]) -> float:
    """Yaw of the head: the direction from the right cheek's edge (234) to the left one's (454)."""
    across = landmarks[454] - landmarks[234]
    return math.degrees(math.atan2(float(across[2]), float(across[0])))


def is_inside(points: Float[np.ndarray, "n 2"], size: tuple[int, int]) -> bool:
    """Whether all points lie in a frame of that width and height."""
    inside: Bool[np.ndarray, "n 2"] = (points >= 0) & (points <= np.array(size))
    return bool(inside.all())
