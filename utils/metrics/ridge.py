"""Ridge regression of curves on features within a few frames; principal components of features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64

CONTEXT = 8  # frames either way
PENALTY = 0.1  # per frame of data, on standardised features
_LEAST_VARIANCE = 1e-6  # share of the largest component's; components of less are not brought to deviation 1


def ridge_predictions(
    train_features: Sequence[np.ndarray], train_curves: Sequence[np.ndarray], features: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Fit on some clips' features [T, C] and curves [T], predict the curves of others, each about its own mean."""
    x = np.concatenate([context_windows(clip) for clip in train_features])
    y = np.concatenate([curve - curve.mean() for curve in train_curves])
    scale = x.std(axis=0) + 1e-8
    x = x / scale
    weights = solve_ridge(x.T @ x, x.T @ y, PENALTY * len(x))
    return [context_windows(clip) / scale @ weights for clip in features]


def solve_ridge(
    products: Float64[np.ndarray, "w w"], targets: Float64[np.ndarray, "w *o"], penalty: float
) -> Float64[np.ndarray, "w *o"]:
    """Weights from the normal equations XᵀX and Xᵀy."""
    return np.linalg.solve(products + penalty * np.eye(len(targets)), targets)


def context_windows(features: Float[np.ndarray, "t c"], context: int = CONTEXT) -> Float64[np.ndarray, "t w"]:
    """Every frame beside its neighbours, channels before frames; the clip's mean removed, zeros beyond the ends."""
    centred = np.pad(features - features.mean(axis=0), ((context, context), (0, 0)))
    view = np.lib.stride_tricks.sliding_window_view(centred, 2 * context + 1, axis=0)
    return view.reshape(len(view), -1).astype(np.float64)


def principal_components(rows: Float[np.ndarray, "t c"], n: int) -> Float64[np.ndarray, "c n"]:
    """Directions of the ``n`` largest principal components, the largest last; the rows have deviation 1 along each."""
    variances, directions = np.linalg.eigh(np.cov(rows.astype(np.float64).T))
    deviations = np.sqrt(np.maximum(variances, _LEAST_VARIANCE * variances[-1]))
    return (directions / deviations)[:, -n:]
