"""Augmented copies of clips with other voices, rooms and noise, for trainings on little speech.

Pitch, formants, loudness, room, microphone and noise of the sound change; speed changes for sound and motion together,
so lips and sound stay in sync. All randomness comes from the generator that is passed in.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from utils.core.config import Amount, Decay, Share, Whole
from utils.core.types import SAMPLE_RATE, SAMPLES_PER_FRAME
from utils.data.motion_dataset import MotionClip
from utils.data.motion_windows import add_noise

PITCH_FLOOR, PITCH_CEILING = 75.0, 600.0  # Hz, range of Praat's pitch detection
EQUALISER_POINTS = 6  # on a logarithmic scale between the two frequencies
EQUALISER_RANGE = (80.0, 8000.0)  # Hz
ROOM_SECONDS = (0.1, 0.5)  # until an echo has faded by 60 dB
ROOM_SHARE = (0.1, 0.7)  # amplitude of the echo beside the direct sound


@dataclass(frozen=True)
class VariantConfig:
    """Number of copies and ranges of the changes; off by default, as in the reference."""

    count: Whole = 0  # copies of every clip; only with network.audio_type whisper (states of whole clips)
    pitch: Amount = 0.0  # largest change of pitch in semitones, formants unchanged
    formants: Decay = 0.0  # largest relative change of formants, pitch unchanged: another size of head
    speed: Decay = 0.0  # largest relative change of speed of sound and lips
    equaliser_db: Amount = 0.0  # standard deviation of a smooth change of the spectrum: another microphone
    room_probability: Share = 0.0
    noise_probability: Share = 0.0
    noise_snr_db: tuple[float, float] = (5.0, 40.0)  # uniform between the two
    gain_db: Amount = 0.0  # largest change of loudness, up or down


def variants(clip: MotionClip, settings: VariantConfig, rng: np.random.Generator) -> list[MotionClip]:
    """The clip's copies, without the clip itself."""
    return [variant(clip, settings, rng) for _ in range(settings.count)]


def variant(clip: MotionClip, settings: VariantConfig, rng: np.random.Generator) -> MotionClip:
    speed = float(1 + rng.uniform(-1, 1) * settings.speed)
    clip = at_speed(clip, speed)
    wave = other_voice(
        clip.wave,
        seed=int(rng.integers(2**31)),
        pitch=float(2 ** (rng.uniform(-1, 1) * settings.pitch / 12)),
        formants=float(np.exp(rng.uniform(-1, 1) * np.log1p(settings.formants))),
        duration=1 / speed,
    )
    wave = equalised(wave, rng.normal(0, settings.equaliser_db, EQUALISER_POINTS))
    if rng.random() < settings.room_probability:
        wave = in_room(wave, rng)
    if rng.random() < settings.noise_probability:
        wave = add_noise(wave, rng.uniform(*settings.noise_snr_db), rng)
    gain = np.float32(10 ** (rng.uniform(-1, 1) * settings.gain_db / 20))
    return replace(clip, wave=wave * gain, is_copy=True)


def at_speed(clip: MotionClip, speed: float) -> MotionClip:
    """The clip with its motion ``speed`` times as fast and its sound unchanged."""
    n_frames = max(1, int((clip.n_frames - 1) / speed) + 1)
    positions = np.minimum(speed * np.arange(n_frames), clip.n_frames - 1)
    below = np.floor(positions).astype(int)
    above = np.minimum(below + 1, clip.n_frames - 1)
    share = (positions - below).astype(np.float32)[:, None]
    return replace(
        clip,
        expression=clip.expression[below] * (1 - share) + clip.expression[above] * share,
        identity=clip.identity[below],
        valid=clip.valid[below] & clip.valid[above],
        lag=clip.lag / speed,
    )


def other_voice(
    wave: Float[np.ndarray, " n"], pitch: float = 1.0, formants: float = 1.0, duration: float = 1.0, seed: int = 0
) -> Float[np.ndarray, " m"]:
    """The sound with ``pitch`` times the pitch, ``formants`` times the formants and ``duration`` times the length.

    Praat's overlap-add of pitch periods; unvoiced parts are resynthesised from random periods and change only in
    formants and length.
    """
    import parselmouth
    from parselmouth.praat import call, run

    n_samples = round(len(wave) * duration)
    if pitch == formants == duration == 1 or len(wave) < SAMPLES_PER_FRAME:
        return _fitted(wave, n_samples)
    sound = parselmouth.Sound(wave.astype(np.float64), SAMPLE_RATE)
    contour = sound.to_pitch(pitch_floor=PITCH_FLOOR, pitch_ceiling=PITCH_CEILING)
    median = call(contour, "Get quantile", 0, 0, 0.5, "Hertz")
    new_median = median * pitch if np.isfinite(median) else 0.0  # 0 keeps the pitch
    run(f"random_initializeWithSeedUnsafelyButPredictably({seed + 1})")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", parselmouth.PraatWarning)  # sound without voice
        changed = call(sound, "Change gender", PITCH_FLOOR, PITCH_CEILING, formants, new_median, 1.0, duration)
    return _fitted(changed.values[0].astype(np.float32), n_samples)


def _fitted(wave: Float[np.ndarray, " n"], n_samples: int) -> Float[np.ndarray, " m"]:
    return np.pad(wave[:n_samples], (0, max(0, n_samples - len(wave))))


def equalised(wave: Float[np.ndarray, " n"], gains_db: Float[np.ndarray, " p"]) -> Float[np.ndarray, " n"]:
    """The spectrum times gains, interpolated between points on a logarithmic scale over EQUALISER_RANGE."""
    if not np.any(gains_db) or not len(wave):
        return wave
    spectrum = np.fft.rfft(wave)
    hertz = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)
    points = np.geomspace(*EQUALISER_RANGE, len(gains_db))
    gains = np.interp(np.log(np.maximum(hertz, 1.0)), np.log(points), gains_db)
    return np.fft.irfft(spectrum * 10 ** (gains / 20), len(wave)).astype(np.float32)


def in_room(wave: Float[np.ndarray, " n"], rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Add an exponentially decaying echo; the direct sound keeps its time."""
    from scipy.signal import fftconvolve

    seconds, share = rng.uniform(*ROOM_SECONDS), rng.uniform(*ROOM_SHARE)
    times = np.arange(1, int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    echo = rng.standard_normal(len(times)) * 10 ** (-3 * times / seconds)
    response = np.concatenate([[1.0], share * echo / np.linalg.norm(echo)])
    return fftconvolve(wave, response)[: len(wave)].astype(np.float32)
