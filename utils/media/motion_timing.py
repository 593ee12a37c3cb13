"""Times that are counted in frames at 25 Hz, at another frame rate: motion, its rest after the end, spans (pure)."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from jaxtyping import Float

from utils.core.types import MOTION_FPS

SETTLE_SECONDS = 0.32  # from the last word to the expression at rest


def time_scale(fps: float | Fraction) -> float:
    """Frames at ``fps`` that last as long as one at 25 Hz."""
    return float(fps) / MOTION_FPS


def lasting(n_frames: int, fps: float | Fraction) -> int:
    """The number of frames at ``fps``, one at least, that is nearest to the time of ``n_frames`` at 25 Hz."""
    return max(1, round(n_frames * time_scale(fps)))


def n_motion_frames(n_motion: int, fps: Fraction) -> int:
    """Frames at ``fps`` that last as long as a motion."""
    return math.ceil(n_motion * fps / MOTION_FPS)


def resample_motion(motion: Float[np.ndarray, "t e"], fps: Fraction) -> Float[np.ndarray, "n e"]:
    """The motion at ``fps``: frame i shows what a cubic spline through the motion says of the time i / fps.

    Times after the last frame of the motion repeat it. At 25 fps every number stays as it is.
    """
    if fps == MOTION_FPS:
        return motion
    from scipy.interpolate import CubicSpline

    position = np.arange(n_motion_frames(len(motion), fps)) * (MOTION_FPS / float(fps))
    position = position.clip(max=len(motion) - 1)
    if len(motion) == 1:
        return motion[np.zeros(len(position), int)]
    resampled: np.ndarray = CubicSpline(np.arange(len(motion)), motion, axis=0)(position).astype(np.float32)
    return resampled


def settle(
    motion: Float[np.ndarray, "t e"], n_frames: int, rest: Float[np.ndarray, " e"], fps: Fraction
) -> Float[np.ndarray, "n e"]:
    """The first ``n_frames`` of a motion; after its end it goes to ``rest`` within SETTLE_SECONDS, and stays.

    The way there has no corner: half a cosine.
    """
    n_after = max(0, n_frames - len(motion))
    progress = (np.arange(1, n_after + 1) / float(fps * Fraction(SETTLE_SECONDS))).clip(max=1.0)
    weight = ((1 - np.cos(np.pi * progress)) / 2)[:, None]
    tail = (1 - weight) * motion[-1] + weight * rest
    return np.concatenate([motion[:n_frames], tail.astype(np.float32)])
