"""How long things last at 25 Hz, and which source frame each output frame shows (pure)."""

from __future__ import annotations

import math

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
