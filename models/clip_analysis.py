"""A tracked clip as a moving 3D face: coefficients per frame, and the depth image of any expression on it.

Stage 2 and the preparation of training data both walk this path, so that the generator is trained on the very
depth images it will be given.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch

from models.face_model import EXPRESSION, LANDMARK_FLIP, FaceModel
from models.face_recon import FitSettings, fit_landmarks
from models.face_tracker import LandmarkTracker, track_face
from models.rasterizer import render_depth
from utils.depth import depth_to_uint8
from utils.geometry import CROP_SIZE, Alignment, align_five_points
from utils.types import N_COEFFS, N_EXP, N_LANDMARKS, FaceTrack

_UNUSED = Alignment(1, 1, 1.0, (0.0, 0.0))  # stands for the alignment of a frame without a face


@dataclass(frozen=True)
class FittedClip:
    """A face in N frames. coeffs float32 [N, 257] describe it in the aligned crop of each frame."""

    track: FaceTrack
    alignments: list[Alignment]
    coeffs: np.ndarray

    def with_expression(self, frame_index: np.ndarray, motion: np.ndarray) -> np.ndarray:
        """Coefficients of the frames ``frame_index`` [T] with the expressions ``motion`` [T, 64] put in: [T, 257]."""
        coeffs = self.coeffs[frame_index].copy()
        coeffs[:, EXPRESSION] = motion[:, :N_EXP]
        return coeffs


@dataclass(frozen=True)
class DrawnFace:
    """A rendered face in its box. depth uint8 [h, w] the size of the box; landmarks float32 [468, 2] relative to it."""

    depth: np.ndarray
    landmarks: np.ndarray


def analyse_clip(
    frames: Iterable[np.ndarray],
    tracker: LandmarkTracker,
    face_model: FaceModel,
    size: tuple[int, int],
    smoothing: str,
    flip: float = CROP_SIZE,
) -> FittedClip:
    """Track the face through the frames (uint8 RGB, ``size`` = width, height) and fit the face model to it."""
    return fit_clip(track_face(frames, tracker, smoothing), face_model, size, flip)


def fit_clip(track: FaceTrack, face_model: FaceModel, size: tuple[int, int], flip: float = CROP_SIZE) -> FittedClip:
    """Fit the face model to every valid frame. ``flip`` as in draw_face. A clip without a face gets coefficients 0."""
    model_points = face_model.alignment_points.cpu().numpy()
    alignments = [_UNUSED] * len(track)
    crop_landmarks = np.zeros((len(track), N_LANDMARKS, 2), np.float32)
    valid = track.valid.copy()
    for index in np.flatnonzero(track.valid):
        try:
            alignments[index] = align_five_points(track.five_points[index], model_points, *size)
        except ValueError:  # all points in one place: as good as no face
            valid[index] = False
            continue
        crop_landmarks[index] = alignments[index].to_crop(track.landmarks[index, :, :2])
    if valid.any():
        coeffs = fit_landmarks(face_model, crop_landmarks, valid, FitSettings(flip=flip))
    else:
        coeffs = np.zeros((len(track), N_COEFFS), np.float32)
    return FittedClip(replace(track, valid=valid), alignments, coeffs)


def draw_face(
    face_model: FaceModel,
    coeffs: np.ndarray,
    alignment: Alignment,
    box: np.ndarray,
    flip: float = CROP_SIZE,
) -> DrawnFace:
    """Render coefficients [257] in the aligned crop and carry depth and landmarks to the box (source pixels).

    ``flip``: landmark y down = flip - y up. The raster's own edge is 224; upstream's landmarks use 223 (LANDMARK_FLIP).
    """
    vertices = face_model.vertices(torch.from_numpy(coeffs[None]).to(face_model.meanshape.device))
    depth = render_depth(vertices[0].cpu().numpy(), face_model.tri.cpu().numpy(), face_model.camera)
    points = face_model.project_y_down(vertices[:, face_model.landmark_index], flip)[0].cpu().numpy()
    landmarks: np.ndarray = alignment.from_crop(points) - box[:2].astype(np.float32)
    return DrawnFace(alignment.paste_to_box(depth_to_uint8(depth), box), landmarks.astype(np.float32))


def landmark_flip(faithful: bool) -> float:
    """Where landmarks put y = 0: upstream's edge, one pixel off its raster, or the raster's own."""
    return LANDMARK_FLIP if faithful else CROP_SIZE
