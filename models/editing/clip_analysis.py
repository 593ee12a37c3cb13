"""3D reconstruction of a tracked face: coefficients per frame, and depth images rendered from coefficients.

Used by stage 2 and by the preparation of training data, so that the generator sees the same depth images in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from models.face3d.face_model import LANDMARK_FLIP, FaceModel
from models.face3d.landmark_fit import FitSettings, LandmarkRows, fit_landmarks
from models.face3d.rasterizer import DepthRenderer, choose_rasterizer
from models.face3d.recon_net import ReconNet
from utils.core.errors import BadInput
from utils.core.streaming import batched
from utils.core.types import N_COEFFS, N_LANDMARKS, FaceTrack
from utils.files.disk_arrays import release
from utils.imaging.geometry import CROP_SIZE, Alignment, align_five_points
from utils.imaging.images import depth_to_uint8
from utils.weights.packs import Pack

FrameSource = Callable[[], Iterator[np.ndarray]]  # decodes a clip from its start: uint8 RGB [H, W, 3]

CROPS_AT_ONCE = 8
_UNUSED = Alignment(1, 1, 1.0, (0.0, 0.0))  # placeholder for frames without a face


@dataclass(frozen=True)
class ReconstructedClip:
    """A reconstructed face in N frames; coeffs float32 [N, 257], each in the aligned crop of its frame."""

    track: FaceTrack
    alignments: list[Alignment]
    coeffs: np.ndarray


@dataclass(frozen=True)
class RenderedFace:
    """A rendered face. depth: uint8 [h, w], the size of the face box; landmarks: float32 [468, 2] relative to it."""

    depth: np.ndarray
    landmarks: np.ndarray


@dataclass(frozen=True)
class FaceAnalyser:
    """Reconstructs the face of a tracked clip in 3D and renders it.

    recon: regresses each frame's coefficients from its image; None: they are fitted to the landmarks.
    flip: landmark y down = flip - y up. The raster's edge is 224; upstream's landmarks use 223 (LANDMARK_FLIP).
    """

    face_model: FaceModel
    render: DepthRenderer
    recon: ReconNet | None = None
    flip: float = CROP_SIZE

    def fit(self, track: FaceTrack, frames: FrameSource, size: tuple[int, int]) -> ReconstructedClip:
        """Coefficients of every valid frame of a track; 0 in a clip without a face.

        ``size``: width and height of the frames. ``frames`` are decoded only if there is a ``recon``.
        """
        alignments, valid = self.align(track, size)
        if not valid.any():
            coeffs = np.zeros((len(track), N_COEFFS), np.float32)
        elif self.recon is None:
            points = CropLandmarks(track.landmarks, alignments)
            coeffs = fit_landmarks(self.face_model, points, valid, FitSettings(flip=self.flip))
        else:
            coeffs = regress_coefficients(self.recon, frames(), alignments, valid)
            valid = valid & np.isfinite(coeffs).all(axis=1)
        return ReconstructedClip(replace(track, valid=valid), alignments, coeffs)

    def render_face(self, coeffs: np.ndarray, alignment: Alignment, box: np.ndarray) -> RenderedFace:
        """Render coefficients [257] in the aligned crop and map depth and landmarks to the box (source pixels)."""
        model = self.face_model
        vertices = model.vertices(torch.from_numpy(coeffs[None]).to(model.meanshape.device))
        depth = self.render(vertices[0], model.tri, model.camera)
        points = model.project_y_down(vertices[:, model.landmark_index], self.flip)[0].cpu().numpy()
        landmarks: np.ndarray = alignment.from_crop(points) - box[:2].astype(np.float32)
        return RenderedFace(alignment.paste_to_box(depth_to_uint8(depth), box), landmarks.astype(np.float32))

    def describe(self) -> str:
        """Lines for the user: source of the coefficients, depth renderer, and notes on them."""
        source = "fitted to landmarks" if self.recon is None else "from the image (ResNet-50)"
        notes = [note for note in (self.face_model.note, self.render.note) if note]
        return "\n".join([f"coefficients: {source}; depth: {self.render.name}", *notes])

    def align(self, track: FaceTrack, size: tuple[int, int]) -> tuple[list[Alignment], np.ndarray]:
        """Alignment of every frame, and bool [N]: frames that have one. Coincident points have none."""
        model_points = self.face_model.alignment_points.cpu().numpy()
        alignments, valid = [_UNUSED] * len(track), track.valid.copy()
        for index in np.flatnonzero(track.valid):
            try:
                alignments[index] = align_five_points(track.five_points[index], model_points, *size)
            except ValueError:
                valid[index] = False
        return alignments, valid


class CropLandmarks(LandmarkRows):
    """Landmarks float32 [N, 468, 2] in the aligned crop of each frame, from those in the frames [N, 468, 3]."""

    def __init__(self, landmarks: np.ndarray, alignments: Sequence[Alignment]) -> None:
        self._landmarks, self._alignments = landmarks, alignments

    def __getitem__(self, frames: np.ndarray) -> np.ndarray:
        points = np.zeros((len(frames), N_LANDMARKS, 2), np.float32)
        for row, frame in enumerate(frames):
            points[row] = self._alignments[frame].to_crop(self._landmarks[frame, :, :2])
        release(self._landmarks)
        return points


def regress_coefficients(
    recon: ReconNet, frames: Iterable[np.ndarray], alignments: Sequence[Alignment], valid: np.ndarray
) -> np.ndarray:
    """Coefficients float32 [N, 257] of the valid frames from their aligned crops, in batches; 0 elsewhere."""
    coeffs = np.zeros((len(valid), N_COEFFS), np.float32)
    usable = ((index, frame) for index, frame in enumerate(frames) if valid[index])
    for batch in batched(usable, CROPS_AT_ONCE):
        crops = np.stack([alignments[index].crop_image(frame) for index, frame in batch])
        coeffs[[index for index, _ in batch]] = recon.coefficients(crops)
    return coeffs


def load_analyser(pack: Pack, device: torch.device, faithful: bool = False, use_opengl: bool = False) -> FaceAnalyser:
    """Open the face model and, if the pack has it, the coefficient network.

    Raises BadInput for unusable files, or a network whose coefficients are not those of this face model.
    """
    face_model = FaceModel.load(pack.face_model)
    recon = None
    if pack.recon is not None:
        if face_model.n_vertices == N_LANDMARKS:
            found = f"the {N_LANDMARKS} vertices of the mini pack's"
            advice = "name a BFM folder with --bfm_folder, or use --recon fit"
            raise BadInput("ResNet-50 needs the Basel face model", pack.face_model, "a BFM folder", found, advice)
        recon = ReconNet.load(pack.recon, device)
    flip = LANDMARK_FLIP if faithful else CROP_SIZE
    return FaceAnalyser(face_model, choose_rasterizer(device, use_opengl), recon, flip)
