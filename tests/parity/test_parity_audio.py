"""Waveform features against the reference's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.audio.audio_features import (
    MFCC_RATE,
    coarse_pitch,
    log_mel,
    mfcc,
    mfcc_features,
    pad_to_multiple,
    pitch_contour,
    praat_pitch,
    resample,
)
from utils.core.types import SAMPLE_RATE


def as_wave(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.float32) / 32768


@pytest.fixture
def f0(parity):
    return parity("audio_f0")


@pytest.fixture
def cepstrum(parity):
    return parity("audio_mfcc")


def test_log_mel(f0) -> None:
    np.testing.assert_allclose(log_mel(as_wave(f0["in_wav_int16"])), f0["mel"], rtol=0, atol=1e-4)


def test_praat_pitch(f0) -> None:
    wave = as_wave(f0["in_wav_int16"])
    np.testing.assert_allclose(praat_pitch(wave), f0["f64_f0_praat_raw"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(pitch_contour(wave), f0["f0"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_coarse_pitch(f0, kind: str) -> None:
    """The reference's two roundings."""
    hz = torch.from_numpy(f0["coarse_in_hz"])
    np.testing.assert_array_equal(coarse_pitch(hz, round_half_up=kind == "torch"), f0[f"coarse_{kind}"])


def test_coarse_pitch_of_the_clip(f0) -> None:
    np.testing.assert_array_equal(coarse_pitch(torch.from_numpy(f0["f0"]), round_half_up=False), f0["f0_coarse"])


def test_lengths(f0) -> None:
    """Every length rule of the reference; where it fails (-1: under one window) there is one step here."""
    columns = list(f0["length_columns"])
    for row in f0["length_table"]:
        expected = dict(zip(columns, row, strict=True))
        wave = np.random.default_rng(0).normal(0, 0.1, expected["n_samples"]).astype(np.float32)
        assert len(log_mel(wave)) == abs(expected["mel_frames"])
        assert len(pitch_contour(wave)) == abs(expected["f0_frames"])
        if expected["praat_frames"] > 0:
            assert len(praat_pitch(wave)) == expected["praat_frames"]
        n_hubert = expected["hubert_frames"]
        assert len(pad_to_multiple(np.zeros((n_hubert, 1)))) == expected["hubert_padded_to_8"]
        assert expected["hubert_padded_to_8"] == 2 * expected["y_mask_len"]


def test_mfcc(cepstrum) -> None:
    np.testing.assert_allclose(mfcc(as_wave(cepstrum["in_wav24k_int16"])), cepstrum["mfcc"], rtol=0, atol=5e-3)


def test_mfcc_after_resampling(cepstrum) -> None:
    wave = as_wave(cepstrum["in_wav16k_int16"])
    resampled = resample(wave, SAMPLE_RATE, MFCC_RATE)
    assert len(resampled) == cepstrum["resampled_len"][0]
    np.testing.assert_allclose(resampled[4000:8000], cepstrum["resampled_head"], rtol=0, atol=1e-6)

    expected = cepstrum["mfcc_from16k_padded8"]
    actual = mfcc_features(wave) * 100
    assert actual.shape == expected.shape
    sounding = expected[:, :1] > expected[:, 0].min() + 80  # frames on the dB floor depend on the resampler's noise
    tolerance = np.where(sounding, 2e-2, 1.0)
    assert (np.abs(actual - expected) <= tolerance).all()
