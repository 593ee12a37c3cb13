"""utils/media/timeline.py: the nearest frame inside a mask, and its memory on long clips."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from models.lipsync.syncnet import face_windows
from models.motion.expression_style import smoothed
from utils.media.timeline import nearest

N_LONG = 6000  # frames, four minutes; a table of the pairs takes 144 MB and more
FEW = 50_000_000  # bytes


def test_the_earlier_of_two_equally_near() -> None:
    mask = np.array([0, 1, 0, 0, 0, 1, 1, 0], bool)
    np.testing.assert_array_equal(nearest(mask), [1, 1, 1, 1, 5, 5, 6, 6])


@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
def test_equals_the_search_through_all_pairs(share: float) -> None:
    mask = np.random.default_rng(0).random(300) < share
    inside = np.flatnonzero(mask)
    wanted = inside[np.abs(np.arange(300)[:, None] - inside).argmin(axis=1)]
    np.testing.assert_array_equal(nearest(mask), wanted)


def test_nothing_is_near_in_an_empty_mask() -> None:
    with pytest.raises(ValueError, match="no frame lies inside"):
        nearest(np.zeros(3, bool))


def half_shown() -> np.ndarray:
    return np.arange(N_LONG) < N_LONG // 2


@pytest.mark.parametrize(
    "work",
    [
        lambda: face_windows(np.broadcast_to(np.float32(1), (N_LONG, 468, 2)), half_shown()),
        lambda: smoothed(np.ones((N_LONG, 2)), half_shown()),
    ],
    ids=["SyncNet's crops", "slow expression"],
)
def test_long_clips_take_no_table_of_all_pairs(work: Callable[[], np.ndarray]) -> None:
    tracemalloc.start()
    try:
        work()
        assert tracemalloc.get_traced_memory()[1] < FEW
    finally:
        tracemalloc.stop()
