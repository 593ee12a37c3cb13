"""models/motion/mouth_silence.py: where speech is, and what the mouth does between."""

from __future__ import annotations

import numpy as np
import pytest

from models.motion.mouth_silence import HELD, RAMP, SHUT, close_in_silence, pauses, soft, spoken_frames
from tests.models.audio.test_speech_activity import buzz, hiss
from utils.core.types import SAMPLES_PER_FRAME

CLOSED = np.full(64, -1.0, np.float32)


def restless(n_frames: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(n_frames, 64)).astype(np.float32)


def pink(n_frames: int, level: float) -> np.ndarray:
    spectrum = np.fft.rfft(np.random.default_rng(2).standard_normal(n_frames * SAMPLES_PER_FRAME))
    noise = np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)))
    return (level * noise / noise.std()).astype(np.float32)


@pytest.mark.parametrize(
    "wave", [np.zeros(1, np.float32), np.zeros(64_000, np.float32), hiss(100), hiss(100, 0.2), pink(100, 0.1)]
)
def test_without_a_voice_the_mouth_is_shut_and_does_not_move(wave: np.ndarray) -> None:
    found = close_in_silence(restless(100), wave, CLOSED)
    np.testing.assert_array_equal(found, np.broadcast_to(CLOSED, found.shape))


def test_speech_itself_is_left_alone() -> None:
    motion = restless(100)
    np.testing.assert_array_equal(close_in_silence(motion, buzz(100), CLOSED), motion)
    found = close_in_silence(motion, np.concatenate([buzz(40), hiss(60)]), CLOSED)
    np.testing.assert_array_equal(found[: 40 - RAMP], motion[: 40 - RAMP])


def test_a_long_pause_shuts_the_mouth_and_a_short_one_holds_it() -> None:
    long = np.concatenate([buzz(40), hiss(SHUT + 5), buzz(40)])
    motion = restless(80 + SHUT + 5)
    inner = slice(40 + RAMP, 40 + SHUT + 5 - RAMP)
    np.testing.assert_allclose(close_in_silence(motion, long, CLOSED)[inner], -1, atol=1e-6)
    n_short = HELD + 4
    motion = restless(80 + n_short)
    found = close_in_silence(motion, np.concatenate([buzz(40), hiss(n_short), buzz(40)]), CLOSED)
    inner = slice(40 + RAMP, 40 + n_short - RAMP)
    openness = 1 - (n_short - HELD) / (SHUT - HELD)
    expected = CLOSED + openness * (motion[40 : 40 + n_short].mean(axis=0) - CLOSED)
    np.testing.assert_allclose(found[inner], np.broadcast_to(expected, found[inner].shape), atol=1e-5)


def test_edges_are_soft_and_monotonic() -> None:
    spoken = np.repeat([False, True, False], 20)
    share = soft(spoken)
    assert (np.diff(share[:30]) >= 0).all()
    assert share[19] + share[20] == pytest.approx(1)
    np.testing.assert_array_equal(share[: 20 - RAMP], 0)
    np.testing.assert_array_equal(share[20 + RAMP : 40 - RAMP], 1)
    assert np.abs(np.diff(share)).max() < 0.3


def test_speech_is_found_in_noise_and_at_any_loudness() -> None:
    wave = np.concatenate([hiss(30, 1e-4), buzz(40), hiss(30, 1e-4)])
    expected = np.repeat([False, True, False], [30, 40, 30])
    for sound in (wave, 0.1 * wave, 3 * wave, wave + pink(100, 0.3 / np.sqrt(10))):
        assert np.flatnonzero(spoken_frames(sound.astype(np.float32), 100) != expected).size <= 2


def test_whispered_speech_is_speech() -> None:
    syllables = np.repeat(np.tile([0.3, 0.02, 0.3, 0.0005], 6), 6).repeat(SAMPLES_PER_FRAME)
    whisper = (syllables * np.random.default_rng(0).normal(size=len(syllables))).astype(np.float32)
    assert spoken_frames(whisper, 144).mean() > 0.6
    assert not spoken_frames(hiss(144, 0.3), 144).any()


def test_no_frame_at_all() -> None:
    assert close_in_silence(np.zeros((0, 64), np.float32), buzz(10), CLOSED).shape == (0, 64)


def test_pauses() -> None:
    mask = np.array([0, 1, 0, 0, 0, 1, 1, 0], bool)
    assert [np.flatnonzero(pause).tolist() for pause in pauses(~mask)] == [[1], [5, 6]]
