"""Expressions with the mouth shut: the face model's, by the smallest change of coefficients, and a clip's own.

A coefficient counts in standard deviations, so the smallest change is the likeliest face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from models.face3d.face_model import EXPRESSION, FaceModel
from utils.core.types import N_EXP
from utils.files.arrays import ArrayRows
from utils.imaging.landmarks import INNER_LIPS, LOWER_INNER_LIP, OUTER_EYE_CORNERS, UPPER_INNER_LIP

_MIDDLE = len(INNER_LIPS) // 2  # INNER_LIPS runs from one corner over the upper lip to the other, and back below
UPPER_POINTS = INNER_LIPS[1:_MIDDLE]
LOWER_POINTS = INNER_LIPS[:_MIDDLE:-1]  # opposite to UPPER_POINTS, one by one
MOST_FRAMES = 1000  # of a clip that are compared
CLOSED_SHARE = 0.1  # of a clip's frames, those with the narrowest gap between the lips
_DAMPING = 1e-6  # of the mean square gap per coefficient: bounds the solution where the model cannot close the lips


@dataclass(frozen=True)
class LipGaps:
    """Gaps between opposite points of the inner lips, in face units, upwards positive.

    rest [9]: of the face without expression; basis [9, E]: per expression coefficient. middle and middle_basis [E] are
    the same of the lips' middles, and eyes is the distance of the outer eye corners.
    """

    rest: np.ndarray
    basis: np.ndarray
    middle: float
    middle_basis: np.ndarray
    eyes: float

    @classmethod
    def of(cls, face: FaceModel, identity: Float[np.ndarray, " i"] | None = None) -> LipGaps:
        """Gaps of a face with these identity coefficients, or of the mean face."""
        mean, identity_basis, expression = (part.cpu().numpy().astype(np.float64) for part in face.landmark_bases())
        if identity is not None:
            mean = mean + identity_basis @ identity[: identity_basis.shape[2]]
        upper, lower = list(UPPER_POINTS), list(LOWER_POINTS)
        left, right = OUTER_EYE_CORNERS
        return cls(
            rest=mean[upper, 1] - mean[lower, 1],
            basis=expression[upper, 1] - expression[lower, 1],
            middle=float(mean[UPPER_INNER_LIP, 1] - mean[LOWER_INNER_LIP, 1]),
            middle_basis=expression[UPPER_INNER_LIP, 1] - expression[LOWER_INNER_LIP, 1],
            eyes=float(np.linalg.norm(mean[left, :2] - mean[right, :2])),
        )

    @property
    def n(self) -> int:
        return self.basis.shape[1]

    def opening(self, expression: Float[np.ndarray, "t 64"]) -> Float[np.ndarray, " t"]:
        """Gap of the lips' middles over the distance of the eyes; negative where the lips cross."""
        found: np.ndarray = (self.middle + expression[:, : self.n] @ self.middle_basis) / self.eyes
        return found

    def closed(self, start: Float[np.ndarray, " 64"] | None = None) -> Float[np.ndarray, " 64"]:
        """``start`` (no expression, if none is given) with the smallest change that shuts the mouth."""
        expression = np.zeros(N_EXP) if start is None else start.astype(np.float64)
        gaps = self.rest + self.basis @ expression[: self.n]
        square = self.basis @ self.basis.T
        damped = square + _DAMPING * np.trace(square) * np.eye(len(square))
        shut = expression.copy()
        shut[: self.n] -= self.basis.T @ np.linalg.solve(damped, gaps)
        return shut.astype(np.float32)

    def uncrossed(self, expression: Float[np.ndarray, "t 64"]) -> Float[np.ndarray, "t 64"]:
        """Expressions with crossed lips moved apart until the middles touch; others unchanged."""
        too_deep = np.maximum(-self.opening(expression), 0) * self.eyes
        moved = expression.copy()
        moved[:, : self.n] += too_deep[:, None] * self.middle_basis / (self.middle_basis @ self.middle_basis)
        return moved.astype(np.float32)

    def directions(self) -> Float[np.ndarray, "64 r"]:
        """Orthonormal directions of expression that change the gaps; all others leave every gap unchanged."""
        _, sizes, rows = np.linalg.svd(self.basis, full_matrices=False)
        kept = rows[sizes > sizes[0] * 1e-6]
        return np.pad(kept, ((0, 0), (0, N_EXP - self.n))).T


def rest_expression(face_model: FaceModel, coeffs: ArrayRows, valid: Bool[np.ndarray, " n"]) -> Float[np.ndarray, "64"]:
    """float32 [64]: the mean expression of those frames of a clip (their fitted ``coeffs``) whose lips are closest.

    The person's own closed mouth; the face model's mean, taken from talking faces, is a little open.
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
    """Gap of the middles of the inner lips, upper minus lower, in face units; float32."""
    mean, _, basis = face_model.landmark_bases()
    upper, lower = UPPER_INNER_LIP, LOWER_INNER_LIP
    direction = (basis[upper, 1] - basis[lower, 1]).cpu()
    offset = float(mean[upper, 1] - mean[lower, 1])
    found: np.ndarray = (torch.from_numpy(expressions).float()[:, : len(direction)] @ direction + offset).numpy()
    return found
