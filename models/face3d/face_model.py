"""The 3DMM: 257 coefficients to vertices, landmarks and projection (Deep3DFaceRecon models/bfm.py).

Face space has x right, y up, z towards the camera. Camera space keeps x and y; its z is the distance from the
camera, 10 - z. The arrays come from the official BFM folder or from one ``face_model.safetensors``:

    meanshape         [3V] or [V, 3]  mean face, face units (recentred on loading)
    idBase, exBase    [3V, <=80], [3V, <=64]  columns are one standard deviation of a coefficient
    tri               [F, 3]   vertices of each triangle, 0-based
    landmark_index    [468]    vertex of each MediaPipe landmark
    alignment_points  [5, 3]   eye centres, nose tip, mouth corners of the five-point alignment
    keypoints         [68]     optional, vertex of each iBUG landmark
    mirror_exp        [64, 64] optional, expression of the mirrored face = expression @ mirror_exp
    meantex, texBase  [3V], [3V, <=80]  optional, vertex colours 0..255
    point_buf         [V, 8]   optional, faces around each vertex (F stands for none)
    front_mask, front_triangles, skin_mask  optional, regions that training the coefficient network uses
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.face3d.bfm_folder import BFM_FILE, read_bfm_folder
from utils.core.errors import BadInput
from utils.core.types import N_ANGLE, N_COEFFS, N_EXP, N_GAMMA, N_ID, N_LANDMARKS, N_TEX, N_TRANS, Camera
from utils.weights.checkpoints import read_arrays
from utils.weights.official_files import fetch_advice

MODEL_FILE = "face_model.safetensors"

LANDMARK_FLIP = 223.0  # y down = 223 - y up, upstream's convention for landmarks; the raster's edge is at 224

SECTION_SIZES = (N_ID, N_EXP, N_TEX, N_ANGLE, N_GAMMA, N_TRANS)
_STARTS = np.cumsum((0, *SECTION_SIZES)).tolist()
IDENTITY, EXPRESSION, TEXTURE, ANGLES, GAMMA, TRANSLATION = (slice(start, end) for start, end in pairwise(_STARTS))

_REQUIRED = ("meanshape", "idBase", "exBase", "tri", "landmark_index", "alignment_points")
_FLOATS = ("meanshape", "idBase", "exBase", "alignment_points", "mirror_exp", "meantex", "texBase", "skin_mask")
_INDICES = ("tri", "landmark_index", "keypoints", "point_buf", "front_mask", "front_triangles")


@dataclass(frozen=True)
class Coefficients:
    """The sections of the 257 coefficients; angles in radians, translation in face units."""

    identity: Float[Tensor, "b 80"]
    expression: Float[Tensor, "b 64"]
    texture: Float[Tensor, "b 80"]
    angles: Float[Tensor, "b 3"]
    gamma: Float[Tensor, "b 27"]
    translation: Float[Tensor, "b 3"]


def split_coefficients(coefficients: Float[Tensor, "b 257"]) -> Coefficients:
    """Name the sections of a coefficient vector; ValueError when it is not 257 long."""
    if coefficients.shape[-1] != N_COEFFS:
        raise ValueError(f"expected {N_COEFFS} coefficients, found {coefficients.shape[-1]}")
    return Coefficients(*coefficients.split(SECTION_SIZES, dim=-1))


def rotation_matrices(angles: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 3"]:
    """(Rz Ry Rx) transposed, to be applied on the right of row vectors; angles x, y, z in radians."""
    x, y, z = angles.unbind(-1)
    cos_x, cos_y, cos_z, sin_x, sin_y, sin_z = x.cos(), y.cos(), z.cos(), x.sin(), y.sin(), z.sin()
    one, zero = torch.ones_like(x), torch.zeros_like(x)

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))

    about_x = matrix(one, zero, zero, zero, cos_x, -sin_x, zero, sin_x, cos_x)
    about_y = matrix(cos_y, zero, sin_y, zero, one, zero, -sin_y, zero, cos_y)
    about_z = matrix(cos_z, -sin_z, zero, sin_z, cos_z, zero, zero, zero, one)
    return (about_z @ about_y @ about_x).mT


class FaceModel(nn.Module):
    """A linear face model, mean + identity + expression, with a fixed camera.

    Coefficient columns beyond a smaller model's sizes are ignored. The arrays are buffers named as in the file;
    an optional array that the file lacks is None. ``note``: a line for the user about the loading, or None.
    """

    note: str | None
    meanshape: Tensor
    idBase: Tensor  # noqa: N815 (name in the BFM file)
    exBase: Tensor  # noqa: N815 (name in the BFM file)
    tri: Tensor
    landmark_index: Tensor
    alignment_points: Tensor
    keypoints: Tensor
    meantex: Tensor
    texBase: Tensor  # noqa: N815 (name in the BFM file)
    point_buf: Tensor

    def __init__(self, arrays: Mapping[str, np.ndarray], camera: Camera | None = None) -> None:
        super().__init__()
        self.camera = camera or Camera()
        self.note = None
        _check_arrays(arrays)
        tensors = {name: torch.as_tensor(arrays[name]).float() for name in _FLOATS if name in arrays}
        tensors |= {name: torch.as_tensor(arrays[name]).long() for name in _INDICES if name in arrays}
        mean = tensors["meanshape"].reshape(-1, 3)
        tensors["meanshape"] = mean - mean.mean(dim=0)
        for name in (*_FLOATS, *_INDICES):
            self.register_buffer(name, tensors.get(name), persistent=False)

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu", camera: Camera | None = None) -> FaceModel:
        """Read a ``face_model.safetensors``, a folder that holds one, or the official BFM folder.

        A BFM folder with the raw files alone gets its BFM_model_front.mat, see models/face3d/bfm_folder.py.
        Raises BadInput when neither is there, or when an array is missing or of the wrong shape.
        """
        note = None
        if path.is_dir() and not (path / MODEL_FILE).is_file():
            arrays, note = read_bfm_folder(path)
            path = path / BFM_FILE
        else:
            path = path / MODEL_FILE if path.is_dir() else path
            arrays = read_arrays(path)
        try:
            model = cls(arrays, camera).to(device)
        except ValueError as error:
            expected = "arrays that fit together"
            raise BadInput("face model of another form", path, expected, str(error), fetch_advice(path)) from error
        model.note = note
        return model

    @property
    def n_vertices(self) -> int:
        return len(self.meanshape)

    @property
    def n_id(self) -> int:
        return self.idBase.shape[1]

    @property
    def n_exp(self) -> int:
        return self.exBase.shape[1]

    def shape(self, identity: Float[Tensor, "b i"], expression: Float[Tensor, "b e"]) -> Float[Tensor, "b v 3"]:
        """Vertices in face space, unposed."""
        offsets = identity[:, : self.n_id] @ self.idBase.T + expression[:, : self.n_exp] @ self.exBase.T
        return self.meanshape + offsets.unflatten(-1, (-1, 3))

    def vertices(self, coefficients: Float[Tensor, "b 257"]) -> Float[Tensor, "b v 3"]:
        """Vertices in camera space: x right, y up, z = distance from the camera (10 - z of face space)."""
        parts = split_coefficients(coefficients)
        posed = self.shape(parts.identity, parts.expression) @ rotation_matrices(parts.angles)
        posed = posed + parts.translation[:, None]
        return torch.cat([posed[..., :2], self.camera.distance - posed[..., 2:]], dim=-1)

    def project(self, points: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 2"]:
        """Camera-space points to pixels of the 224 px crop, y UP."""
        return self.camera.focal * points[..., :2] / points[..., 2:] + self.camera.center

    def project_y_down(self, points: Float[Tensor, "*b n 3"], flip: float = LANDMARK_FLIP) -> Float[Tensor, "*b n 2"]:
        """Camera-space points to pixels of the 224 px crop, y = flip - y up."""
        x, y = self.project(points).unbind(-1)
        return torch.stack([x, flip - y], dim=-1)

    def landmarks468(
        self, coefficients: Float[Tensor, "b 257"], flip: float = LANDMARK_FLIP
    ) -> Float[Tensor, "b 468 2"]:
        """MediaPipe's landmarks in pixels of the 224 px crop, y down."""
        return self.project_y_down(self.vertices(coefficients)[:, self.landmark_index], flip)

    def landmark_bases(
        self,
    ) -> tuple[Float[Tensor, "468 3"], Float[Tensor, "468 3 i"], Float[Tensor, "468 3 e"]]:
        """Mean, identity and expression bases of the 468 landmarks alone."""
        rows = self.landmark_index
        identity, expression = (basis.unflatten(0, (-1, 3))[rows] for basis in (self.idBase, self.exBase))
        return self.meanshape[rows], identity, expression


