"""Figures about mouths that need no network (pure)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from utils.landmarks import LOWER_INNER_LIP, OUTER_EYE_CORNERS, UPPER_INNER_LIP

MIN_OVERLAP = 8  # frames that a correlation must rest on


def mouth_opening(landmarks: Float[np.ndarray, "n 468 d"]) -> Float[np.ndarray, " n"]:
    """Distance of the inner lips over the distance of the outer eye corners, in the image plane; 0 = closed."""
    points = landmarks[..., :2]
    gap = np.linalg.norm(points[:, UPPER_INNER_LIP] - points[:, LOWER_INNER_LIP], axis=-1)
    left, right = (points[:, corner] for corner in OUTER_EYE_CORNERS)
    return gap / np.maximum(np.linalg.norm(left - right, axis=-1), 1e-6)


@dataclass(frozen=True)
class LaggedCorrelation:
    """Pearson's r at the best lag; lag > 0 means that the first series comes later than the second (frames)."""

    r: float
    lag: int


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's r of two series of one length; 0 if one of them is constant or they are too short."""
    if len(first) < MIN_OVERLAP or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def best_lag(first: np.ndarray, second: np.ndarray, max_lag: int) -> LaggedCorrelation:
    """The highest correlation over shifts of up to ``max_lag`` steps either way."""
    n = min(len(first), len(second))
    scores = {
        lag: correlation(first[max(lag, 0) : n + min(lag, 0)], second[max(-lag, 0) : n - max(lag, 0)])
        for lag in range(-max_lag, max_lag + 1)
    }
    lag = max(scores, key=lambda key: (scores[key], -abs(key)))
    return LaggedCorrelation(scores[lag], lag)
