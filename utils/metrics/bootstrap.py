"""How far a mean can be trusted: percentile bootstrap over clips (pure)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

N_RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class MeanInterval:
    """Mean of n values and the interval that holds 95 % of the means of resampled clips; equal ends for one value."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(values: np.ndarray, seed: int = 0) -> MeanInterval | None:
    """Of the finite values among ``values`` [N]; None if there are none. The same seed gives the same interval."""
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if len(finite) == 0:
        return None
    rng = np.random.default_rng(seed)
    means = finite[rng.integers(len(finite), size=(N_RESAMPLES, len(finite)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return MeanInterval(float(finite.mean()), float(low), float(high), len(finite))
