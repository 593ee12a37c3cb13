"""Mouth at rest in silence: still in short pauses, shut in long ones (stage 1, --silence).

Speech is found by loudness and pitch, as in speech_activity.py, with two differences: sounds close to the clip's noise
level need a pitch, and a run of sound without any pitch is no speech, unless the clip is whispered throughout. Real
mouths stay open in short pauses, so the mouth is held there, not shut.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.ndimage import label

from models.audio.speech_activity import Loudness, loudness, without_short_runs
from utils.media.timeline import nearest

NOISE_PERCENTILE = 20  # of the levels; frames below it without pitch are the clip's noise
NOISE_MARGIN = 6.0  # dB above the noise, for sounds without pitch
WHISPER_SHARE = 0.02  # of the audible frames; with fewer voiced ones, speech is whispered or absent
WHISPER_SPREAD = 12.0  # dB between loud and soft audible frames; steady noises spread less
VOICED_SHARE = 0.1  # of a run of speech
HELD, SHUT = 6, 40  # frames; shorter pauses hold the mouth, longer ones shut it, in between partly
RAMP = 3  # frames from the middle of a change to its end: lips open and shut within a quarter of a second


def close_in_silence(
    motion: Float[np.ndarray, "t 64"], wave: Float[np.ndarray, " n"], closed: Float[np.ndarray, " 64"]
) -> Float32[np.ndarray, "t 64"]:
    """The motion (25 Hz, from the start of the 16 kHz sound), at rest in silence.

    ``closed``: the expression with the mouth shut. Rest is the mean of the motion over the pause, the closer to
    ``closed`` the longer the pause is; without any speech, and beyond the sound, it is ``closed``.
    """
    spoken = spoken_frames(wave, len(motion))
    if spoken.all():
        return motion.astype(np.float32)
    rest = np.zeros_like(motion)
    for pause in pauses(spoken):
        openness = 0.0 if pause.all() else np.clip((SHUT - pause.sum()) / (SHUT - HELD), 0, 1)
        rest[pause] = closed + openness * (motion[pause].mean(axis=0) - closed)
    rest = rest[nearest(~spoken)]
    share = soft(spoken)[:, None]
    return (share * motion + (1 - share) * rest).astype(np.float32)


def pauses(spoken: Bool[np.ndarray, " t"]) -> Iterator[Bool[np.ndarray, " t"]]:
    """Masks of the runs of silence, one at a time."""
    runs, n_runs = label(~spoken)
    return (runs == number for number in range(1, n_runs + 1))


def soft(spoken: Bool[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
    """1 in speech, 0 in silence, with raised-cosine ramps centred on each change."""
    weights = np.hanning(2 * RAMP + 3)[1:-1]
    padded = np.pad(spoken.astype(np.float64), RAMP, mode="edge")
    return np.convolve(padded, weights / weights.sum(), mode="valid")


def spoken_frames(wave: Float[np.ndarray, " n"], n_frames: int) -> Bool[np.ndarray, " t"]:
    """Mask of the video frames in speech, including those next to a change."""
    if n_frames == 0:
        return np.zeros(0, bool)
    sound = loudness(wave, n_frames)
    if not sound.audible.any():
        return sound.audible
    above_noise = sound.levels > noise_level(sound) + NOISE_MARGIN
    speech = without_short_runs(sound.audible & (sound.voiced | above_noise))
    if is_whispered(sound):
        return without_short_runs(sound.audible)
    for run in pauses(~speech):
        if sound.voiced[run].mean() < VOICED_SHARE:
            speech[run] = False
    return speech


def noise_level(sound: Loudness) -> float:
    """Noise level in dB: median level of quiet frames without a pitch."""
    quiet = (sound.levels <= np.percentile(sound.levels, NOISE_PERCENTILE)) & ~sound.voiced
    return float(np.median(sound.levels[quiet])) if quiet.any() else -np.inf


def is_whispered(sound: Loudness) -> bool:
    """Hardly any pitch, but a spread of levels as in speech."""
    levels = sound.levels[sound.audible]
    if not len(levels) or sound.voiced[sound.audible].mean() >= WHISPER_SHARE:
        return False
    soft_parts, loud_parts = np.percentile(levels, (10, 95))
    return bool(loud_parts - soft_parts >= WHISPER_SPREAD)
