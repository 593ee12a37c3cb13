"""Motion at other frame rates and its rest after the speech."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from utils.media.motion_timing import SETTLE_SECONDS, n_motion_frames, resample_motion, settle

RATES = [Fraction(24), Fraction(30_000, 1001), Fraction(30), Fraction(60), Fraction(15), Fraction(25)]


def waves(times: np.ndarray) -> np.ndarray:
    """A smooth motion of 1 and 2.5 Hz at any times, [T, 64]."""
    return np.outer(np.sin(2 * np.pi * times), np.ones(64)) + np.outer(np.cos(5 * np.pi * times), np.linspace(0, 1, 64))


@pytest.mark.parametrize("fps", RATES)
def test_motion_happens_at_the_same_time_at_every_rate(fps):
    motion = waves(np.arange(100) / 25).astype(np.float32)
    resampled = resample_motion(motion, fps)
    assert resampled.dtype == np.float32
    assert len(resampled) == n_motion_frames(100, fps)
    assert 4 <= len(resampled) / float(fps) < 4 + 1 / float(fps)
    times = np.arange(len(resampled)) / float(fps)
    inside = times <= 99 / 25
    assert np.abs(resampled - waves(times))[inside].max() < 0.01
    np.testing.assert_array_equal(resampled[~inside], np.broadcast_to(motion[-1], resampled[~inside].shape))


def test_25_fps_changes_nothing():
    motion = waves(np.arange(12) / 25).astype(np.float32)
    np.testing.assert_array_equal(resample_motion(motion, Fraction(25)), motion)


@pytest.mark.parametrize("n_motion", [1, 2, 3])
def test_very_short_motions(n_motion):
    motion = waves(np.arange(n_motion) / 25).astype(np.float32)
    resampled = resample_motion(motion, Fraction(60))
    assert len(resampled) == n_motion_frames(n_motion, Fraction(60))
    np.testing.assert_allclose(resampled[0], motion[0])
    np.testing.assert_allclose(resampled[-1], motion[-1], atol=1e-5)


@pytest.mark.parametrize("fps", RATES)
def test_face_comes_to_rest_smoothly_and_stays(fps):
    motion = np.ones((10, 64), np.float32)
    rest = np.full(64, -1.0, np.float32)
    result = settle(motion, 10 + 4 * int(fps), rest, fps)
    assert len(result) == 10 + 4 * int(fps)
    np.testing.assert_array_equal(result[:10], motion)
    n_way = int(np.ceil(SETTLE_SECONDS * float(fps)))
    np.testing.assert_allclose(result[10 + n_way :], np.broadcast_to(rest, (len(result) - 10 - n_way, 64)), atol=1e-6)
    steps = np.diff(result[:, 0])
    assert (steps <= 0).all()
    assert np.abs(steps).max() <= np.pi / (SETTLE_SECONDS * float(fps)) + 1e-6  # half a cosine over a distance of 2
    assert np.abs(steps[9]) < np.abs(steps).max()  # it sets out gently


def test_result_that_is_no_longer_than_the_motion():
    motion = waves(np.arange(12) / 25).astype(np.float32)
    np.testing.assert_array_equal(settle(motion, 7, motion[0], Fraction(25)), motion[:7])
