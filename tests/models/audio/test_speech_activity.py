"""models/audio/speech_activity.py: speech, pauses, clicks and digital silence."""

from __future__ import annotations

import numpy as np

from models.audio.speech_activity import EDGE, SpeechActivity, speech_activity, without_short_runs
from utils.core.types import SAMPLE_RATE, SAMPLES_PER_FRAME


def buzz(n_frames: int, level: float = 0.3) -> np.ndarray:
    time = np.arange(n_frames * SAMPLES_PER_FRAME) / SAMPLE_RATE
    return (level * np.sign(np.sin(2 * np.pi * 140 * time))).astype(np.float32)


def hiss(n_frames: int, level: float = 0.001) -> np.ndarray:
    return np.random.default_rng(0).normal(0, level, n_frames * SAMPLES_PER_FRAME).astype(np.float32)


def test_speech_between_pauses_is_found_to_the_frame():
    wave = np.concatenate([hiss(20), buzz(30), hiss(25)])
    found = speech_activity(wave, 75)
    np.testing.assert_array_equal(np.flatnonzero(found.speech), np.arange(20 + EDGE, 50 - EDGE))
    np.testing.assert_array_equal(np.flatnonzero(found.silence), [*range(20 - EDGE), *range(50 + EDGE, 75)])


def test_stops_belong_to_speech_and_clicks_to_silence():
    click = np.concatenate([hiss(12), buzz(1), hiss(12)])
    assert speech_activity(np.concatenate([buzz(10), hiss(3), buzz(10)]), 23).speech.all()
    found = speech_activity(np.concatenate([buzz(30), click]), 55)
    assert found.silence[30 + EDGE :].all()


def test_soft_voices_count_and_soft_noise_does_not():
    quiet = 0.3 * 10 ** (-30 / 20)  # 30 dB below the loud parts
    wave = np.concatenate([buzz(20), buzz(20, quiet), hiss(20), hiss(20, quiet)])
    found = speech_activity(wave, 80)
    assert found.speech[:38].all()
    assert found.silence[44:].all()


def test_no_sound_is_silence_throughout():
    for wave in (np.zeros(1, np.float32), np.zeros(16_000, np.float32), hiss(25, 1e-5)):
        found = speech_activity(wave, 25)
        assert found.silence.all()
        assert not found.speech.any()


def test_video_that_outlasts_the_sound_ends_in_silence():
    found = speech_activity(buzz(20), 60)
    assert found.silence[20 + EDGE :].all()
    assert isinstance(speech_activity(buzz(20), 0), SpeechActivity)


def test_runs_at_the_ends_go_on():
    audible = np.array([1, 0, 0, 0, 0, 0, 0, 0, 0, 1], bool)
    np.testing.assert_array_equal(without_short_runs(audible), audible)
