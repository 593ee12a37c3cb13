"""How long things last at 25 Hz, and which source frame each output frame shows (pure)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from utils.types import MOTION_FPS


def n_video_frames(n_samples: int, sample_rate: int, fps: float = MOTION_FPS) -> int:
    """Frames that cover a sound of ``n_samples``; the last one may outlast it."""
    return math.ceil(n_samples * fps / sample_rate)


def ping_pong(n_source: int, n_wanted: int) -> np.ndarray:
    """int32 [n_wanted]: frames 0 to n - 1 forwards, then backwards, and again; end frames are shown twice.

    The reference's way to stretch a clip under longer speech. Raises ValueError for an empty clip.
    """
    if n_source < 1:
        raise ValueError("a clip without frames cannot be stretched")
    position = np.arange(n_wanted) % (2 * n_source)
    return np.where(position < n_source, position, 2 * n_source - 1 - position).astype(np.int32)


def stretches(indices: Sequence[int], longest_reverse: int) -> Iterator[Sequence[int]]:
    """Cut a sequence of frame numbers into stretches that only rise (or stay) or only fall (or stay).

    A stretch that falls spans at most ``longest_reverse`` frames; a leap of that many or more begins a new stretch.
    """
    begin, direction = 0, 0
    for end in range(1, len(indices) + 1):
        is_last = end == len(indices)
        step = 0 if is_last else indices[end] - indices[end - 1]
        is_full = direction < 0 and not is_last and indices[begin] - indices[end] >= longest_reverse
        if is_last or is_full or step * direction < 0 or abs(step) >= longest_reverse:
            yield indices[begin:end]
            begin, direction = end, 0
        elif step:
            direction = step
