"""Durations at 25 Hz and the order in which source frames are shown."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from utils.timeline import n_video_frames, ping_pong, stretches


@pytest.mark.parametrize(
    ("n_samples", "fps", "expected"),
    [(0, 25, 0), (1, 25, 1), (640, 25, 1), (641, 25, 2), (16_000, 25, 25), (16_000, Fraction(30_000, 1001), 30)],
)
def test_frames_that_cover_a_sound(n_samples, fps, expected):
    assert n_video_frames(n_samples, 16_000, fps) == expected


def test_whole_frames_of_sound_give_no_frame_too_many():
    for n_frames in range(1, 5000):
        assert n_video_frames(640 * n_frames, 16_000) == n_frames


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
def test_stretches(indices, expected):
    assert list(stretches(indices, 3)) == expected


def test_stretches_are_all_there_is():
    rng = np.random.default_rng(0)
    for _ in range(50):
        indices = rng.integers(0, 20, rng.integers(0, 40)).tolist()
        cut = list(stretches(indices, 7))
        assert [index for stretch in cut for index in stretch] == indices
        for stretch in cut:
            steps = np.diff(stretch)
            assert (steps >= 0).all() or ((steps <= 0).all() and stretch[0] - stretch[-1] < 7)
