"""Waveform to the features that drive the expression: MFCC, HuBERT or Whisper states, log-mel, pitch; all at 50 Hz.

Waves are float32 [n], mono, 16 kHz, in [-1, 1) unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.fft import dct, rfft
from torch import Tensor

from utils.core.errors import BadInput
from utils.core.types import FEATURE_RATE, SAMPLE_RATE, SAMPLES_PER_FEATURE
from utils.files.disk_arrays import disk_zeros, release

if TYPE_CHECKING:
    from models.audio.hubert import HubertEncoder

STEPS_MULTIPLE = 8  # feature steps; one latent step of the motion network is 4 motion frames
AUDIO_DIMS = {"mfcc": 13, "hubert": 1024, "whisper": 768}

MFCC_RATE = 24_000  # Hz
MFCC_WINDOW = 1200  # samples, 50 ms
MFCC_BANDS = 80
MFCC_RANGE = (80.0, 12_000.0)  # Hz
MFCC_SCALE = 0.01  # brings coefficients of several hundred near 1
DYNAMIC_RANGE = 80.0  # dB below the loudest band that are kept

MEL_WINDOW = 512  # samples, 32 ms
MEL_BANDS = 80
MEL_RANGE = (80.0, 7600.0)  # Hz
MEL_FLOOR = 1e-6

PITCH_FLOOR, PITCH_CEILING = 80.0, 750.0  # Hz
VOICING_THRESHOLD = 0.6
PITCH_BINS = 256
PITCH_BIN_RANGE = (50.0, 1100.0)  # Hz

_FRAMES_PER_BLOCK = 1024  # spectra held at once: about 20 s
_PITCH_STEPS = 1500  # steps searched at once, 30 s
_PITCH_MARGIN = 250  # context in steps on both sides of a search: the best paths meet at every pause
_PITCH_TAIL = 50  # steps after a segment that represent the rest of the wave


@dataclass(frozen=True)
class SpeechFeatures:
    """Inputs of the motion network: audio float32 [T, C]; f0 float32 [T] in Hz, 0 = unvoiced. T is a multiple of 8.

    ``audio`` may be a disk array.
    """

    audio: np.ndarray
    f0: np.ndarray


def speech_features(
    wave: Float[np.ndarray, " n"],
    audio_type: str,
    with_pitch: bool = True,
    hubert: HubertEncoder | None = None,
    scratch: Path | None = None,
) -> SpeechFeatures:
    """All inputs of the motion network for one clip; without pitch, f0 is 0 everywhere (the plain network ignores it).

    ``hubert`` is needed for audio_type "hubert" and not used for others; states of networks lie in a file in
    ``scratch``. f0 is cut or zero-padded to the audio's steps. Raises BadInput if a speech encoder is missing.
    """
    if audio_type == "hubert":
        audio = hubert_features(wave, hubert, scratch)
    elif audio_type == "whisper":
        audio = whisper_features(wave, scratch)
    else:
        audio = mfcc_features(wave)
    f0 = pitch_contour(wave) if with_pitch else np.zeros(0, np.float32)
    return SpeechFeatures(audio, fit_length(f0, len(audio)))


def hubert_features(
    wave: Float[np.ndarray, " n"], hubert: HubertEncoder | None, scratch: Path | None = None
) -> Float[np.ndarray, "t c"]:
    """HuBERT's last hidden states, zero-padded to a multiple of 8 steps, as a disk array in ``scratch``.

    Raises BadInput if there is no encoder.
    """
    if hubert is None:
        raise BadInput(
            "this audio2motion network needs HuBERT",
            expected="its folder (config.json, preprocessor_config.json, pytorch_model.bin)",
            found="none",
            advice="give it as --hubert_path, or use a network on MFCC such as pretrained_models/mini/audio2motion",
        )
    from models.audio.hubert import n_states

    return _padded_states(hubert.encode_chunks(wave), n_states(len(wave)), hubert.n_channels, scratch)


def whisper_features(wave: Float[np.ndarray, " n"], scratch: Path | None = None) -> Float[np.ndarray, "t 768"]:
    """States of the Whisper-tiny encoder, zero-padded to a multiple of 8 steps, as a disk array in ``scratch``."""
    from models.audio.speech_encoder import SpeechEncoder, n_states

    chunks = SpeechEncoder.load().encode_chunks(wave)
    return _padded_states(chunks, n_states(len(wave)), AUDIO_DIMS["whisper"], scratch)


def _padded_states(
    chunks: Iterable[Float[np.ndarray, "t c"]], n_steps: int, n_channels: int, scratch: Path | None
) -> Float[np.ndarray, "n c"]:
    states, done = disk_zeros((_next_multiple(n_steps), n_channels), scratch), 0
    for chunk in chunks:
        states[done : done + len(chunk)] = chunk
        done += len(chunk)
        release(states)
    return states


def mfcc_features(wave: Float[np.ndarray, " n"]) -> Float[np.ndarray, "t 13"]:
    """MFCC as the motion network takes them: from 24 kHz, scaled by 1/100, zero-padded to a multiple of 8 steps."""
    return pad_to_multiple(_mfcc(_resampled(wave, SAMPLE_RATE, MFCC_RATE))) * np.float32(MFCC_SCALE)


def mfcc(wave24k: Float[np.ndarray, " n"]) -> Float[np.ndarray, "t 13"]:
    """Mel-frequency cepstrum at 50 Hz of a 24 kHz wave: centred Hann windows, power in dB, orthonormal DCT-II.

    Equals librosa.feature.mfcc(n_mfcc=13, n_fft=1200, hop_length=480, n_mels=80, fmin=80, fmax=12000).
    """
    return _mfcc([wave24k])


def _mfcc(pieces: Iterable[Float[np.ndarray, " n"]]) -> Float[np.ndarray, "t 13"]:
    from librosa import power_to_db

    hop = MFCC_RATE // FEATURE_RATE
    centred = _between_zeros(pieces, MFCC_WINDOW // 2)
    bands = _mel_spectrum(centred, MFCC_RATE, MFCC_WINDOW, hop, MFCC_BANDS, MFCC_RANGE, power=2)
    return _cepstrum(power_to_db(bands, top_db=DYNAMIC_RANGE)).astype(np.float32)


def log_mel(wave: Float[np.ndarray, " n"]) -> Float[np.ndarray, "t 80"]:
    """log10 mel magnitudes at 50 Hz, windows not centred: (n - 512) // 320 + 1 steps.

    A wave under one window is padded with zeros to 512 samples (the reference fails on it).
    """
    wave = _at_least_one_window(wave)
    bands = _mel_spectrum([wave], SAMPLE_RATE, MEL_WINDOW, SAMPLES_PER_FEATURE, MEL_BANDS, MEL_RANGE, power=1)
    return np.log10(np.maximum(bands, MEL_FLOOR)).astype(np.float32)


def pitch_contour(wave: Float[np.ndarray, " n"]) -> Float[np.ndarray, " t"]:
    """Praat's f0 in Hz, 0 where unvoiced, as many steps as log_mel has; a missing end repeats the last value.

    The reference refuses a difference of more than 8 steps; with these settings it is never more than one.
    """
    wave = _at_least_one_window(wave)
    n_steps = (len(wave) - MEL_WINDOW) // SAMPLES_PER_FEATURE + 1
    f0 = praat_pitch(wave)[:n_steps]
    return np.pad(f0, (0, n_steps - len(f0)), mode="edge").astype(np.float32)


def praat_pitch(wave: Float[np.ndarray, " n"]) -> Float[np.ndarray, " t"]:
    """Praat's autocorrelation pitch, one value per 20 ms, float64 Hz.

    The wave is first zero-padded to the next whole step, a whole one if it ends on a step; there is no value for
    the last. Praat holds the sound several times in double precision, so that a long one is searched in segments:

        wave     |-----------|-----------|---- ...
        search 0 [===========--]t            kept (=), context (-), and a tail (t) that gives
        search 1           [--===========--]t    the segment the mean and the peak of the whole wave
    """
    n_steps = len(wave) // SAMPLES_PER_FEATURE + 1
    if n_steps <= _PITCH_STEPS + 2 * _PITCH_MARGIN:
        return _search_pitch(fit_length(wave, n_steps * SAMPLES_PER_FEATURE))
    mean = float(np.mean(wave, dtype=np.float64)) * len(wave) / (n_steps * SAMPLES_PER_FEATURE)
    low, high = wave.min(), wave.max()
    peak = float(low if mean - low > high - mean else high)
    found = []
    for start in range(0, n_steps, _PITCH_STEPS):
        first, last = max(0, start - _PITCH_MARGIN), min(n_steps, start + _PITCH_STEPS + _PITCH_MARGIN)
        segment = fit_length(wave[first * SAMPLES_PER_FEATURE :], (last - first) * SAMPLES_PER_FEATURE)
        pitch = _search_pitch(_with_tail(segment, mean, peak))[: last - first]
        found.append(pitch[start - first :][:_PITCH_STEPS])
    return np.concatenate(found)[: n_steps - 1]


def _with_tail(segment: Float[np.ndarray, " n"], mean: float, peak: float) -> Float[np.ndarray, " m"]:
    """A segment of sound with a tail that gives it the mean and the peak of the whole wave."""
    tail = np.zeros(_PITCH_TAIL * SAMPLES_PER_FEATURE)
    tail[len(tail) // 2] = peak
    n_samples = len(segment) + len(tail)
    missing = mean * n_samples - np.sum(segment, dtype=np.float64) - peak
    tail[len(tail) // 2 + 1 :] = missing / (len(tail) - len(tail) // 2 - 1)
    return np.concatenate([segment, tail])


def _search_pitch(wave: Float[np.ndarray, " n"]) -> Float[np.ndarray, " t"]:
    import parselmouth

    pitch = parselmouth.Sound(wave, SAMPLE_RATE).to_pitch_ac(
        time_step=1 / FEATURE_RATE,
        voicing_threshold=VOICING_THRESHOLD,
        pitch_floor=PITCH_FLOOR,
        pitch_ceiling=PITCH_CEILING,
    )
    return pitch.selected_array["frequency"]


def coarse_pitch(f0: Float[Tensor, "*t"], round_half_up: bool = True) -> Int[Tensor, "*t"]:
    """Pitch class 1..255 on the HTK mel scale between 50 and 1100 Hz; unvoiced (0 Hz) is 1.

    The reference rounds half up inside its network and half to even in its data preparation (round_half_up=False).
    """
    low, high = (1127 * math.log(1 + hz / 700) for hz in PITCH_BIN_RANGE)
    mel = 1127 * torch.log(1 + f0 / 700)
    scaled = (mel - low) * ((PITCH_BINS - 2) / (high - low)) + 1
    clamped = scaled.clamp(1, PITCH_BINS - 1)
    return (clamped + 0.5).floor().long() if round_half_up else clamped.round().long()


def fit_length(steps: Float[np.ndarray, "t *c"], n_steps: int) -> Float[np.ndarray, "n *c"]:
    """Cut, or append zeros, to ``n_steps``."""
    missing = max(0, n_steps - len(steps))
    return np.pad(steps[:n_steps], [(0, missing)] + [(0, 0)] * (steps.ndim - 1)) if missing else steps[:n_steps]


def pad_to_multiple(steps: Float[np.ndarray, "t *c"], multiple: int = STEPS_MULTIPLE) -> Float[np.ndarray, "n *c"]:
    """Append zeros up to the next multiple."""
    return fit_length(steps, _next_multiple(len(steps), multiple))


def _next_multiple(n_steps: int, multiple: int = STEPS_MULTIPLE) -> int:
    return -(-n_steps // multiple) * multiple


def resample(wave: Float[np.ndarray, " n"], rate: float, new_rate: float) -> Float[np.ndarray, " m"]:
    """Band-limited resampling (soxr HQ) to ceil(n * new_rate / rate) samples, as librosa.load does it."""
    import soxr

    n_samples = int(np.ceil(len(wave) * new_rate / rate))
    return fit_length(soxr.resample(wave, rate, new_rate, quality="HQ"), n_samples)


def _resampled(wave: Float[np.ndarray, " n"], rate: float, new_rate: float) -> Iterator[Float[np.ndarray, " m"]]:
    """The result of resample, piece by piece."""
    import soxr

    stream = soxr.ResampleStream(rate, new_rate, 1, dtype="float32", quality="HQ")
    missing = int(np.ceil(len(wave) * new_rate / rate))
    for start in range(0, len(wave), SAMPLE_RATE):
        piece = stream.resample_chunk(wave[start : start + SAMPLE_RATE], last=start + SAMPLE_RATE >= len(wave))
        yield piece[:missing]
        missing -= len(piece[:missing])
    yield np.zeros(missing, np.float32)


def _at_least_one_window(wave: Float[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
    return fit_length(wave, max(len(wave), MEL_WINDOW))


def _between_zeros(pieces: Iterable[Float[np.ndarray, " n"]], n_zeros: int) -> Iterator[Float[np.ndarray, " m"]]:
    yield np.zeros(n_zeros, np.float32)
    yield from pieces
    yield np.zeros(n_zeros, np.float32)


def _frame_blocks(
    pieces: Iterable[Float[np.ndarray, " n"]], window: int, hop: int
) -> Iterator[Float[np.ndarray, "t w"]]:
    """Windows of a wave in pieces of any length, in blocks of _FRAMES_PER_BLOCK."""
    waiting = np.zeros(0, np.float32)
    for piece in pieces:
        for start in range(0, len(piece), _FRAMES_PER_BLOCK * hop):
            waiting = np.concatenate([waiting, piece[start : start + _FRAMES_PER_BLOCK * hop]], dtype=np.float32)
            if len(waiting) >= window:
                frames = np.lib.stride_tricks.sliding_window_view(waiting, window)[::hop]
                yield frames
                waiting = waiting[len(frames) * hop :]


def _cepstrum(decibels: Float[np.ndarray, "t bands"]) -> Float[np.ndarray, "t 13"]:
    blocks = [decibels[start : start + _FRAMES_PER_BLOCK] for start in range(0, len(decibels), _FRAMES_PER_BLOCK)]
    n_kept = AUDIO_DIMS["mfcc"]
    return np.concatenate([dct(block, type=2, axis=1, norm="ortho")[:, :n_kept] for block in blocks])


def _mel_spectrum(
    pieces: Iterable[Float[np.ndarray, " n"]],
    rate: int,
    window: int,
    hop: int,
    n_bands: int,
    band_range: tuple[float, float],
    power: int,
) -> Float[np.ndarray, "t bands"]:
    """Short-time |spectrum|^power through Slaney's mel filter bank, of a wave that comes in pieces of any length."""
    from librosa.filters import mel

    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
    low, high = band_range
    filters = mel(sr=rate, n_fft=window, n_mels=n_bands, fmin=low, fmax=high).T
    blocks = _frame_blocks(pieces, window, hop)
    return np.concatenate([np.abs(rfft(block * hann, axis=1)) ** power @ filters for block in blocks])
