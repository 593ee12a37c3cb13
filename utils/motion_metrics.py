"""Does the mouth follow the sound? Correlations that need no network, and a linear baseline to hold them against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

MAX_LAG = 4  # motion frames either way
RIDGE_CONTEXT = 8  # motion frames either way
RIDGE_SHARE = 0.1  # penalty per frame of data, on standardised features


@dataclass(frozen=True)
class LagMatch:
    """Pearson r at the best lag; a positive lag (frames) says that the actual curve comes later."""

    correlation: float
    lag: int


def best_lag_match(
    predicted: Float[np.ndarray, " t"], actual: Float[np.ndarray, " t"], max_lag: int = MAX_LAG
) -> LagMatch:
    """The shift within +-max_lag at which two curves correlate most."""
    n = min(len(predicted), len(actual))
    matches = []
    for lag in range(-max_lag, max_lag + 1):
        first, last = max(0, -lag), min(n, n - lag)
        matches.append(LagMatch(pearson(predicted[first:last], actual[first + lag : last + lag]), lag))
    return max(matches, key=lambda match: match.correlation)


def pearson(a: Float[np.ndarray, " t"], b: Float[np.ndarray, " t"]) -> float:
    """Correlation coefficient; 0 where a curve is flat or too short to have one."""
    if len(a) < 2:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / scale) if scale > 1e-12 else 0.0


def ridge_predictions(
    train_features: Sequence[Float[np.ndarray, "_ c"]],
    train_targets: Sequence[Float[np.ndarray, " _"]],
    features: Sequence[Float[np.ndarray, "_ c"]],
) -> list[Float[np.ndarray, " _"]]:
    """Predict curves from features within +-8 frames by linear ridge regression, each clip about its own mean."""
    x = np.concatenate([_with_context(clip) for clip in train_features])
    y = np.concatenate([clip - clip.mean() for clip in train_targets])
    scale = x.std(axis=0) + 1e-8
    x = x / scale
    weights = np.linalg.solve(x.T @ x + RIDGE_SHARE * len(x) * np.eye(x.shape[1]), x.T @ y)
    return [_with_context(clip) / scale @ weights for clip in features]


def _with_context(features: Float[np.ndarray, "t c"]) -> Float[np.ndarray, "t w"]:
    """Every frame beside its neighbours, the clip's mean removed, zeros beyond the ends."""
    centred = np.pad(features - features.mean(axis=0), ((RIDGE_CONTEXT, RIDGE_CONTEXT), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(centred, 2 * RIDGE_CONTEXT + 1, axis=0)
    return windows.reshape(len(features), -1).astype(np.float64)
