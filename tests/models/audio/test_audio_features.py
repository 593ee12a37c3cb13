"""Features of speech against plain implementations, and on unusual sound."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from models.audio import audio_features as af
from models.audio.hubert import HubertEncoder
from models.motion.audio2motion import Audio2MotionConfig, build_audio2motion
from tests.commands.test_inference_audio2motion import SMALL
from tests.helpers.hubert_folder import random_network
from utils.core.errors import BadInput
from utils.files.disk_arrays import release


def tone(hz: float, seconds: float) -> np.ndarray:
    time = np.arange(int(seconds * 16_000)) / 16_000
    return (0.3 * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def noise(n_samples: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, n_samples).astype(np.float32)


def test_mfcc_equals_librosa() -> None:
    wave = noise(30_000)
    twin = librosa.feature.mfcc(
        y=wave, sr=24_000, n_mfcc=13, n_fft=1200, hop_length=480, n_mels=80, fmin=80, fmax=12_000
    )
    np.testing.assert_allclose(af.mfcc(wave), twin.T, rtol=0, atol=2e-3)


def test_blocks_do_not_change_the_spectrum(monkeypatch) -> None:
    wave = noise(40_000)
    whole = af.log_mel(wave)
    monkeypatch.setattr(af, "_FRAMES_PER_BLOCK", 7)
    np.testing.assert_allclose(af.log_mel(wave), whole, rtol=0, atol=1e-6)


def test_pitch_of_a_tone() -> None:
    f0 = af.pitch_contour(tone(220.0, 1.0))
    assert np.median(f0) == pytest.approx(220.0, abs=0.5)


def test_unvoiced_is_the_lowest_class() -> None:
    assert af.coarse_pitch(torch.tensor([0.0, 50.0, 1100.0, 3000.0])).tolist() == [1, 1, 255, 255]


@pytest.mark.parametrize("n_samples", [1, 400, 511, 512, 640])
def test_very_short_sound(n_samples: int) -> None:
    """The reference fails under 512 samples."""
    features = af.speech_features(noise(n_samples), "mfcc")
    assert features.audio.shape == (8, 13)
    assert features.f0.shape == (8,)


def test_silence_is_finite() -> None:
    features = af.speech_features(np.zeros(16_000, np.float32), "mfcc")
    assert np.isfinite(features.audio).all()
    assert (features.f0 == 0).all()


def test_features_are_as_long_as_the_sound() -> None:
    """83 200 samples: 261 MFCC steps, padded to 264 (132 motion frames)."""
    features = af.speech_features(noise(83_200), "mfcc")
    assert features.audio.shape == (264, 13)
    assert (features.audio[261:] == 0).all()
    assert features.audio.dtype == features.f0.dtype == np.float32


def test_pitch_is_optional() -> None:
    assert (af.speech_features(tone(220.0, 1.0), "mfcc", with_pitch=False).f0 == 0).all()


def test_hubert_without_its_folder_is_one_line() -> None:
    with pytest.raises(BadInput, match=r"needs HuBERT: expected its folder .*--hubert_path"):
        af.speech_features(noise(16_000), "hubert")


class Ramp:
    """Returns step numbers, in HuBERT's count."""

    n_channels = 4

    def encode_chunks(self, wave: np.ndarray) -> Iterator[np.ndarray]:
        n_steps = max(1, (len(wave) - 80) // 320)
        steps = np.repeat(np.arange(1, n_steps + 1, dtype=np.float32)[:, None], 4, axis=1)
        for start in range(0, n_steps, 70):
            yield steps[start : start + 70]


@pytest.mark.parametrize("n_samples", [1, 512, 720, 831, 16_000, 64_400])
def test_hubert_decides_the_length(n_samples: int) -> None:
    """Steps and pitch are filled up to a multiple of 8 with zeros."""
    n_steps = max(1, (n_samples - 80) // 320)
    features = af.speech_features(tone(220.0, n_samples / 16_000), "hubert", hubert=Ramp())
    n_padded = -(-n_steps // 8) * 8
    assert features.audio.shape == (n_padded, 4)
    assert features.f0.shape == (n_padded,)
    np.testing.assert_array_equal(features.audio[:n_steps, 0], np.arange(1, n_steps + 1))
    assert (features.audio[n_steps:] == 0).all()
    assert (features.f0[n_steps:] == 0).all()


def test_pitch_and_mel_have_nearly_the_same_steps() -> None:
    """The reference refuses a difference of more than 8; it does not occur."""
    for n_samples in [*range(512, 1600, 64), *range(15_900, 16_700, 160)]:
        wave = noise(n_samples)
        assert abs(len(af.praat_pitch(wave)) - len(af.log_mel(wave))) <= 1


def test_fit_length_is_exact() -> None:
    steps = np.arange(6.0).reshape(3, 2)
    assert af.fit_length(steps, 2).tolist() == [[0, 1], [2, 3]]
    assert af.fit_length(steps, 4)[3].tolist() == [0, 0]
    assert len(af.pad_to_multiple(steps)) == 8


@pytest.mark.parametrize("offset", [0.0, 0.05])
def test_pitch_of_a_long_wave_is_searched_in_stretches(monkeypatch, offset: float) -> None:
    """Praat compares with the loudest sample and the mean of the whole wave, which lie in other segments here."""
    seconds = np.arange(20 * 16_000) / 16_000
    hertz = 150 + 40 * np.sin(2 * np.pi * 0.3 * seconds)
    wave = np.sin(2 * np.pi * np.cumsum(hertz) / 16_000) * (np.sin(2 * np.pi * 0.8 * seconds) > -0.3)
    wave = (0.02 * wave + 0.2 * noise(len(wave)) * 0.02 + offset).astype(np.float32)
    wave[-500:] += 0.5
    wave = wave[:-77]
    whole = af.praat_pitch(wave)
    assert 0.3 < np.mean(whole > 0) < 0.9
    monkeypatch.setattr(af, "_PITCH_STEPS", 200)
    monkeypatch.setattr(af, "_PITCH_MARGIN", 150)
    np.testing.assert_allclose(af.praat_pitch(wave), whole, rtol=1e-9)


def test_mfcc_features_are_those_of_the_resampled_wave() -> None:
    wave = noise(83_211)
    whole = af.pad_to_multiple(af.mfcc(af.resample(wave, 16_000, 24_000))) * np.float32(0.01)
    np.testing.assert_allclose(af.mfcc_features(wave), whole, rtol=0, atol=2e-6)


def test_memory_does_not_grow_with_the_sound() -> None:
    """Memory beside wave and features is the same for ten times the length."""
    af.log_mel(noise(16_000))

    def most(n_samples: int) -> int:
        wave = noise(n_samples)
        tracemalloc.start()
        af.log_mel(wave)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - n_samples // 320 * 3 * 80 * 4  # copies of the spectrum

    assert most(60 * 16_000 * 10) < 1.2 * most(60 * 16_000)


def test_hubert_s_states_lie_on_the_disk(tmp_path: Path) -> None:
    """The values of ``encode``, in an unnamed file in the given folder."""
    encoder = HubertEncoder(random_network())
    wave = noise(2 * 320_000 + 9000)
    audio = af.speech_features(wave, "hubert", with_pitch=False, hubert=encoder, scratch=tmp_path).audio
    expected = af.pad_to_multiple(encoder.encode(wave))
    np.testing.assert_array_equal(audio, expected)
    release(audio)
    np.testing.assert_array_equal(audio, expected)
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        af.speech_features(wave, "hubert", with_pitch=False, hubert=encoder, scratch=tmp_path / "nowhere")


class Wide:
    """States as wide as the large network's."""

    n_channels = 1024

    def encode_chunks(self, wave: np.ndarray) -> Iterator[np.ndarray]:
        for _ in range(len(wave) // 320_000):
            yield np.ones((1000, 1024), np.float32)


def test_hubert_s_states_are_not_held() -> None:
    """Ten minutes of states are 117 MiB; the features and the motion network hold only some seconds."""
    wave = np.zeros(600 * 16_000 + 80, np.float32)
    network = build_audio2motion(Audio2MotionConfig("hubert", False, cond_channels=4, sizes=SMALL)).eval()
    tracemalloc.start()
    features = af.speech_features(wave, "hubert", with_pitch=False, hubert=Wide())
    network.predict(features)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert features.audio.shape == (30_000, 1024)
    assert peak < 20 * 2**20
