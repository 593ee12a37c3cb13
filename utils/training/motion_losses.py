"""Losses of audio2motion on expression coefficients and the landmarks that they move.

Shapes: B clips, T motion frames, E expression and I identity coefficients. Masks are 1 on valid frames; every
loss is a mean over valid frames. Formulas and weights: Real3DPortrait (arXiv 2401.08503), audio-to-motion training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from utils.core.config import Amount, Count
from utils.core.types import N_LANDMARKS
from utils.imaging.landmarks import EYE_CONTOURS, INNER_LIPS, OUTER_LIPS, UNMATCHED_IN_BFM

LANDMARK_SCALE = 10.0  # face units are decimetres; the loss is taken in centimetres
UPPER_LIDS = (161, 160, 159, 158, 157, 388, 387, 386, 385, 384)


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms; the defaults are the reference's."""

    kl: Amount = 0.02  # top of the cycle
    kl_period: Count = 4000  # steps; the weight rises from 0 over the first half and stays for the second
    expression: Amount = 0.5
    landmarks: Amount = 0.5
    laplacian: Amount = 1.0
    magnitude: Amount = 0.1
    sync: Amount = 0.2  # sync_loss of models/lipsync/sync_expert.py, if the config names an expert
    prior_expression: Amount = 0.0  # as expression, of the most likely prior sample; not in the reference
    prior_landmarks: Amount = 0.0  # as landmarks, of that sample
    prior_sync: Amount = 0.0  # as sync, of that sample
    lips: Amount = 0.0  # mean square error of the 40 lip landmarks, cm²; regression ensembles only
    lip_velocity: Amount = 0.0  # the same of their change from frame to frame


def cyclic_weight(step: int, top: float, period: int) -> float:
    """Linear from 0 to ``top`` in the first half of every period, ``top`` in the second (arXiv 1903.10145)."""
    return top * min(1.0, 2 * (step % period) / period)


def masked_mse(
    predicted: Float[Tensor, "b t e"], target: Float[Tensor, "b t e"], mask: Float[Tensor, "b t"]
) -> Float[Tensor, ""]:
    return _frame_mean((predicted - target).square().mean(dim=-1), mask)


def laplacian_energy(motion: Float[Tensor, "b t e"], mask: Float[Tensor, "b t"]) -> Float[Tensor, ""]:
    """Mean square of the second difference in time, kernel (-.5, 1, -.5), where three valid frames meet."""
    second = motion[:, 1:-1] - 0.5 * (motion[:, :-2] + motion[:, 2:])
    return _frame_mean(second.square().mean(dim=-1), mask[:, 1:-1] * mask[:, :-2] * mask[:, 2:])


def magnitude(motion: Float[Tensor, "b t e"], mask: Float[Tensor, "b t"]) -> Float[Tensor, ""]:
    """Mean square of the coefficients, a prior of small ones."""
    return _frame_mean(motion.square().mean(dim=-1), mask)


def velocity_mse(error: Float[Tensor, "b t e"], mask: Float[Tensor, "b t"]) -> Float[Tensor, ""]:
    """Mean square of an error's change from frame to frame, where two valid frames meet."""
    return _frame_mean((error[:, 1:] - error[:, :-1]).square().mean(dim=-1), mask[:, 1:] * mask[:, :-1])


class LandmarkOffsets(nn.Module):
    """Displacements of landmarks of the mean face by coefficients, in centimetres: x, y, z of each in turn."""

    identity_basis: Tensor
    expression_basis: Tensor

    def __init__(self, identity_basis: Float[Tensor, "n 3 i"], expression_basis: Float[Tensor, "n 3 e"]) -> None:
        super().__init__()
        self.register_buffer("identity_basis", LANDMARK_SCALE * identity_basis.flatten(0, 1), persistent=False)
        self.register_buffer("expression_basis", LANDMARK_SCALE * expression_basis.flatten(0, 1), persistent=False)

    def forward(self, identity: Float[Tensor, "#b #t i"], expression: Float[Tensor, "b t e"]) -> Float[Tensor, "b t d"]:
        """Coefficients beyond the face model's bases are ignored."""
        n_expression, n_identity = self.expression_basis.shape[1], self.identity_basis.shape[1]
        moved = expression[..., :n_expression] @ self.expression_basis.T
        return moved + identity[..., :n_identity] @ self.identity_basis.T


class LandmarkLoss(nn.Module):
    """Weighted mean square distance of 468 landmarks; lips and lids count more.

    The prediction takes the identity of each clip's first frame, the target that of every frame.
    """

    weights: Tensor

    def __init__(self, offsets: LandmarkOffsets) -> None:
        super().__init__()
        self.offsets = offsets
        weights = landmark_weights()[:, None].expand(-1, 3).reshape(-1)
        self.register_buffer("weights", weights, persistent=False)

    def forward(
        self,
        predicted: Float[Tensor, "b t e"],
        target: Float[Tensor, "b t e"],
        identity: Float[Tensor, "b t i"],
        mask: Float[Tensor, "b t"],
    ) -> Float[Tensor, ""]:
        difference = self.offsets(identity[:, :1] - identity, predicted - target)
        squares = difference.square() * self.weights
        return _frame_mean(squares.mean(dim=-1), mask)


def landmark_weights() -> Float[Tensor, " 468"]:
    weights = torch.ones(N_LANDMARKS)
    weights[list(EYE_CONTOURS)] = 3
    weights[list(UPPER_LIDS)] = 20
    weights[list(OUTER_LIPS + INNER_LIPS)] = 5
    weights[list(UNMATCHED_IN_BFM)] = 0
    return weights


def _frame_mean(values: Float[Tensor, "b t"], mask: Float[Tensor, "b t"]) -> Float[Tensor, ""]:
    return (values * mask).sum() / mask.sum().clamp(min=1)
