from __future__ import annotations

import numpy as np
import pytest

from utils.timeline import n_video_frames, ping_pong
from utils.types import SAMPLE_RATE


@pytest.mark.parametrize(("n_samples", "n_frames"), [(0, 0), (1, 1), (640, 1), (641, 2), (16_000, 25), (16_001, 26)])
def test_frames_cover_the_sound(n_samples, n_frames):
    assert n_video_frames(n_samples, SAMPLE_RATE) == n_frames


def test_clip_plays_forwards_then_backwards_with_end_frames_twice():
    assert ping_pong(3, 10).tolist() == [0, 1, 2, 2, 1, 0, 0, 1, 2, 2]
    assert ping_pong(1, 3).tolist() == [0, 0, 0]


def test_a_longer_clip_is_cut():
    assert ping_pong(100, 4).tolist() == [0, 1, 2, 3]
    assert ping_pong(5, 0).tolist() == []


@pytest.mark.parametrize("n_source", [1, 2, 7])
def test_steps_are_never_longer_than_one_frame(n_source):
    index = ping_pong(n_source, 50)
    assert index.dtype == np.int32
    assert np.abs(np.diff(index)).max() <= 1
    assert set(index.tolist()) == set(range(n_source))


def test_an_empty_clip_cannot_be_stretched():
    with pytest.raises(ValueError, match="without frames"):
        ping_pong(0, 5)
