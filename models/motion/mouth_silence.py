"""A mouth that is still where nobody speaks, and shut where nobody speaks for long (stage 1, --silence).

Where a voice is heard comes from loudness and pitch, as in speech_activity.py, with two differences: sounds that
hardly rise above the clip's own noise need a pitch, and a stretch without any pitch is no speech, unless the clip is
whispered throughout. People keep their mouths open in a short pause, so that it is held there and not shut.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.ndimage import label

from models.audio.speech_activity import Loudness, loudness, without_short_runs
from utils.media.timeline import nearest

NOISE_PERCENTILE = 20  # of the levels: what lies below is taken for the clip's noise where it has no pitch
NOISE_MARGIN = 6.0  # dB that a sound without pitch must lie above the noise
WHISPER_SHARE = 0.02  # of the frames heard; with less pitch than this in all, speech is whispered or no speech
WHISPER_SPREAD = 12.0  # dB between loud and soft parts of what is heard; steady noises spread less
VOICED_SHARE = 0.1  # of a stretch of speech
HELD, SHUT = 6, 40  # frames; a pause up to the first holds the mouth where it is, from the second on it is shut
RAMP = 3  # frames from the middle of a change to its end: lips open and shut within a quarter of a second


def close_in_silence(
    motion: Float[np.ndarray, "t 64"], wave: Float[np.ndarray, " n"], closed: Float[np.ndarray, " 64"]
) -> Float32[np.ndarray, "t 64"]:
    """The motion (25 Hz, from the start of the 16 kHz sound) at rest where nobody speaks.

    ``closed``: the expression with the mouth shut. Rest is the mean of the motion over the pause, the closer to
    ``closed`` the longer the pause is; where nobody speaks at all, and beyond the sound, it is ``closed``.
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
    """Each stretch of silence as a mask of its frames, one at a time."""
    runs, n_runs = label(~spoken)
    return (runs == number for number in range(1, n_runs + 1))


def soft(spoken: Bool[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
    """1 in speech, 0 in silence, between them half a period of a cosine centred on the change."""
    weights = np.hanning(2 * RAMP + 3)[1:-1]
    padded = np.pad(spoken.astype(np.float64), RAMP, mode="edge")
    return np.convolve(padded, weights / weights.sum(), mode="valid")


def spoken_frames(wave: Float[np.ndarray, " n"], n_frames: int) -> Bool[np.ndarray, " t"]:
    """Which video frames lie in speech, without edges."""
    if n_frames == 0:
        return np.zeros(0, bool)
    sound = loudness(wave, n_frames)
    if not sound.heard.any():
        return sound.heard
    above_noise = sound.levels > noise_level(sound) + NOISE_MARGIN
    heard = without_short_runs(sound.heard & (sound.voiced | above_noise))
    if is_whispered(sound):
        return without_short_runs(sound.heard)
    for stretch in pauses(~heard):
        if sound.voiced[stretch].mean() < VOICED_SHARE:
            heard[stretch] = False
    return heard


def noise_level(sound: Loudness) -> float:
    """dB of what is heard under the voice: the middle level of quiet frames without a pitch."""
    quiet = (sound.levels <= np.percentile(sound.levels, NOISE_PERCENTILE)) & ~sound.voiced
    return float(np.median(sound.levels[quiet])) if quiet.any() else -np.inf


def is_whispered(sound: Loudness) -> bool:
    """Hardly any pitch, but loud and soft parts as speech has them."""
    levels = sound.levels[sound.heard]
    if not len(levels) or sound.voiced[sound.heard].mean() >= WHISPER_SHARE:
        return False
    soft_parts, loud_parts = np.percentile(levels, (10, 95))
    return bool(loud_parts - soft_parts >= WHISPER_SPREAD)
