"""The shut mouth as an expression of a face model: the smallest change of coefficients that brings the lips together.

A coefficient counts in standard deviations, so the smallest change is the likeliest face. Pure numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from models.face3d.face_model import FaceModel
from utils.core.types import N_EXP
from utils.imaging.landmarks import INNER_LIPS, LOWER_INNER_LIP, OUTER_EYE_CORNERS, UPPER_INNER_LIP

_MIDDLE = len(INNER_LIPS) // 2  # INNER_LIPS runs from one corner over the upper lip to the other, and back below
UPPER_POINTS = INNER_LIPS[1:_MIDDLE]
LOWER_POINTS = INNER_LIPS[:_MIDDLE:-1]  # opposite to UPPER_POINTS, one by one
_DAMPING = 1e-6  # of the mean square gap per coefficient: keeps what the model cannot close from growing


@dataclass(frozen=True)
class LipGaps:
    """How far opposite points of the inner lips are apart, in face units, upwards positive.

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
        """Of a person with these identity coefficients; without any, of the mean face."""
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
        """Lips that went through each other moved apart until their middles touch; others stay as they are."""
        too_deep = np.maximum(-self.opening(expression), 0) * self.eyes
        moved = expression.copy()
        moved[:, : self.n] += too_deep[:, None] * self.middle_basis / (self.middle_basis @ self.middle_basis)
        return moved.astype(np.float32)

    def directions(self) -> Float[np.ndarray, "64 r"]:
        """Orthonormal directions of expression in which the lips open and shut; all others leave every gap as it is."""
        _, sizes, rows = np.linalg.svd(self.basis, full_matrices=False)
        kept = rows[sizes > sizes[0] * 1e-6]
        return np.pad(kept, ((0, 0), (0, N_EXP - self.n))).T
