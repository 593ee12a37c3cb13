"""utils/metrics.py: openings and lagged correlations."""

from __future__ import annotations

import numpy as np
import pytest

from utils.landmarks import LOWER_INNER_LIP, OUTER_EYE_CORNERS, UPPER_INNER_LIP
from utils.metrics import best_lag, correlation, mouth_opening


def test_opening_is_relative_to_the_eyes_and_ignores_scale() -> None:
    landmarks = np.zeros((2, 468, 3))
    landmarks[:, OUTER_EYE_CORNERS[1], 0] = 100.0
    landmarks[:, LOWER_INNER_LIP, 1] = [0.0, 25.0]
    landmarks[:, UPPER_INNER_LIP, 2] = 50.0  # depth does not count
    assert mouth_opening(landmarks) == pytest.approx([0.0, 0.25])
    assert mouth_opening(landmarks * 3.7) == pytest.approx([0.0, 0.25])


@pytest.mark.parametrize("delay", [-3, 0, 2])
def test_best_lag_finds_the_delay(delay: int) -> None:
    series = np.random.default_rng(0).normal(size=200)
    later = np.roll(series, delay)
    found = best_lag(later, series, max_lag=5)
    assert found.lag == delay
    assert found.r == pytest.approx(1.0)


def test_a_delay_beyond_the_window_is_not_found() -> None:
    series = np.random.default_rng(1).normal(size=400)
    assert best_lag(np.roll(series, 8), series, max_lag=2).r < 0.3


def test_a_still_mouth_correlates_with_nothing() -> None:
    moving = np.random.default_rng(2).normal(size=50)
    assert correlation(np.full(50, 0.1), moving) == 0.0
    assert correlation(moving[:4], moving[:4]) == 0.0
