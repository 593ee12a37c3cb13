"""Mouth at rest where nobody speaks: still in short pauses, shut in long ones (stage 1, --silence).

Real mouths stay open in short pauses, so the mouth is held there, not shut. Frames next to speech move as in speech.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.ndimage import label

from models.audio.speech_activity import speech_activity
from utils.media.timeline import nearest

HELD, SHUT = 6, 40  # frames; shorter pauses hold the mouth, longer ones shut it, in between partly
RAMP = 3  # frames from the middle of a change to its end: lips open and shut within a quarter of a second


def close_in_silence(
    motion: Float[np.ndarray, "t 64"], wave: Float[np.ndarray, " n"], closed: Float[np.ndarray, " 64"]
) -> Float32[np.ndarray, "t 64"]:
    """The motion (25 Hz, from the start of the 16 kHz sound), at rest in silence, music and noise.

    ``closed``: the expression with the mouth shut. Rest is the mean of the motion over the pause, the closer to
    ``closed`` the longer the pause is; without any speech, and beyond the sound, it is ``closed``.
    """
    silent = speech_activity(wave, len(motion)).silence
    if not silent.any():
        return motion.astype(np.float32)
    rest = np.zeros_like(motion)
    for pause in runs(silent):
        openness = 0.0 if pause.all() else np.clip((SHUT - pause.sum()) / (SHUT - HELD), 0, 1)
        rest[pause] = closed + openness * (motion[pause].mean(axis=0) - closed)
    rest = rest[nearest(silent)]
    share = soft(~silent)[:, None]
    return (share * motion + (1 - share) * rest).astype(np.float32)


def runs(mask: Bool[np.ndarray, " t"]) -> Iterator[Bool[np.ndarray, " t"]]:
    """Masks of the runs of a mask, one at a time."""
    numbers, n_runs = label(mask)
    return (numbers == number for number in range(1, n_runs + 1))


def soft(spoken: Bool[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
    """1 in speech, 0 in silence, with raised-cosine ramps centred on each change."""
    weights = np.hanning(2 * RAMP + 3)[1:-1]
    padded = np.pad(spoken.astype(np.float64), RAMP, mode="edge")
    return np.convolve(padded, weights / weights.sum(), mode="valid")
