"""Frames in time (pure): length of a result, the source frame of each of its frames, motion at other frame rates.

speech      |=====|         |=============|     S frames at the result's rate
clip        |---------|     |-------|           C frames at the result's rate

pingpong    0 1 2 3 4       forwards, then backwards, and again         S frames
loop        0 1 2 3 4       from the start again                        S frames
hold        0 1 2 3 4       the last frame stays                        S frames
cut         0 1 2 3 4       the speech ends with the clip               min(S, C) frames
silence     0 1 2 ... C-1   the clip continues in silence; or pingpong    max(S, C) frames
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from utils.core.types import MOTION_FPS, FrameRate, Length, VideoInfo

LENGTHS = get_args(Length)  # the first is the reference's way


def exact_rate(fps: float) -> Fraction:
    """Nearest fraction with a denominator up to 1001: 29.97002997... is 30000/1001."""
    return Fraction(fps).limit_denominator(1001)


def resolve_rate(rate: FrameRate, video: VideoInfo) -> Fraction:
    """Frames per second of a result."""
    return video.fps if rate == "source" else Fraction(MOTION_FPS)


def rate_text(fps: Fraction | float) -> str:
    """A rate for messages: 25, 29.97."""
    return f"{float(fps):.6g}"


def n_video_frames(n_samples: int, sample_rate: int, fps: float | Fraction = MOTION_FPS) -> int:
    """Frames that cover a sound of ``n_samples``; the last one may outlast it."""
    return math.ceil(n_samples * fps / sample_rate)


def ping_pong(n_source: int, n_wanted: int) -> np.ndarray:
    """int32 [n_wanted]: frames 0 to n - 1 forwards, then backwards, and again; end frames are shown twice.

    The reference's rule for speech longer than the clip. Raises ValueError for an empty clip.
    """
    if n_source < 1:
        raise ValueError("a clip without frames cannot be stretched")
    position = np.arange(n_wanted) % (2 * n_source)
    return np.where(position < n_source, position, 2 * n_source - 1 - position).astype(np.int32)


def n_result_frames(length: str, n_speech: int, n_clip: int) -> int:
    """Frames of the result. ``n_clip``: frames of the clip, or of the part that n_needed_frames asks for."""
    if length == "cut":
        return min(n_speech, n_clip)
    return max(n_speech, n_clip) if length == "silence" else n_speech


def n_needed_frames(length: str, n_speech: int) -> int | None:
    """How many of a clip's first frames a result can show; None: all."""
    return None if length == "silence" else n_speech


def shown_frames(length: str, n_clip: int, n_frames: int) -> np.ndarray:
    """int32 [n_frames]: the clip's frame that each frame of the result shows. ValueError for an empty clip."""
    if n_clip < 1:
        raise ValueError("a clip without frames cannot be stretched")
    if length == "loop":
        return (np.arange(n_frames) % n_clip).astype(np.int32)
    if length == "hold":
        return np.minimum(np.arange(n_frames), n_clip - 1).astype(np.int32)
    return ping_pong(n_clip, n_frames)


def monotonic_runs(indices: Sequence[int], longest_reverse: int) -> Iterator[Sequence[int]]:
    """Split frame numbers into runs that never fall or never rise.

    A falling run spans at most ``longest_reverse`` frames; a leap of that many or more begins a new run.
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


SETTLE_SECONDS = 0.32  # from the last word to the expression at rest


def time_scale(fps: float | Fraction) -> float:
    """Frames at ``fps`` per frame at 25 Hz."""
    return float(fps) / MOTION_FPS


def lasting(n_frames: int, fps: float | Fraction) -> int:
    """Frames at ``fps``, at least one, that last about as long as ``n_frames`` at 25 Hz."""
    return max(1, round(n_frames * time_scale(fps)))


def n_motion_frames(n_motion: int, fps: Fraction) -> int:
    """Frames at ``fps`` that last as long as a motion."""
    return math.ceil(n_motion * fps / MOTION_FPS)


def resample_motion(motion: Float[np.ndarray, "t e"], fps: Fraction) -> Float[np.ndarray, "n e"]:
    """The motion at ``fps``: frame i is a cubic spline through the motion at time i / fps.

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
    """The first ``n_frames`` of a motion; after its end it moves to ``rest`` along half a cosine in SETTLE_SECONDS."""
    n_after = max(0, n_frames - len(motion))
    progress = (np.arange(1, n_after + 1) / float(fps * Fraction(SETTLE_SECONDS))).clip(max=1.0)
    weight = ((1 - np.cos(np.pi * progress)) / 2)[:, None]
    tail = (1 - weight) * motion[-1] + weight * rest
    return np.concatenate([motion[:n_frames], tail.astype(np.float32)])


def nearest(mask: Bool[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """For every frame the nearest one inside the mask, the earlier of two; ValueError for an empty mask.

    Memory is linear in the number of frames.
    """
    inside = np.flatnonzero(mask)
    if len(inside) == 0:
        raise ValueError("no frame lies inside the mask")
    frames = np.arange(len(mask))
    after = np.searchsorted(inside, frames).clip(0, len(inside) - 1)
    before = (after - 1).clip(0)
    is_before = np.abs(inside[before] - frames) <= np.abs(inside[after] - frames)
    return np.where(is_before, inside[before], inside[after])
