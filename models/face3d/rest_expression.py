"""The expression of a face that says nothing."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float

from models.face3d.face_model import EXPRESSION, FaceModel
from utils.core.types import N_EXP
from utils.files.array_rows import ArrayRows
from utils.imaging.landmarks import LOWER_INNER_LIP, UPPER_INNER_LIP

MOST_FRAMES = 1000  # of a clip that are looked at
CLOSED_SHARE = 0.1  # of a clip's frames, those with the narrowest gap between the lips


def rest_expression(face_model: FaceModel, coeffs: ArrayRows, valid: Bool[np.ndarray, " n"]) -> Float[np.ndarray, "64"]:
    """float32 [64]: the mean expression of those frames of a clip (their fitted ``coeffs``) whose lips are closest.

    The person's own closed mouth rather than the face model's mean, which has talked and is a little open.
    Zeros where no frame is valid.
    """
    rows = np.flatnonzero(valid)
    if len(rows) == 0:
        return np.zeros(N_EXP, np.float32)
    expressions = coeffs[rows[:: -(-len(rows) // MOST_FRAMES)]][:, EXPRESSION]
    gaps = lip_gaps(face_model, expressions)
    n_closed = max(1, round(CLOSED_SHARE * len(gaps)))
    rest: np.ndarray = expressions[np.argsort(gaps, kind="stable")[:n_closed]].mean(axis=0)
    return rest.astype(np.float32)


def lip_gaps(face_model: FaceModel, expressions: Float[np.ndarray, "n e"]) -> Float[np.ndarray, " n"]:
    """How far the middles of the inner lips are apart, upper minus lower, in the model's units; small is closed."""
    mean, _, basis = face_model.landmark_bases()
    upper, lower = UPPER_INNER_LIP, LOWER_INNER_LIP
    direction = (basis[upper, 1] - basis[lower, 1]).cpu()
    offset = float(mean[upper, 1] - mean[lower, 1])
    found: np.ndarray = (torch.from_numpy(expressions).float()[:, : len(direction)] @ direction + offset).numpy()
    return found
