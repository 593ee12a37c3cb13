"""A tracked clip as a moving 3D face: coefficients per frame, and the depth image of any expression on it.

Stage 2 and the preparation of training data both walk this path, so that the generator is trained on the very
depth images it will be given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from models.face3d.face_model import EXPRESSION, LANDMARK_FLIP, FaceModel
from models.face3d.landmark_fit import FitSettings, LandmarkRows, fit_landmarks
from models.face3d.rasterizer import DepthRenderer, choose_rasterizer
from models.face3d.recon_net import ReconNet
from utils.core.errors import BadInput
from utils.core.streaming import batched
from utils.core.types import N_COEFFS, N_EXP, N_LANDMARKS, FaceTrack
from utils.files.disk_arrays import release
from utils.imaging.geometry import CROP_SIZE, Alignment, align_five_points
from utils.imaging.images import depth_to_uint8
from utils.weights.packs import Pack

FrameSource = Callable[[], Iterator[np.ndarray]]  # decodes a clip from its start: uint8 RGB [H, W, 3]

CROPS_AT_ONCE = 8
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


@dataclass(frozen=True)
class FaceAnalyser:
    """What turns a clip into a moving 3D face and draws it.

    recon: gives each frame's coefficients from its image; None fits them to the landmarks.
    flip: landmark y down = flip - y up. The raster's own edge is 224; upstream's landmarks use 223 (LANDMARK_FLIP).
    """

    face_model: FaceModel
    render: DepthRenderer
    recon: ReconNet | None = None
    flip: float = CROP_SIZE

    def fit(self, track: FaceTrack, frames: FrameSource, size: tuple[int, int]) -> FittedClip:
        """Coefficients of every valid frame of a track; 0 in a clip without a face.

        ``size``: width and height of the frames, which are read only if coefficients come from the image.
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
        return FittedClip(replace(track, valid=valid), alignments, coeffs)

    def draw(self, coeffs: np.ndarray, alignment: Alignment, box: np.ndarray) -> DrawnFace:
        """Render coefficients [257] in the aligned crop and carry depth and landmarks to the box (source pixels)."""
        model = self.face_model
        vertices = model.vertices(torch.from_numpy(coeffs[None]).to(model.meanshape.device))
        depth = self.render(vertices[0], model.tri, model.camera)
        points = model.project_y_down(vertices[:, model.landmark_index], self.flip)[0].cpu().numpy()
        landmarks: np.ndarray = alignment.from_crop(points) - box[:2].astype(np.float32)
        return DrawnFace(alignment.paste_to_box(depth_to_uint8(depth), box), landmarks.astype(np.float32))

    def describe(self) -> str:
        """What finds the coefficients and draws the depth, and notes that the user should see; one line each."""
        source = "fitted to landmarks" if self.recon is None else "from the image (ResNet-50)"
        notes = [note for note in (self.face_model.note, self.render.note) if note]
        return "\n".join([f"coefficients: {source}; depth: {self.render.name}", *notes])

    def align(self, track: FaceTrack, size: tuple[int, int]) -> tuple[list[Alignment], np.ndarray]:
        """Every frame's alignment, and which of the frames have one: points in one place are as good as no face."""
        model_points = self.face_model.alignment_points.cpu().numpy()
        alignments, valid = [_UNUSED] * len(track), track.valid.copy()
        for index in np.flatnonzero(track.valid):
            try:
                alignments[index] = align_five_points(track.five_points[index], model_points, *size)
            except ValueError:
                valid[index] = False
        return alignments, valid


class CropLandmarks(LandmarkRows):
    """Landmarks float32 [N, 468, 2] in the aligned crop of each frame, out of those in the frames [N, 468, 3]."""

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
    """Coefficients float32 [N, 257] of the valid frames from their aligned crops, a few at a time; 0 elsewhere."""
    coeffs = np.zeros((len(valid), N_COEFFS), np.float32)
    usable = ((index, frame) for index, frame in enumerate(frames) if valid[index])
    for batch in batched(usable, CROPS_AT_ONCE):
        crops = np.stack([alignments[index].crop_image(frame) for index, frame in batch])
        coeffs[[index for index, _ in batch]] = recon.coefficients(crops)
    return coeffs


def load_analyser(pack: Pack, device: torch.device, faithful: bool = False, use_opengl: bool = False) -> FaceAnalyser:
    """Open the face model and, if the pack has it, the coefficient network.

    Raises BadInput for unusable files, or a network whose coefficients mean nothing to this face model.
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
