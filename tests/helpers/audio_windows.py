"""Windows of audio states for all frames at once: the plain implementation of utils.media.windows.stream_windows."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from utils.core.types import MOTION_FPS
from utils.media.windows import Rate, window_rows


def audio_windows(
    states: Float[Tensor, "t l d"], n_frames: int, fps: Rate = MOTION_FPS, start: int = 0
) -> Float[Tensor, "n 10*l d"]:
    """One window of audio states per video frame, flattened row-major (time, then layer).

    states: T rows at 50 Hz of L layers. Frames beyond the audio repeat its last row.
    Returns the windows of the frames start .. start + n_frames - 1. Raises ValueError if there are no states.
    """
    if len(states) == 0:
        raise ValueError("expected at least one row of audio states, found none")
    rows = window_rows(n_frames, fps, start).clamp(0, len(states) - 1)
    return states[rows.to(states.device)].flatten(1, 2)
