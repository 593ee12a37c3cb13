"""A linear baseline: curves predicted from features within a few frames by ridge regression."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

CONTEXT = 8  # frames either way
PENALTY = 0.1  # per frame of data, on standardised features


def ridge_predictions(
    train_features: Sequence[np.ndarray], train_curves: Sequence[np.ndarray], features: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Fit on some clips' features [T, C] and curves [T], predict the curves of others, each about its own mean."""
    x = np.concatenate([_with_context(clip) for clip in train_features])
    y = np.concatenate([curve - curve.mean() for curve in train_curves])
    scale = x.std(axis=0) + 1e-8
    x = x / scale
    weights = np.linalg.solve(x.T @ x + PENALTY * len(x) * np.eye(x.shape[1]), x.T @ y)
    return [_with_context(clip) / scale @ weights for clip in features]


def _with_context(features: Float[np.ndarray, "t c"]) -> Float[np.ndarray, "t w"]:
    """Every frame beside its neighbours, the clip's mean removed, zeros beyond the ends."""
    centred = np.pad(features - features.mean(axis=0), ((CONTEXT, CONTEXT), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(centred, 2 * CONTEXT + 1, axis=0)
    return windows.reshape(len(features), -1).astype(np.float64)
