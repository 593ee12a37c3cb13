"""States of the newest sound: sound after an end has no influence on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.audio.recent_speech import recent_states
from models.audio.speech_encoder import SpeechEncoder, n_states
from utils.core.types import SAMPLE_RATE, SAMPLES_PER_FEATURE
from utils.media.audio import load_waveform

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def encoder() -> SpeechEncoder:
    return SpeechEncoder.load()


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """12 s of real speech."""
    return np.resize(load_waveform(ROOT / "demo" / "xinwen_5s.mp3"), 12 * SAMPLE_RATE)


def test_sound_after_an_end_is_unknown(encoder, speech):
    end = 450
    changed = speech.copy()
    changed[end * SAMPLES_PER_FEATURE :] = 0.5
    first, second = (list(recent_states(encoder, wave, [end], 50)) for wave in (speech, changed))
    assert first[0].shape == (50, encoder.n_channels)
    np.testing.assert_array_equal(first[0], second[0])


def test_with_much_sound_on_both_sides_they_are_those_of_the_whole_wave(encoder, speech):
    """States 2 s before the end: nearly those of windows that lie elsewhere."""
    whole, end = encoder.encode(speech), 500
    (found,) = recent_states(encoder, speech, [end], 120)
    assert np.corrcoef(found[:20].ravel(), whole[end - 120 : end - 100].ravel())[0, 1] > 0.98


def test_several_ends_in_batches(encoder, speech):
    """From a first one with hardly any sound before it to one after the wave's end."""
    ends = [4, 100, 150, 300, 420, n_states(len(speech)) + 10]
    found = list(recent_states(encoder, speech, ends, 8))
    assert [states.shape for states in found] == [(8, encoder.n_channels)] * len(ends)
    alone = list(recent_states(encoder, speech, ends[-2:-1], 8))
    np.testing.assert_allclose(found[-2], alone[0], atol=1e-3)
    assert np.isfinite(found).all()
