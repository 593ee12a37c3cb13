"""models/audio/speech_detector.py against the wheel's own graph in ONNX Runtime, and on waves of any length."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from models.audio.speech_detector import (
    CHUNK_SAMPLES,
    CONTEXT_SAMPLES,
    KEPT_CHUNKS,
    WARM_UP_CHUNKS,
    SpeechDetector,
    samples_between,
)
from tests.helpers.sounds import demo_speech, music, pink, speech
from utils.core.types import SAMPLE_RATE, SAMPLES_PER_FRAME
from utils.weights.speech_wheel import DETECTOR_PATH, wheel_file


@pytest.fixture(scope="module")
def detector() -> SpeechDetector:
    return SpeechDetector.load()


def heard(detector: SpeechDetector, wave: np.ndarray, first: int, n_chunks: int) -> np.ndarray:
    """Probabilities of one window, with one memory from sample ``first`` on."""
    samples = samples_between(wave, first - CONTEXT_SAMPLES, first + n_chunks * CHUNK_SAMPLES)
    with torch.inference_mode():
        return detector(torch.from_numpy(samples)[None])[0].numpy()


def test_probabilities_are_those_of_the_graph(detector):
    wave = demo_speech()[: 200 * CHUNK_SAMPLES]
    session = onnxruntime.InferenceSession(wheel_file(DETECTOR_PATH), providers=["CPUExecutionProvider"])
    state, rate, expected = np.zeros((2, 1, 128), np.float32), np.array(SAMPLE_RATE, np.int64), []
    for start in range(0, len(wave), CHUNK_SAMPLES):
        chunk = samples_between(wave, start - CONTEXT_SAMPLES, start + CHUNK_SAMPLES)
        found, state = session.run(None, {"input": chunk[None], "state": state, "sr": rate})
        expected.append(found[0, 0])
    assert min(expected) < 0.05 and max(expected) > 0.95  # speech and pauses
    np.testing.assert_allclose(heard(detector, wave, 0, 200), expected, atol=1e-5)


def test_every_window_starts_afresh(detector):
    """The plain twin: one window after the other, on its own."""
    wave = np.concatenate([demo_speech(), demo_speech(), demo_speech()])
    found = detector.probabilities(wave)
    assert len(found) == -(-len(wave) // CHUNK_SAMPLES)
    for start in range(0, len(found), KEPT_CHUNKS):
        window = heard(detector, wave, (start - WARM_UP_CHUNKS) * CHUNK_SAMPLES, WARM_UP_CHUNKS + KEPT_CHUNKS)
        kept = found[start : start + KEPT_CHUNKS]
        np.testing.assert_allclose(kept, window[WARM_UP_CHUNKS:][: len(kept)], atol=1e-6)


def test_noise_does_not_deafen(detector):
    """Speech 6 dB below noise, after 40 s of it: a memory carried along no longer hears it."""
    noise, spoken = pink(1075, 0.1), speech(75)
    wave = np.concatenate([noise[: -len(spoken)], noise[-len(spoken) :] + spoken])
    n_chunks, n_last = len(wave) // CHUNK_SAMPLES, len(spoken) // CHUNK_SAMPLES
    assert np.mean(detector.probabilities(wave)[-n_last:] > 0.5) > 0.75
    assert np.mean(heard(detector, wave, 0, n_chunks)[-n_last:] > 0.5) < 0.1


def test_a_long_wave_gives_what_its_parts_give(detector):
    """Blocks of windows do not show, and what was two windows before is not heard."""
    n_silent = 2 * KEPT_CHUNKS * CHUNK_SAMPLES
    wave = np.concatenate([music(2000, 0.1)[: 20 * KEPT_CHUNKS * CHUNK_SAMPLES], np.zeros(n_silent), demo_speech()])
    found = detector.probabilities(wave)
    alone = detector.probabilities(demo_speech())
    np.testing.assert_allclose(found[-len(alone) :], alone, atol=1e-6)
    np.testing.assert_array_equal(found, detector.probabilities(wave))


@pytest.mark.parametrize("n_samples", [0, 1, SAMPLES_PER_FRAME, 513, KEPT_CHUNKS * CHUNK_SAMPLES])
def test_short_waves(detector, n_samples):
    found = detector.probabilities(demo_speech()[:n_samples], gain=2.0)
    assert found.shape == (-(-n_samples // CHUNK_SAMPLES),)
    assert np.isfinite(found).all()


def test_samples_between():
    wave = np.arange(1, 6, dtype=np.float32)
    assert samples_between(wave, -2, 3).tolist() == [0, 0, 1, 2, 3]
    assert samples_between(wave, 3, 7).tolist() == [4, 5, 0, 0]
    assert samples_between(wave, 6, 8).tolist() == [0, 0]
