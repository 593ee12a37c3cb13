"""Landmarks to 3DMM coefficients: identity once per clip, pose and expression per frame, by Gauss-Newton.

A frame's unknowns are a rotation step (3), the translation (3) and the expression (64); the clip shares the identity
(80). The residual is the perspective reprojection error in pixels of the 224 px crop; ridges pull coefficients to 0.

    keyframes:  [ frame 1            | E1 ]       each frame's block is eliminated (Schur complement), what is left
                [         frame 2    | E2 ]       is one 80 x 80 system for the identity; then the frames follow
                [ E1'     E2'        | I  ]

    all frames: identity fixed, each frame is a 70 x 70 system of its own; frames go in chunks, so memory is bounded

The objective is Real3DPortrait's landmark fitting (weighted landmark MSE + identity and expression penalties); its
hundreds of Adam iterations become a few closed-form steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from models.face3d.face_model import (
    ANGLES,
    EXPRESSION,
    IDENTITY,
    LANDMARK_FLIP,
    TRANSLATION,
    FaceModel,
    rotation_matrices,
)
from utils.core.errors import BadInput
from utils.core.streaming import map_ahead, shared_threads
from utils.core.types import N_COEFFS, N_LANDMARKS
from utils.imaging.landmarks import EYE_CONTOURS, INNER_LIPS, OUTER_LIPS, UNMATCHED_IN_BFM
from utils.media.timeline import nearest

N_POSE = 6  # rotation step and translation


@dataclass(frozen=True)
class FitSettings:
    """Weights of landmarks, ridges of coefficients and numbers of iterations.

    Ridges are px² per squared standard deviation of a coefficient: a coefficient may grow by one standard deviation
    if that lowers the weighted sum of squared errors over a frame's 468 points by that much. The identity's ridge
    counts once per keyframe. Real3DPortrait's penalties amount to 2.3 (identity) and 8.8 (expression) in this unit;
    here the identity is freer, so that constant features of a face do not end up in its expression, which is replaced.
    """

    identity_ridge: float = 0.3
    expression_ridge: float = 4.0
    lip_weight: float = 4.0
    eye_weight: float = 2.0
    n_keyframes: int = 32
    n_identity_steps: int = 4
    n_frame_steps: int = 3
    rotation_sigma: float = 0.0  # frames; above 0 the head rotation is smoothed over time and the rest refitted
    flip: float = LANDMARK_FLIP  # y down = flip - y up
    chunk_size: int = 32  # frames solved at once


@dataclass
class _Frames:
    """Unknowns of a batch of frames, with their targets. Rotations act on the right of row vectors."""

    target: Float[Tensor, "n 468 2"]  # px, y up
    rotation: Float[Tensor, "n 3 3"]
    translation: Float[Tensor, "n 3"]
    expression: Float[Tensor, "n e"]


class LandmarkRows(ABC):
    """Landmarks of many frames, computed when indexed."""

    @abstractmethod
    def __getitem__(self, frames: np.ndarray) -> np.ndarray:
        """float32 [len(frames), 468, 2]"""


def fit_landmarks(
    face_model: FaceModel,
    landmarks: Float[np.ndarray, "n 468 2"] | LandmarkRows,
    valid: Bool[np.ndarray, " n"],
    settings: FitSettings | None = None,
) -> Float32[np.ndarray, "n 257"]:
    """Fit the face model to a clip's landmarks (pixels of each frame's 224 px crop, y down).

    Texture and light stay 0. An invalid frame gets the coefficients of the nearest valid one.
    Raises BadInput when no frame is valid.
    """
    settings = settings or FitSettings()
    used = np.flatnonzero(valid)
    if len(used) == 0:
        raise BadInput("no face to fit", expected="at least one frame with a face", found=f"0 of {len(valid)}")
    solver = _Solver(face_model, settings)
    identity = solver.fit_identity(landmarks[used[_spread(len(used), settings.n_keyframes)]])
    chunks = [used[i : i + settings.chunk_size] for i in range(0, len(used), settings.chunk_size)]
    fitted = np.zeros((len(valid), N_COEFFS), np.float32)

    def fit_each(fit: Callable[[np.ndarray], np.ndarray]) -> None:
        with shared_threads() as n_workers:
            for chunk, found in zip(chunks, map_ahead(fit, chunks, n_workers), strict=True):
                fitted[chunk] = found

    fit_each(lambda chunk: solver.fit_frames(landmarks[chunk], identity))
    if settings.rotation_sigma > 0:
        fitted[:, ANGLES] = _smooth_over_time(fitted[:, ANGLES], valid, settings.rotation_sigma)
        fit_each(lambda chunk: solver.refit_with_rotation(landmarks[chunk], fitted[chunk]))
    gaps = np.flatnonzero(~valid)
    fitted[gaps] = fitted[nearest(valid)[gaps]]
    return fitted


def landmark_weights(face_model: FaceModel, settings: FitSettings) -> Float[Tensor, " 468"]:
    """Weight of each landmark; 0 on the BFM for points without a vertex of it."""
    weights = torch.ones(N_LANDMARKS)
    weights[list(OUTER_LIPS + INNER_LIPS)] = settings.lip_weight
    weights[list(EYE_CONTOURS)] = settings.eye_weight
    if face_model.n_vertices != N_LANDMARKS:
        weights[list(UNMATCHED_IN_BFM)] = 0.0
    return weights


class _Solver:
    """Gauss-Newton steps on one face model."""

    def __init__(self, face_model: FaceModel, settings: FitSettings) -> None:
        self.camera, self.settings = face_model.camera, settings
        self.mean, self.identity_basis, self.expression_basis = (
            part.detach().cpu() for part in face_model.landmark_bases()
        )
        self.root_weights = landmark_weights(face_model, settings).sqrt()[:, None]

    def fit_identity(self, landmarks: np.ndarray) -> Float[Tensor, " i"]:
        """The identity that the keyframes share, adjusted together with their poses and expressions."""
        identity = torch.zeros(self.identity_basis.shape[-1])
        frames = self._start(landmarks, self.mean)
        for _ in range(self.settings.n_identity_steps):
            matrices, vectors = self._normal_equations(frames, self._shape_of(identity), with_identity=True)
            own = N_POSE + frames.expression.shape[1]  # the frame's own unknowns come first
            own_inverse = torch.linalg.inv(matrices[:, :own, :own])
            coupling = matrices[:, :own, own:]
            eliminated = coupling.mT @ own_inverse
            ridge = self.settings.identity_ridge * len(landmarks)
            shared = (matrices[:, own:, own:] - eliminated @ coupling).sum(dim=0)
            shared += ridge * torch.eye(len(identity), dtype=shared.dtype)
            pull = (vectors[:, own:] - (eliminated @ vectors[:, :own, None])[..., 0]).sum(dim=0)
            step = torch.linalg.solve(shared, pull - ridge * identity.double())
            identity = identity + step.float()
            left = vectors[:, :own] - coupling @ step
            self._move(frames, (own_inverse @ left[..., None])[..., 0])
        return identity

    def fit_frames(self, landmarks: np.ndarray, identity: Float[Tensor, " i"]) -> np.ndarray:
        """Pose and expression of each frame for a given identity, as float32 [n, 257]."""
        neutral = self._shape_of(identity)
        frames = self._start(landmarks, neutral)
        for _ in range(self.settings.n_frame_steps):
            matrices, vectors = self._normal_equations(frames, neutral)
            self._move(frames, torch.linalg.solve(matrices, vectors))
        return _pack(frames, identity)

    def refit_with_rotation(self, landmarks: np.ndarray, fitted: np.ndarray) -> np.ndarray:
        """Translation and expression of each frame, its rotation and identity kept."""
        known = torch.from_numpy(fitted)
        identity = known[0, IDENTITY][: self.identity_basis.shape[-1]]
        neutral = self._shape_of(identity)
        frames = _Frames(
            self._upright(landmarks),
            rotation_matrices(known[:, ANGLES]),
            known[:, TRANSLATION],
            known[:, EXPRESSION][:, : self.expression_basis.shape[-1]],
        )
        for _ in range(self.settings.n_frame_steps):
            matrices, vectors = self._normal_equations(frames, neutral)
            step = torch.zeros_like(vectors)
            step[:, 3:] = torch.linalg.solve(matrices[:, 3:, 3:], vectors[:, 3:])
            self._move(frames, step)
        return _pack(frames, identity)

    def _shape_of(self, identity: Float[Tensor, " i"]) -> Float[Tensor, "468 3"]:
        return self.mean + self.identity_basis @ identity

    def _upright(self, landmarks: np.ndarray) -> Float[Tensor, "n 468 2"]:
        x, y = torch.as_tensor(landmarks, dtype=torch.float32).unbind(-1)
        return torch.stack([x, self.settings.flip - y], dim=-1)

    def _start(self, landmarks: np.ndarray, shape: Float[Tensor, "468 3"]) -> _Frames:
        """Pose by a scaled orthographic fit (POS) of the neutral shape, expression 0."""
        target = self._upright(landmarks)
        design = torch.cat([shape, torch.ones(len(shape), 1)], dim=1) * self.root_weights
        solution = torch.linalg.pinv(design) @ (target * self.root_weights)  # [n, 4, 2]
        left, scale, right = torch.linalg.svd(solution[:, :3], full_matrices=False)
        axes = left @ right  # the nearest orthonormal pair
        rotation = torch.cat([axes, torch.cross(axes[..., :1], axes[..., 1:], dim=1)], dim=2)
        depth = self.camera.focal / scale.mean(dim=1, keepdim=True)
        across = (solution[:, 3] - self.camera.center) * depth / self.camera.focal
        translation = torch.cat([across, self.camera.distance - depth], dim=1)
        expression = torch.zeros(len(target), self.expression_basis.shape[-1])
        return _Frames(target, rotation, translation, expression)

    def _normal_equations(
        self, frames: _Frames, neutral: Float[Tensor, "468 3"], with_identity: bool = False
    ) -> tuple[Float[Tensor, "n p p"], Float[Tensor, "n p"]]:
        """JᵀJ + ridge and Jᵀr - ridge·c in float64; columns: rotation, translation, expression(, identity)."""
        posed = (neutral + torch.einsum("kie,ne->nki", self.expression_basis, frames.expression)) @ frames.rotation
        point = posed + frames.translation[:, None]
        distance = self.camera.distance - point[..., 2:]
        ray = point[..., :2] / distance
        residual = (frames.target - self.camera.center - self.camera.focal * ray) * self.root_weights
        # d(pixel)/d(point), one row for x and one for y: focal/Z · [1 0 x/Z], [0 1 y/Z]
        towards = torch.cat([torch.eye(2).expand(*ray.shape, 2), ray[..., None]], dim=-1)
        towards = towards * (self.camera.focal * self.root_weights / distance)[..., None]
        about = torch.cross(posed[:, :, None].expand_as(towards), towards, dim=-1)
        in_face_space = towards @ frames.rotation.mT[:, None]
        columns = [about, towards, _along(in_face_space, self.expression_basis)]
        if with_identity:
            columns.append(_along(in_face_space, self.identity_basis))
        jacobian = torch.cat(columns, dim=-1).flatten(1, 2)
        matrices = (jacobian.mT @ jacobian).double()
        vectors = (jacobian.mT @ residual.flatten(1)[..., None])[..., 0].double()
        own = slice(N_POSE, N_POSE + frames.expression.shape[1])
        matrices[:, own, own] += self.settings.expression_ridge * torch.eye(frames.expression.shape[1])
        vectors[:, own] -= self.settings.expression_ridge * frames.expression
        return matrices, vectors

    @staticmethod
    def _move(frames: _Frames, step: Float[Tensor, "n p"]) -> None:
        """Apply a step of rotation (radians about the camera's axes), translation and expression."""
        step = step.float()
        turn = torch.linalg.matrix_exp(_cross_matrix(step[:, :3]))
        frames.rotation = frames.rotation @ turn.mT
        frames.translation = frames.translation + step[:, 3:N_POSE]
        frames.expression = frames.expression + step[:, N_POSE:]


def _along(directions: Float[Tensor, "n k r 3"], basis: Float[Tensor, "k 3 c"]) -> Float[Tensor, "n k r c"]:
    """Each landmark's basis projected on its row directions."""
    return torch.einsum("nkri,kic->nkrc", directions, basis)


def _cross_matrix(vectors: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """The matrix W with W @ p = vector × p."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def _pack(frames: _Frames, identity: Float[Tensor, " i"]) -> np.ndarray:
    """Coefficient vectors of frames; columns beyond the face model's sizes are 0."""
    packed = np.zeros((len(frames.target), N_COEFFS), np.float32)
    packed[:, IDENTITY][:, : len(identity)] = identity
    packed[:, EXPRESSION][:, : frames.expression.shape[1]] = frames.expression
    packed[:, ANGLES] = angles_of(frames.rotation)
    packed[:, TRANSLATION] = frames.translation
    return packed


def angles_of(rotation: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 3"]:
    """The inverse of face_model.rotation_matrices, for |y| below 90 degrees."""
    turn = rotation.mT
    x = torch.atan2(turn[:, 2, 1], turn[:, 2, 2])
    y = torch.asin((-turn[:, 2, 0]).clamp(-1, 1))
    z = torch.atan2(turn[:, 1, 0], turn[:, 0, 0])
    return torch.stack([x, y, z], dim=-1)


def _smooth_over_time(values: np.ndarray, valid: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian average over the valid neighbours of each frame."""
    share = valid.astype(np.float64)[:, None]
    total = gaussian_filter1d(values * share, sigma, axis=0, mode="constant")
    return total / np.maximum(gaussian_filter1d(share, sigma, axis=0, mode="constant"), 1e-12)


def _spread(n_items: int, n_wanted: int) -> np.ndarray:
    """Up to n_wanted indices, evenly spread over n_items."""
    return np.unique(np.linspace(0, n_items - 1, min(n_items, n_wanted)).round().astype(int))
