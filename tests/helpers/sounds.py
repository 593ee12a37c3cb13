"""Sounds by video frames, float32 at 16 kHz: speech of the demo, a whisper made of it, noise, music."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.signal import istft, sawtooth, stft

from utils.core.types import SAMPLE_RATE, SAMPLES_PER_FRAME
from utils.media.audio import load_waveform

DEMO = Path(__file__).resolve().parents[2] / "demo"
UNBROKEN = slice(74, 126)  # frames of the demo's speech without a pause
CHORDS = ((0, 4, 7, 12), (9, 12, 16, 21), (5, 9, 12, 17), (7, 11, 14, 19))  # semitones above C, one second each


@cache
def demo_speech() -> np.ndarray:
    """6.7 s, with pauses after the first and the second sentence's words."""
    return load_waveform(DEMO / "speech.wav")


def speech(n_frames: int, level: float = 0.05) -> np.ndarray:
    """Speech without a pause."""
    frames = demo_speech()[: len(demo_speech()) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME]
    wave = frames.reshape(-1, SAMPLES_PER_FRAME)[UNBROKEN].ravel()
    return at_level(np.resize(wave, n_frames * SAMPLES_PER_FRAME), level)


def at_level(wave: np.ndarray, level: float) -> np.ndarray:
    """The wave with this root mean square."""
    return (wave * (level / np.sqrt(np.mean(np.square(wave, dtype=np.float64))))).astype(np.float32)


def hiss(n_frames: int, level: float = 0.001) -> np.ndarray:
    return np.random.default_rng(0).normal(0, level, n_frames * SAMPLES_PER_FRAME).astype(np.float32)


def pink(n_frames: int, level: float) -> np.ndarray:
    spectrum = np.fft.rfft(np.random.default_rng(2).standard_normal(n_frames * SAMPLES_PER_FRAME))
    noise = np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)))
    return at_level(noise, level)


def music(n_frames: int, level: float) -> np.ndarray:
    """Chords of saw teeth, a new one every second, and a drum every half second."""
    time = np.arange(n_frames * SAMPLES_PER_FRAME) / SAMPLE_RATE
    chords = np.array(CHORDS)[time.astype(int) % len(CHORDS)].T
    tones = sum(sawtooth(2 * np.pi * 131 * 2 ** (tone / 12) * time) for tone in chords) * np.exp(-2 * (time % 1))
    drums = 4 * np.random.default_rng(3).standard_normal(len(time)) * np.exp(-40 * (time % 0.5))
    return at_level(tones + drums, level)


def breaths(n_frames: int, level: float) -> np.ndarray:
    """Noise that swells and fades every two seconds."""
    time = np.arange(n_frames * SAMPLES_PER_FRAME) / SAMPLE_RATE
    noise = np.random.default_rng(4).standard_normal(len(time))
    return at_level(np.convolve(noise, [1, 0, -0.5], mode="same") * np.sin(np.pi * time / 2) ** 4, level)


def whispered(wave: np.ndarray) -> np.ndarray:
    """Noise with the changing spectral envelope of a voice."""
    _, _, spectra = stft(wave, nperseg=400, noverlap=300)
    envelope = uniform_filter1d(np.abs(spectra), 9, axis=0)  # 360 Hz, wider than the distance of harmonics
    _, _, noise = stft(np.random.default_rng(5).standard_normal(len(wave)), nperseg=400, noverlap=300)
    _, made = istft(envelope * noise / np.abs(noise).mean(), nperseg=400, noverlap=300)
    return at_level(made[: len(wave)], 0.3 * float(np.sqrt(np.mean(wave**2))))