def _check_arrays(arrays: Mapping[str, np.ndarray]) -> None:
    """ValueError naming the first array that is missing or does not fit the others."""
    missing = [name for name in _REQUIRED if name not in arrays]
    if missing:
        raise ValueError(f"no array {', '.join(missing)}")
    n_vertices = arrays["meanshape"].size // 3
    for name, most in (("idBase", N_ID), ("exBase", N_EXP), ("texBase", N_TEX)):
        found = arrays[name].shape if name in arrays else (3 * n_vertices, 0)
        if len(found) != 2 or found[0] != 3 * n_vertices or found[1] > most:
            raise ValueError(f"{name} has shape {found}, expected ({3 * n_vertices}, up to {most})")
        if name in arrays and not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} holds numbers that are not finite")
    n_faces = len(arrays["tri"])
    limits = dict.fromkeys(_INDICES, n_vertices) | {"point_buf": n_faces + 1}
    for name in set(_INDICES) & set(arrays):
        if arrays[name].min() < 0 or arrays[name].max() >= limits[name]:
            raise ValueError(f"{name} points outside of its {limits[name]} entries")
    shapes = {"landmark_index": (N_LANDMARKS,), "alignment_points": (5, 3), "tri": (n_faces, 3)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has shape {arrays[name].shape}, expected {shape}")
