"""utils/metrics/bootstrap.py: seeded intervals that cover what they should."""

from __future__ import annotations

import numpy as np
import pytest

from utils.metrics.bootstrap import mean_interval


def test_one_value_and_none():
    found = mean_interval(np.array([3.0]))
    assert (found.mean, found.low, found.high, found.n) == (3, 3, 3, 1)
    assert mean_interval(np.array([np.nan, np.inf])) is None


def test_values_that_could_not_be_measured_do_not_count():
    found = mean_interval(np.array([1.0, np.nan, 3.0]))
    assert (found.mean, found.n) == (2, 2)
    assert (found.low, found.high) == (1, 3)


def test_same_seed_same_interval():
    values = np.random.default_rng(0).normal(size=9)
    assert mean_interval(values, seed=4) == mean_interval(values, seed=4)
    assert mean_interval(values, seed=4) != mean_interval(values, seed=5)


def test_width_is_that_of_theory():
    """For many normal values the interval is ±1.96 deviations of the mean."""
    values = np.random.default_rng(1).normal(10, 2, 400)
    found = mean_interval(values)
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)
