"""Augmented copies of clips: lips and sound stay in sync."""

from __future__ import annotations

import numpy as np
import pytest

from models.audio.audio_features import praat_pitch
from utils.core.types import SAMPLE_RATE, SAMPLES_PER_FRAME
from utils.data.motion_dataset import MotionClip
from utils.data.sound_variants import VariantConfig, at_speed, equalised, in_room, other_voice, variants

N_FRAMES = 100
EVERYTHING = VariantConfig(3, 4, 0.15, 0.15, 5, 0.5, 0.5, (5, 30), 6)


def voice(pitch: float = 120.0, n_frames: int = N_FRAMES) -> np.ndarray:
    """A pulse train through one resonance at 700 Hz, loud in every other 10 frames."""
    from scipy.signal import lfilter

    n_samples = n_frames * SAMPLES_PER_FRAME
    pulses = (np.arange(n_samples) % (SAMPLE_RATE / pitch) < 1).astype(np.float32)
    angle = 2 * np.pi * 700 / SAMPLE_RATE
    wave = lfilter([1.0], [1, -2 * 0.97 * np.cos(angle), 0.97**2], pulses)
    loud = np.resize([1.0, 0.05], -(-n_frames // 10)).repeat(10)[:n_frames].repeat(SAMPLES_PER_FRAME)
    return (0.1 * wave * loud).astype(np.float32)


def clip() -> MotionClip:
    loud = np.resize([1.0, 0.0], N_FRAMES // 10).repeat(10)
    expression = np.zeros((N_FRAMES, 64), np.float32)
    expression[:, 0] = loud
    return MotionClip("a", "a", voice(), expression, np.zeros((N_FRAMES, 80), np.float32), np.ones(N_FRAMES, bool), 1.0)


def median_pitch(wave: np.ndarray) -> float:
    pitch = praat_pitch(wave)
    return float(np.median(pitch[pitch > 0]))


def peak(wave: np.ndarray) -> float:
    """Hz of the strongest part of the smoothed spectrum."""
    spectrum = np.abs(np.fft.rfft(wave)) ** 2
    hertz = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)
    width = int(200 / hertz[1])
    return float(hertz[np.convolve(spectrum, np.hanning(width), mode="same").argmax()])


def test_pitch_and_resonance_change_one_without_the_other() -> None:
    higher, smaller = other_voice(voice(), pitch=1.25), other_voice(voice(), formants=1.2)
    assert median_pitch(higher) == pytest.approx(150, rel=0.03)
    assert peak(higher) == pytest.approx(peak(voice()), rel=0.08)
    assert median_pitch(smaller) == pytest.approx(120, rel=0.03)
    assert peak(smaller) == pytest.approx(1.2 * peak(voice()), rel=0.08)
    assert len(other_voice(voice(), duration=1.1)) == round(1.1 * len(voice()))


def test_sound_and_lips_stay_together() -> None:
    """Wherever a copy is loud its mouth is open, with every augmentation."""
    for copy in variants(clip(), EVERYTHING, np.random.default_rng(0)):
        assert copy.is_copy
        assert abs(len(copy.wave) / SAMPLES_PER_FRAME - copy.n_frames) <= 1.5
        n = min(len(copy.wave) // SAMPLES_PER_FRAME, copy.n_frames)
        power = (copy.wave[: n * SAMPLES_PER_FRAME].reshape(n, -1) ** 2).mean(axis=1)
        assert np.corrcoef(np.log(power + 1e-9), copy.expression[:n, 0])[0, 1] > 0.75
        assert len(copy.expression) == len(copy.identity) == len(copy.valid)


def test_copies_differ_and_follow_the_generator() -> None:
    first, second = (variants(clip(), EVERYTHING, np.random.default_rng(seed)) for seed in (0, 0))
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.wave, two.wave)
    n = min(len(copy.wave) for copy in first)
    assert np.abs(first[0].wave[:n] - first[1].wave[:n]).max() > 0.01
    assert variants(clip(), VariantConfig(), np.random.default_rng(0)) == []


def test_speed() -> None:
    """Frame i of the faster clip lies at 1.25 i of the original; a frame next to an unknown one is unknown."""
    original = clip()
    original.valid[40] = False
    fast = at_speed(original, 1.25)
    assert fast.n_frames == int(99 / 1.25) + 1
    np.testing.assert_allclose(fast.expression[8], original.expression[10])
    np.testing.assert_allclose(fast.expression[7, 0], original.expression[8:10, 0] @ [0.25, 0.75])
    assert np.flatnonzero(~fast.valid).tolist() == [32]
    assert fast.lag == pytest.approx(0.8)


def test_equaliser_by_hand() -> None:
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    low, high = (np.sin(2 * np.pi * hertz * time).astype(np.float32) for hertz in (80, 8000 * 0.999))
    gains = np.array([6.0, 0, 0, 0, 0, -6.0])
    assert equalised(low, gains).std() / low.std() == pytest.approx(10 ** (6 / 20), rel=0.02)
    assert equalised(high, gains).std() / high.std() == pytest.approx(10 ** (-6 / 20), rel=0.02)
    np.testing.assert_array_equal(equalised(low, np.zeros(6)), low)


def test_a_room_adds_an_echo_after_the_sound() -> None:
    click = np.zeros(8000, np.float32)
    click[3000] = 1
    wave = in_room(click, np.random.default_rng(0))
    assert len(wave) == 8000
    np.testing.assert_allclose(wave[:3000], 0, atol=1e-6)
    assert wave[3000] == pytest.approx(1, abs=1e-5)
    first, later = (wave[3001:3801] ** 2).sum(), (wave[5401:6201] ** 2).sum()
    assert first > 4 * later > 0
