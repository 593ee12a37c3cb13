"""models/motion/mouth_silence.py: what the mouth does where nobody speaks."""

from __future__ import annotations

import numpy as np
import pytest

from models.audio.speech_activity import speech_activity
from models.motion.mouth_silence import HELD, RAMP, SHUT, close_in_silence, runs, soft
from tests.helpers.sounds import breaths, hiss, music, pink, speech

CLOSED = np.full(64, -1.0, np.float32)


def restless(n_frames: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(n_frames, 64)).astype(np.float32)


@pytest.mark.parametrize(
    "wave",
    [np.zeros(1, np.float32), np.zeros(64_000, np.float32), hiss(100), hiss(100, 0.2), pink(100, 0.1)]
    + [music(100, 0.1), breaths(100, 0.05)],
)
def test_without_speech_the_mouth_is_shut_and_does_not_move(wave: np.ndarray) -> None:
    found = close_in_silence(restless(100), wave, CLOSED)
    np.testing.assert_array_equal(found, np.broadcast_to(CLOSED, found.shape))


def test_speech_itself_is_left_alone() -> None:
    motion = restless(100)
    np.testing.assert_array_equal(close_in_silence(motion, speech(100), CLOSED), motion)
    found = close_in_silence(motion, np.concatenate([speech(40), hiss(60)]), CLOSED)
    np.testing.assert_array_equal(found[: 40 - RAMP], motion[: 40 - RAMP])


@pytest.mark.parametrize("n_pause", [16, 30, SHUT + 20])
def test_a_long_pause_shuts_the_mouth_and_a_short_one_holds_it(n_pause: int) -> None:
    wave = np.concatenate([speech(40), hiss(n_pause), speech(40)])
    motion = restless(80 + n_pause)
    (pause,) = runs(speech_activity(wave, len(motion)).silence)
    assert n_pause - 14 <= pause.sum() < n_pause
    found = close_in_silence(motion, wave, CLOSED)
    openness = np.clip((SHUT - pause.sum()) / (SHUT - HELD), 0, 1)
    assert (openness == 0) == (n_pause > SHUT)
    expected = CLOSED + openness * (motion[pause].mean(axis=0) - CLOSED)
    inner = found[pause][RAMP:-RAMP]
    np.testing.assert_allclose(inner, np.broadcast_to(expected, inner.shape), atol=1e-5)


def test_edges_are_soft_and_monotonic() -> None:
    spoken = np.repeat([False, True, False], 20)
    share = soft(spoken)
    assert (np.diff(share[:30]) >= 0).all()
    assert share[19] + share[20] == pytest.approx(1)
    np.testing.assert_array_equal(share[: 20 - RAMP], 0)
    np.testing.assert_array_equal(share[20 + RAMP : 40 - RAMP], 1)
    assert np.abs(np.diff(share)).max() < 0.3


def test_onsets_are_not_clipped() -> None:
    """Lips move ahead of sound: from the first sound on, nearly all of the motion is left."""
    wave = np.concatenate([hiss(50), speech(50)])
    share = soft(~speech_activity(wave, 100).silence)
    assert share[50:].min() > 0.8
    assert share[47] > 0.2
    assert share[40] == 0


def test_no_frame_at_all() -> None:
    assert close_in_silence(np.zeros((0, 64), np.float32), speech(10), CLOSED).shape == (0, 64)


def test_runs() -> None:
    mask = np.array([0, 1, 0, 0, 0, 1, 1, 0], bool)
    assert [np.flatnonzero(run).tolist() for run in runs(mask)] == [[1], [5, 6]]
