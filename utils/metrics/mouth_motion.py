"""Measures of mouth motion from landmarks: opening, width, closures, LMD, jitter, correlations (pure)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import binary_dilation

from utils.imaging.landmarks import (
    INNER_LIPS,
    LOWER_INNER_LIP,
    MOUTH_CORNERS,
    OUTER_EYE_CORNERS,
    OUTER_LIPS,
    UPPER_INNER_LIP,
)

MIN_OVERLAP = 8  # least frames of a correlation or a variance
CLOSURE_SHARE = 0.25  # of a clip's range of openings, from its bottom, that counts as closed
CLOSURE_RANGE = (5, 95)  # percentiles of the openings that bound this range
CLOSURE_TOLERANCE = 1  # frames either way within which a closure is found
LIPS = OUTER_LIPS + INNER_LIPS
# Forehead, bridge of the nose, eye corners, temples: points that talking does not move.
STILL_POINTS: tuple[int, ...] = (
    *(10, 151, 9, 8, 168, 6, 197, 195, 5, 33, 133, 362, 263, 127, 356, 234, 454, 162, 389, 21, 251, 54, 284),
    *(103, 332, 67, 297, 109, 338),
)


def mouth_opening(landmarks: Float[np.ndarray, "n 468 d"]) -> Float[np.ndarray, " n"]:
    """Distance of the inner lips over the distance of the outer eye corners, in the image plane; 0 = closed."""
    return _distance(landmarks, UPPER_INNER_LIP, LOWER_INNER_LIP) / eye_distance(landmarks)


def mouth_width(landmarks: Float[np.ndarray, "n 468 d"]) -> Float[np.ndarray, " n"]:
    """Distance of the mouth's corners over the distance of the outer eye corners, in the image plane."""
    return _distance(landmarks, *MOUTH_CORNERS) / eye_distance(landmarks)


def _distance(landmarks: Float[np.ndarray, "n 468 d"], first: int, second: int) -> Float[np.ndarray, " n"]:
    """Distance of two points in the image plane."""
    return np.linalg.norm(landmarks[:, first, :2] - landmarks[:, second, :2], axis=-1)


def closures(opening: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Frames with closed lips: opening in the lowest quarter of the clip's own range (5th to 95th percentile).

    An unknown opening (NaN) is not closed; without a range, as of a constant one, none is.
    """
    known = opening[np.isfinite(opening)]
    low, high = np.percentile(known, CLOSURE_RANGE) if len(known) else (0.0, 0.0)
    return (opening <= low + CLOSURE_SHARE * (high - low)) & (low < high)


@dataclass(frozen=True)
class ClosureMatch:
    """Shares of closed frames with a closed frame of the other series within ±1 frame; NaN without closed frames.

    precision: of the generated series' closed frames; recall: of the reference's. The chances are those of all frames.
    """

    precision: float
    recall: float
    precision_chance: float
    recall_chance: float


def match_closures(generated: Float[np.ndarray, " n"], reference: Float[np.ndarray, " n"]) -> ClosureMatch:
    """Compare the closures of two series of openings; only frames in which both are known count."""
    known = np.isfinite(generated) & np.isfinite(reference)
    made, real = (closures(np.where(known, opening, np.nan)) for opening in (generated, reference))
    near_made, near_real = (binary_dilation(mask, np.ones(2 * CLOSURE_TOLERANCE + 1)) for mask in (made, real))
    pairs = (near_real, made), (near_made, real), (near_real, known), (near_made, known)
    return ClosureMatch(*(float(near[frames].mean()) if frames.any() else float("nan") for near, frames in pairs))


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
    scores = {lag: correlation(*overlapping(first, second, lag)) for lag in range(-max_lag, max_lag + 1)}
    lag = max(scores, key=lambda key: (scores[key], -abs(key)))
    return LaggedCorrelation(scores[lag], lag)


def overlapping(first: np.ndarray, second: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """The steps that two series have in common if the first is moved ``lag`` steps earlier."""
    n = min(len(first), len(second))
    return first[max(lag, 0) : n + min(lag, 0)], second[max(-lag, 0) : n - max(lag, 0)]


def lip_distance(generated: Float[np.ndarray, "n 468 d"], reference: Float[np.ndarray, "n 468 d"]) -> np.ndarray:
    """LMD per frame: mean distance of the inner and outer lips' points over the outer eye corners', image plane.

    Both faces are in the pixels of one frame, so nothing is aligned; the reference's eyes give the unit.
    """
    points = list(LIPS)
    difference = np.linalg.norm(generated[:, points, :2] - reference[:, points, :2], axis=-1).mean(axis=1)
    return difference / eye_distance(reference)


def eye_distance(landmarks: Float[np.ndarray, "n 468 d"]) -> Float[np.ndarray, " n"]:
    """Distance of the outer eye corners in the image plane."""
    return np.maximum(_distance(landmarks, *OUTER_EYE_CORNERS), 1e-6)


def still_mouth(landmarks: Float[np.ndarray, "n 468 3"]) -> Float[np.ndarray, "n 468 3"]:
    """The same moving head with its mean mouth: a face that does not talk, the floor of LMD.

    The mean face (all frames in the pose of the first) is laid over each frame by the affine map of its still points,
    depth included; the map is a least-squares fit, so turns and nods move the mouth as they move the head.
    """
    still = list(STILL_POINTS)
    posed = np.stack([_affine(face[still], landmarks[0, still], face) for face in landmarks.astype(np.float64)])
    mean = posed.mean(axis=0)
    return np.stack([_affine(mean[still], face[still], mean) for face in landmarks.astype(np.float64)])


def _affine(source: np.ndarray, target: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Move points [P, 3] by the affine map that fits source [S, 3] to target [S, 3] best."""
    design = np.concatenate([source, np.ones((len(source), 1))], axis=1)
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    return points @ solution[:3] + solution[3]


def lip_jitter(landmarks: Float[np.ndarray, "n 468 d"]) -> Float[np.ndarray, " m"]:
    """Mean second difference of the lips' points per frame 1 to n - 2, over the eye distance.

    Positions are relative to the mean of the still points, so that the head's own movement does not count.
    """
    points = landmarks[:, list(LIPS), :2] - landmarks[:, list(STILL_POINTS), :2].mean(axis=1, keepdims=True)
    return _second_difference(points) / eye_distance(landmarks)[1:-1]


def face_jitter(landmarks: Float[np.ndarray, "n 468 d"]) -> Float[np.ndarray, " m"]:
    """Mean second difference of the still points per frame 1 to n - 2, over the eye distance; in image coordinates."""
    return _second_difference(landmarks[:, list(STILL_POINTS), :2]) / eye_distance(landmarks)[1:-1]


def _second_difference(points: Float[np.ndarray, "n p 2"]) -> Float[np.ndarray, " m"]:
    return np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=-1).mean(axis=1)


def variance_ratio(values: Float[np.ndarray, " n"], inside: np.ndarray, outside: np.ndarray) -> float:
    """Variance of the values ``inside`` over that ``outside`` (bool [n] each); NaN with too few or constant values."""
    if min(inside.sum(), outside.sum()) < MIN_OVERLAP or np.ptp(values[outside]) == 0:
        return float("nan")
    return float(np.var(values[inside]) / np.var(values[outside]))
