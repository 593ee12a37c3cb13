"""Mel-frequency cepstrum, SyncNet's input: that of python_speech_features with its defaults.

25-ms frames every 10 ms without a window function, pre-emphasis 0.97, 26 triangles between 0 and 8 kHz, 13 coefficients
with a sine lifter, the first replaced by the logarithm of the frame's energy.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32
from scipy.fft import dct, rfft

from utils.core.types import SAMPLE_RATE

STEPS_PER_SECOND = 100
FRAME_LENGTH = SAMPLE_RATE * 25 // 1000  # samples
FRAME_STEP = SAMPLE_RATE // STEPS_PER_SECOND
N_FFT = 512
N_BANDS = 26
N_COEFFICIENTS = 13
PRE_EMPHASIS = 0.97
LIFTER = 22
_INT16_SCALE = 32768.0
_TINY = np.finfo(float).eps  # stands for bands without any energy
_FRAMES_PER_BLOCK = 4096  # bounds memory on long clips


def speech_cepstrum(wave: Float[np.ndarray, " n"]) -> Float32[np.ndarray, "t 13"]:
    """Coefficients at 100 Hz of a 16 kHz wave in [-1, 1); the last frame is filled up with zeros."""
    samples = np.asarray(wave, np.float64) * _INT16_SCALE
    samples = np.concatenate([samples[:1], samples[1:] - PRE_EMPHASIS * samples[:-1]])
    n_frames = 1 + max(0, -(-(len(samples) - FRAME_LENGTH) // FRAME_STEP))
    padded = np.pad(samples, (0, (n_frames - 1) * FRAME_STEP + FRAME_LENGTH - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME_LENGTH)[::FRAME_STEP]
    blocks = [frames[start : start + _FRAMES_PER_BLOCK] for start in range(0, n_frames, _FRAMES_PER_BLOCK)]
    return np.concatenate([_cepstrum(block) for block in blocks]).astype(np.float32)


def _cepstrum(frames: Float[np.ndarray, "t n"]) -> Float[np.ndarray, "t 13"]:
    power = np.abs(rfft(frames, N_FFT, axis=1)) ** 2 / N_FFT
    energy = power.sum(axis=1)
    bands = power @ mel_triangles().T
    logs = np.log(np.where(bands == 0, _TINY, bands))
    lift = 1 + LIFTER / 2 * np.sin(np.pi * np.arange(N_COEFFICIENTS) / LIFTER)
    coefficients = dct(logs, type=2, axis=1, norm="ortho")[:, :N_COEFFICIENTS] * lift
    coefficients[:, 0] = np.log(np.where(energy == 0, _TINY, energy))
    return coefficients


def mel_triangles() -> Float[np.ndarray, "26 257"]:
    """Triangles over the FFT's bins, corners on whole bins, evenly spaced on the scale 2595 log10(1 + f / 700)."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, N_BANDS + 2) / 2595) - 1)
    corners = np.floor((N_FFT + 1) * hertz / SAMPLE_RATE)
    bins = np.arange(N_FFT // 2 + 1)
    low, middle, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return np.where((bins >= low) & (bins < middle), rising, np.where((bins >= middle) & (bins < high), falling, 0.0))
