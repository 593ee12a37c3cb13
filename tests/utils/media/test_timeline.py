"""Durations at 25 Hz and the order in which source frames are shown."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from utils.media.timeline import (
    LENGTHS,
    SETTLE_SECONDS,
    exact_rate,
    monotonic_runs,
    n_motion_frames,
    n_needed_frames,
    n_result_frames,
    n_video_frames,
    ping_pong,
    resample_motion,
    settle,
    shown_frames,
)


@pytest.mark.parametrize(
    ("n_samples", "fps", "expected"),
    [(0, 25, 0), (1, 25, 1), (640, 25, 1), (641, 25, 2), (16_000, 25, 25), (16_000, Fraction(30_000, 1001), 30)],
)
def test_frames_that_cover_a_sound(n_samples, fps, expected):
    assert n_video_frames(n_samples, 16_000, fps) == expected


def test_whole_frames_of_sound_give_no_frame_too_many():
    for n_frames in range(1, 5000):
        assert n_video_frames(640 * n_frames, 16_000) == n_frames


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        ("pingpong", [0, 1, 2, 2, 1, 0, 0]),
        ("loop", [0, 1, 2, 0, 1, 2, 0]),
        ("hold", [0, 1, 2, 2, 2, 2, 2]),
        ("cut", [0, 1, 2]),
        ("silence", [0, 1, 2, 2, 1, 0, 0]),
    ],
)
def test_speech_that_outlasts_the_clip(length, expected):
    n_frames = n_result_frames(length, 7, 3)
    assert shown_frames(length, 3, n_frames).tolist() == expected


@pytest.mark.parametrize("length", LENGTHS)
def test_clip_that_outlasts_the_speech(length):
    needed = n_needed_frames(length, 3)
    n_clip = 7 if needed is None else min(7, needed)
    n_frames = n_result_frames(length, 3, n_clip)
    assert n_frames == (7 if length == "silence" else 3)
    assert shown_frames(length, n_clip, n_frames).tolist() == list(range(n_frames))
    with pytest.raises(ValueError, match="without frames"):
        shown_frames(length, 0, 3)


def test_rates_survive_being_floats():
    for rate in (Fraction(25), Fraction(30_000, 1001), Fraction(24_000, 1001), Fraction(125, 8), Fraction(1, 3)):
        assert exact_rate(float(rate)) == rate


def test_ping_pong_shows_end_frames_twice():
    assert ping_pong(3, 10).tolist() == [0, 1, 2, 2, 1, 0, 0, 1, 2, 2]
    assert ping_pong(1, 4).tolist() == [0, 0, 0, 0]
    assert ping_pong(5, 3).tolist() == [0, 1, 2]
    assert ping_pong(5, 0).dtype == np.int32
    with pytest.raises(ValueError, match="without frames"):
        ping_pong(0, 3)


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        ([], []),
        ([4], [[4]]),
        ([0, 1, 2, 2, 1, 0, 0, 1], [[0, 1, 2, 2], [1, 0, 0], [1]]),
        ([3, 3, 2, 1], [[3, 3, 2, 1]]),
        ([9, 8, 7, 6, 5, 4], [[9, 8, 7], [6, 5, 4]]),
        ([0, 2, 50, 51], [[0, 2], [50, 51]]),
        ([0, 1, 2, 3, 4, 5], [[0, 1, 2, 3, 4, 5]]),
    ],
)
def test_monotonic_runs(indices, expected):
    assert list(monotonic_runs(indices, 3)) == expected


def test_monotonic_runs_cover_everything():
    rng = np.random.default_rng(0)
    for _ in range(50):
        indices = rng.integers(0, 20, rng.integers(0, 40)).tolist()
        cut = list(monotonic_runs(indices, 7))
        assert [index for run in cut for index in run] == indices
        for run in cut:
            steps = np.diff(run)
            assert (steps >= 0).all() or ((steps <= 0).all() and run[0] - run[-1] < 7)


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
    assert np.abs(steps[9]) < np.abs(steps).max()  # a slow start


def test_result_that_is_no_longer_than_the_motion():
    motion = waves(np.arange(12) / 25).astype(np.float32)
    np.testing.assert_array_equal(settle(motion, 7, motion[0], Fraction(25)), motion[:7])
