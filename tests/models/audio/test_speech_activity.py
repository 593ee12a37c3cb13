"""models/audio/speech_activity.py: speech, pauses, short sounds, and sounds that are no speech."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.audio import speech_activity as module
from models.audio.speech_activity import EDGE, SpeechActivity, speech_activity, without_short_runs
from tests.helpers.sounds import breaths, demo_speech, hiss, music, pink, speech, whispered
from utils.core.errors import BadInput
from utils.core.types import SAMPLES_PER_FRAME
from utils.weights import speech_wheel

N_BEFORE, N_SPEECH, N_AFTER = 40, 60, 40
N = N_BEFORE + N_SPEECH + N_AFTER
LATE = 12  # frames by which the detector may notice the end of speech; it notices a start within three
NOISES = {"hiss": hiss, "pink": pink, "music": music, "breaths": breaths}


def between_pauses(noise: np.ndarray) -> np.ndarray:
    """Speech over a noise that goes on before and after it."""
    spoken = np.pad(speech(N_SPEECH), SAMPLES_PER_FRAME * np.array([N_BEFORE, N_AFTER]))
    return (spoken + noise).astype(np.float32)


def check_found(found: SpeechActivity) -> None:
    """No onset is clipped, and the pauses are found."""
    first, last = np.flatnonzero(~found.silence)[[0, -1]]
    assert N_BEFORE - 5 <= first <= N_BEFORE
    assert N_BEFORE + N_SPEECH - 1 <= last <= N_BEFORE + N_SPEECH + LATE
    assert found.speech[N_BEFORE + 3 : N_BEFORE + N_SPEECH - EDGE].all()
    assert not (found.speech & found.silence).any()


@pytest.mark.parametrize("gain", [0.01, 1, 30])
def test_speech_between_pauses_is_found_at_any_loudness(gain):
    check_found(speech_activity(np.float32(gain) * between_pauses(hiss(N)), N))


@pytest.mark.parametrize("name", ["hiss", "pink", "music"])
@pytest.mark.parametrize("decibels", [10, 3])
def test_speech_is_found_in_noise_and_music(name, decibels):
    check_found(speech_activity(between_pauses(NOISES[name](N, 0.05 / 10 ** (decibels / 20))), N))


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("level", [0.2, 0.005])
def test_noise_and_music_are_no_speech(name, level):
    assert speech_activity(NOISES[name](300, level), 300).silence.all()


def test_whispered_speech_is_speech():
    n = len(demo_speech()) // SAMPLES_PER_FRAME
    voiced, whisper = (speech_activity(wave, n) for wave in (demo_speech(), whispered(demo_speech())))
    assert whisper.speech[voiced.speech].mean() > 0.9


def test_stops_belong_to_speech_and_clicks_to_silence():
    stop = np.concatenate([speech(30), hiss(3), speech(30)])
    assert speech_activity(stop, 63).speech.all()
    click = np.concatenate([hiss(20), speech(1), hiss(20)])
    assert speech_activity(click, 41).silence.all()


@pytest.mark.parametrize("wave", [np.zeros(1, np.float32), np.zeros(16_000, np.float32), hiss(25, 1e-5)])
def test_no_sound_is_silence_throughout_and_needs_no_network(wave, monkeypatch):
    monkeypatch.setattr(module, "SpeechDetector", None)
    found = speech_activity(wave, 25)
    assert found.silence.all()
    assert not found.speech.any()


def test_speech_in_a_long_silence_is_found():
    """The loudness of the audible part counts, not that of the whole."""
    wave = np.zeros(3000 * SAMPLES_PER_FRAME, np.float32)
    wave[1000 * SAMPLES_PER_FRAME :][: 60 * SAMPLES_PER_FRAME] = speech(60, 0.01)
    found = speech_activity(wave, 3000)
    assert found.speech[1003:1058].all()
    assert found.silence[:995].all()
    assert found.silence[1075:].all()


def test_video_that_outlasts_the_sound_ends_in_silence():
    found = speech_activity(speech(20), 60)
    assert found.silence[20 + LATE :].all()
    assert isinstance(speech_activity(speech(20), 0), SpeechActivity)


@pytest.mark.parametrize("n_samples", [1, 100, SAMPLES_PER_FRAME])
def test_very_short_sounds(n_samples):
    found = speech_activity(speech(1)[:n_samples], 3)
    assert found.silence.shape == found.speech.shape == (3,)


def test_a_missing_wheel_is_one_line(monkeypatch):
    monkeypatch.setattr(speech_wheel, "WHEEL", replace(speech_wheel.WHEEL, name="pipecat-that-is-not-installed"))
    with pytest.raises(BadInput, match="speech networks missing"):
        speech_activity(speech(10), 10)


def test_runs_at_the_ends_go_on():
    spoken = np.array([1, 0, 0, 0, 0, 0, 0, 0, 0, 1], bool)
    np.testing.assert_array_equal(without_short_runs(spoken), spoken)
