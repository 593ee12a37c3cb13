"""Ridge regression of curves on features within a few frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64

CONTEXT = 8  # frames either way
PENALTY = 0.1  # per frame of data, on standardised features


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
    products: Float64[np.ndarray, "w w"], targets: Float64[np.ndarray, " w"], penalty: float
) -> Float64[np.ndarray, " w"]:
    """Weights from the normal equations XᵀX and Xᵀy."""
    return np.linalg.solve(products + penalty * np.eye(len(targets)), targets)


def context_windows(features: Float[np.ndarray, "t c"]) -> Float64[np.ndarray, "t w"]:
    """Every frame beside its neighbours, the clip's mean removed, zeros beyond the ends."""
    return flat_rows(window_view(features))


def window_view(features: Float[np.ndarray, "t c"]) -> Float[np.ndarray, "t c k"]:
    """The same, channels before frames, as a view of one padded copy of the features."""
    centred = np.pad(features - features.mean(axis=0), ((CONTEXT, CONTEXT), (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(centred, 2 * CONTEXT + 1, axis=0)


def flat_rows(view: Float[np.ndarray, "t c k"]) -> Float64[np.ndarray, "t w"]:
    return view.reshape(len(view), -1).astype(np.float64)
