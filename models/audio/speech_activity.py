"""Speech activity per video frame, from the loudness and the pitch of the sound.

A frame is audible if it is within LOUD_RANGE of the clip's loud parts (the 95th percentile), or within VOICED_RANGE
where Praat finds a pitch. Sounds shorter than SHORTEST_SOUND are dropped (clicks), pauses shorter than SHORTEST_PAUSE
are speech (stops such as p, t, k, and breaths). Frames next to a change belong to neither: lips move ahead of sound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import binary_closing, binary_erosion, binary_opening

from models.audio.audio_features import fit_length, praat_pitch
from utils.core.types import FEATURE_RATE, MOTION_FPS, SAMPLES_PER_FRAME

LOUD_RANGE, VOICED_RANGE = 25.0, 35.0  # dB below the clip's loud parts
LOUD_PERCENTILE = 95
MIN_LEVEL = -60.0  # dB of full scale; lower levels are no speech
SHORTEST_SOUND, SHORTEST_PAUSE = 2, 6  # frames
EDGE = 2  # frames on both sides of a change
_SILENCE = 1e-10  # power floor, for digital silence
_FRAMES_PER_BLOCK = 512  # bounds memory on long clips


@dataclass(frozen=True)
class SpeechActivity:
    """bool [n] each, at 25 Hz. Frames in neither are next to a change."""

    speech: np.ndarray
    silence: np.ndarray


@dataclass(frozen=True)
class Loudness:
    """Per video frame, [n] each: levels in dB of full scale, whether Praat finds a pitch, and whether the frame is
    audible (see above)."""

    levels: np.ndarray
    voiced: np.ndarray
    audible: np.ndarray


def loudness(wave: Float[np.ndarray, " n"], n_frames: int) -> Loudness:
    """Loudness of a 16 kHz wave in [-1, 1) over ``n_frames`` > 0 video frames from its start; silence beyond it."""
    levels = 10 * np.log10(_powers(wave, n_frames) + _SILENCE)
    if levels.max() < MIN_LEVEL:
        return Loudness(levels, np.zeros(n_frames, bool), np.zeros(n_frames, bool))
    per_frame = FEATURE_RATE // MOTION_FPS
    voiced = fit_length(praat_pitch(wave), n_frames * per_frame).reshape(n_frames, per_frame).max(axis=1) > 0
    below = np.percentile(levels, LOUD_PERCENTILE) - levels
    audible = ((below <= LOUD_RANGE) | (voiced & (below <= VOICED_RANGE))) & (levels >= MIN_LEVEL)
    return Loudness(levels, voiced, audible)


def _powers(wave: Float[np.ndarray, " n"], n_frames: int) -> Float[np.ndarray, " t"]:
    """Mean square of every frame."""
    powers = np.zeros(n_frames)
    for start in range(0, n_frames, _FRAMES_PER_BLOCK):
        n_now = min(_FRAMES_PER_BLOCK, n_frames - start)
        samples = fit_length(wave[start * SAMPLES_PER_FRAME :], n_now * SAMPLES_PER_FRAME).astype(np.float64)
        powers[start : start + n_now] = np.mean(samples.reshape(n_now, SAMPLES_PER_FRAME) ** 2, axis=1)
    return powers


def speech_activity(wave: Float[np.ndarray, " n"], n_frames: int) -> SpeechActivity:
    """Activity of a 16 kHz wave in [-1, 1) over ``n_frames`` video frames from its start; silence beyond it."""
    if n_frames == 0:
        return SpeechActivity(np.zeros(0, bool), np.zeros(0, bool))
    audible = without_short_runs(loudness(wave, n_frames).audible)
    return SpeechActivity(_inner(audible), _inner(~audible))


def without_short_runs(audible: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Drop short sounds, then fill short pauses; the mask continues beyond both ends."""
    padded = np.pad(audible, SHORTEST_PAUSE, mode="edge")
    padded = binary_opening(padded, np.ones(SHORTEST_SOUND))
    padded = binary_closing(padded, np.ones(SHORTEST_PAUSE))
    return padded[SHORTEST_PAUSE:-SHORTEST_PAUSE]


def _inner(mask: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """The mask without EDGE frames at each end of its runs."""
    return binary_erosion(mask, np.ones(2 * EDGE + 1), border_value=1)
