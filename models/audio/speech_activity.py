"""Speech activity per video frame, from Silero's voice activity detector (models/audio/speech_detector.py).

A run of frames that are likely speech is speech if one of them is surely so. Runs shorter than SHORTEST_SOUND are
dropped, pauses shorter than SHORTEST_PAUSE are speech (stops such as p, t, k, and breaths). Frames next to a change
belong to neither: lips move ahead of sound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import binary_closing, binary_erosion, binary_opening, binary_propagation

from models.audio.audio_features import fit_length
from models.audio.speech_detector import CHUNK_SAMPLES, SpeechDetector
from utils.core.types import SAMPLES_PER_FRAME

SURE, LIKELY = 0.5, 0.15  # least probabilities; chosen in docs/mini_pack.md
SHORTEST_SOUND, SHORTEST_PAUSE = 4, 6  # frames
EDGE = 2  # frames on both sides of a change
LOUD_LEVEL = -20.0  # dB of full scale that the clip's loud parts are brought to; soft voices are missed otherwise
LOUD_PERCENTILE = 95
MIN_LEVEL = -60.0  # dB of full scale; lower levels are no speech
_SILENCE = 1e-10  # power floor, for digital silence
_FRAMES_PER_BLOCK = 512  # bounds memory on long clips


@dataclass(frozen=True)
class SpeechActivity:
    """bool [n] each, at 25 Hz. Frames in neither are next to a change."""

    speech: np.ndarray
    silence: np.ndarray


def speech_activity(wave: Float[np.ndarray, " n"], n_frames: int) -> SpeechActivity:
    """Activity of a 16 kHz wave in [-1, 1) over ``n_frames`` video frames from its start; silence beyond it.

    Raises BadInput if the detector's wheel is missing or damaged, unless the wave is silent.
    """
    if n_frames == 0:
        return SpeechActivity(np.zeros(0, bool), np.zeros(0, bool))
    likely_speech = speech_probability(wave[: n_frames * SAMPLES_PER_FRAME], n_frames)
    spoken = without_short_runs(binary_propagation(likely_speech > SURE, mask=likely_speech > LIKELY))
    return SpeechActivity(_inner(spoken), _inner(~spoken))


def speech_probability(wave: Float[np.ndarray, " n"], n_frames: int) -> Float[np.ndarray, " t"]:
    """Probability of speech in the middle of every frame, 0 beyond the wave; the same at any loudness."""
    levels = 10 * np.log10(_powers(wave) + _SILENCE)
    levels = levels[levels > MIN_LEVEL]
    if not len(levels):
        return np.zeros(n_frames)
    gain = 10 ** ((LOUD_LEVEL - np.percentile(levels, LOUD_PERCENTILE)) / 20)
    found = SpeechDetector.load().probabilities(wave, gain)
    middles = (np.arange(n_frames) + 0.5) * SAMPLES_PER_FRAME
    return np.interp(middles, (np.arange(len(found)) + 0.5) * CHUNK_SAMPLES, found, right=0.0)


def _powers(wave: Float[np.ndarray, " n"]) -> Float[np.ndarray, " t"]:
    """Mean square of every frame; the last is filled up with zeros."""
    powers = np.zeros(-(-len(wave) // SAMPLES_PER_FRAME))
    for start in range(0, len(powers), _FRAMES_PER_BLOCK):
        n_now = min(_FRAMES_PER_BLOCK, len(powers) - start)
        samples = fit_length(wave[start * SAMPLES_PER_FRAME :], n_now * SAMPLES_PER_FRAME).astype(np.float64)
        powers[start : start + n_now] = np.mean(samples.reshape(n_now, SAMPLES_PER_FRAME) ** 2, axis=1)
    return powers


def without_short_runs(spoken: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Drop short sounds, then fill short pauses; the mask continues beyond both ends."""
    padded = np.pad(spoken, SHORTEST_PAUSE, mode="edge")
    padded = binary_opening(padded, np.ones(SHORTEST_SOUND))
    padded = binary_closing(padded, np.ones(SHORTEST_PAUSE))
    return padded[SHORTEST_PAUSE:-SHORTEST_PAUSE]


def _inner(mask: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """The mask without EDGE frames at each end of its runs."""
    return binary_erosion(mask, np.ones(2 * EDGE + 1), border_value=1)
