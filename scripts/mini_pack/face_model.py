"""Fit the mini pack's 3D face model to tracked clips.

    python -m scripts.mini_pack.face_model --clips CLIPS_DIR --out pretrained_models/mini/face_model.safetensors \
        --exclude menendez vr4

468 vertices in MediaPipe's topology. Every tracked frame is aligned by a similarity transform of points that neither
speech nor blinking moves. A clip's neutral face is the mean of the frames with the most closed mouth; identity is the
PCA of the neutral faces, expression that of the deviations from neutral. Mirrored clips are added, so the model is
symmetric. Expression coefficients have unit variance over the training
frames.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from models.tracking.face_tracker import MediaPipeTracker, track_face
from utils.core import cli
from utils.core.errors import BadInput
from utils.core.options import CommandParser
from utils.core.types import N_EXP, N_ID, N_LANDMARKS
from utils.imaging.geometry import five_points, landmarks_68
from utils.imaging.landmarks import INNER_LIPS, LOWER_INNER_LIP, OUTER_LIPS, UPPER_INNER_LIP
from utils.media.video import read_frames
from utils.weights.checkpoints import save_weights

# Forehead, nose bridge, eye corners, temples: rigid during speech (MediaPipe indices).
RIGID = (10, 151, 9, 8, 168, 6, 197, 195, 5, 4, 2, 98, 327, 33, 133, 362, 263, 127, 356, 234, 454, 162, 389)
RIGID += (21, 251, 54, 284, 103, 332, 67, 297, 109, 338)
LIPS = OUTER_LIPS + INNER_LIPS
LIPS += (76, 184, 74, 73, 72, 11, 302, 303, 304, 408, 306, 307, 320, 404, 315, 16, 85, 180, 90, 77)
LIPS += (62, 183, 42, 41, 38, 12, 268, 271, 272, 407, 292, 325, 319, 403, 316, 15, 86, 179, 89, 96)
JAW = (152, 148, 176, 149, 150, 136, 172, 58, 377, 400, 378, 379)
JAW += (365, 397, 288, 175, 199, 200, 18, 83, 313, 201, 421)

EYE_DISTANCE = 0.62  # model units between the eye centres, as in the BFM, so that one camera serves both models
CLOSED_QUANTILE = 0.15
LIP_WEIGHT, JAW_WEIGHT, OTHER_WEIGHT, DEPTH_WEIGHT = 3.0, 1.5, 0.3, 0.5
MAX_IDENTITIES = 40
ALIGNMENT_ROUNDS = 4


@dataclass(frozen=True)
class Shapes:
    """Aligned frames of one clip: float64 [N, 468, 3] in face space (x right, y up, z to the camera)."""

    frames: np.ndarray

    def neutral(self) -> np.ndarray:
        opening = np.linalg.norm(self.frames[:, UPPER_INNER_LIP] - self.frames[:, LOWER_INNER_LIP], axis=1)
        return self.frames[opening <= np.quantile(opening, CLOSED_QUANTILE)].mean(0)


def to_face_space(landmarks: np.ndarray) -> np.ndarray:
    """Pixels with y down and z away from the camera → y up, z to the camera, centred per frame."""
    shapes = landmarks.astype(np.float64) * np.array([1.0, -1.0, -1.0])
    return shapes - shapes.mean(1, keepdims=True)


def align(shapes: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Move each [N, 468, 3] shape onto ``reference`` [468, 3] by the best similarity of the RIGID points (Umeyama)."""
    source, target = shapes[:, RIGID], reference[list(RIGID)]
    source_mean, target_mean = source.mean(1, keepdims=True), target.mean(0)
    a, b = source - source_mean, target - target_mean
    u, scale, vt = np.linalg.svd(np.einsum("nij,ik->njk", a, b))
    sign = np.sign(np.linalg.det(u @ vt))
    u[:, :, 2] *= sign[:, None]
    scale[:, 2] *= sign
    factor = scale.sum(1) / (a**2).sum((1, 2))
    return factor[:, None, None] * ((shapes - source_mean) @ (u @ vt)) + target_mean


def mirror_map(mean: np.ndarray) -> np.ndarray:
    """Index of each vertex's left-right counterpart, from a nearly symmetric mean shape [468, 3]."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    flipped = mean * np.array([-1.0, 1.0, 1.0])
    return linear_sum_assignment(cdist(flipped, mean))[1]


def mesh_triangles(mean: np.ndarray) -> np.ndarray:
    """int32 [852, 3]: the faces of MediaPipe's tesselation, wound to be seen from the front.

    The library gives edges only. Three joined vertices are a face, unless all three edges have two other faces already.
    """
    from mediapipe.python.solutions.face_mesh_connections import FACEMESH_TESSELATION

    neighbours: dict[int, set[int]] = {i: set() for i in range(N_LANDMARKS)}
    for a, b in FACEMESH_TESSELATION:
        neighbours[a].add(b)
        neighbours[b].add(a)
    cycles = {
        tuple(sorted((a, b, c))) for a in neighbours for b in neighbours[a] for c in neighbours[a] & neighbours[b]
    }
    n_faces = Counter(edge for cycle in cycles for edge in combinations(cycle, 2))
    faces = [cycle for cycle in sorted(cycles) if any(n_faces[edge] <= 2 for edge in combinations(cycle, 2))]
    return np.array([_facing_camera(mean, face) for face in faces], np.int32)


def _facing_camera(mean: np.ndarray, triangle: tuple[int, ...]) -> tuple[int, ...]:
    a, b, c = mean[list(triangle)]
    return triangle if np.cross(b - a, c - a)[2] > 0 else (triangle[0], triangle[2], triangle[1])


def learn(clips: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Landmarks of each clip [N, 468, 3] in pixels → the arrays of face_model.safetensors (face_model.py)."""
    posed = [to_face_space(clip) for clip in clips]
    mean = _normalise(align(np.concatenate([p[:50] for p in posed]), posed[0][0]).mean(0))
    for _ in range(ALIGNMENT_ROUNDS):
        mean = _normalise(np.stack([align(p, mean).mean(0) for p in posed]).mean(0))
    mirror = mirror_map(mean)
    mean = _normalise((mean + _mirrored(mean, mirror)) / 2)
    aligned = [Shapes(align(p, mean)) for p in posed]
    aligned += [Shapes(_mirrored(shapes.frames, mirror)) for shapes in aligned]
    neutrals = np.stack([shapes.neutral() for shapes in aligned])
    mean = neutrals.mean(0)
    offset = mean.mean(0)
    identity = _identity_basis(neutrals - mean)
    deviations = np.concatenate([s.frames - n for s, n in zip(aligned, neutrals, strict=True)])
    expression = _expression_basis(deviations.reshape(len(deviations), -1))
    flipped = _mirrored(expression.T.reshape(N_EXP, N_LANDMARKS, 3), mirror).reshape(N_EXP, -1)
    mirror_exp = np.linalg.lstsq(expression, flipped.T, rcond=None)[0]
    return {
        "meanshape": (mean - offset).reshape(-1).astype(np.float32),
        "idBase": identity.astype(np.float32),
        "exBase": expression.astype(np.float32),
        "tri": mesh_triangles(mean),
        "alignment_points": five_points(landmarks_68(mean - offset)).astype(np.float32),
        "landmark_index": np.arange(N_LANDMARKS, dtype=np.int32),
        "mirror_exp": np.round(mirror_exp, 3).astype(np.float32),
    }


def _normalise(shape: np.ndarray) -> np.ndarray:
    """Scale to EYE_DISTANCE between the eye centres and stand upright: eyes level, midline in the y-z plane."""
    left, right = shape[[33, 133]].mean(0), shape[[362, 263]].mean(0)
    x = (right - left) / np.linalg.norm(right - left)
    y = shape[10] - shape[152]
    y = y - x * (x @ y)
    y /= np.linalg.norm(y)
    rotation = np.stack([x, y, np.cross(x, y)])
    return (shape - shape.mean(0)) @ rotation.T * (EYE_DISTANCE / np.linalg.norm(right - left))


def _mirrored(shapes: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    return (shapes * np.array([-1.0, 1.0, 1.0]))[..., mirror, :]


def _identity_basis(offsets: np.ndarray) -> np.ndarray:
    """[N, 468, 3] neutral faces less their mean → [1404, 80], columns of one standard deviation, then zeros."""
    flat = offsets.reshape(len(offsets), -1)
    _, scale, vt = np.linalg.svd(flat, full_matrices=False)
    n_columns = min(MAX_IDENTITIES, len(flat) // 2 - 1)
    basis = np.zeros((flat.shape[1], N_ID))
    basis[:, :n_columns] = (vt[:n_columns] * scale[:n_columns, None] / np.sqrt(len(flat))).T
    return basis


def _expression_basis(deviations: np.ndarray) -> np.ndarray:
    """[N, 1404] deviations from neutral → [1404, 64]; PCA with the largest weights on the lips."""
    weights = np.full((N_LANDMARKS, 3), OTHER_WEIGHT)
    weights[list(JAW)] = JAW_WEIGHT
    weights[list(LIPS)] = LIP_WEIGHT
    weights[:, 2] *= DEPTH_WEIGHT
    weighted = deviations * weights.reshape(-1)
    energy, vectors = np.linalg.eigh(weighted.T @ weighted / len(weighted))
    scores = weighted @ vectors[:, ::-1][:, :N_EXP]
    scores /= np.sqrt(energy[::-1][:N_EXP])
    return np.linalg.lstsq(scores, deviations, rcond=None)[0].T


def track_clips(paths: list[Path]) -> list[np.ndarray]:
    """The landmarks of each clip's valid frames, float32 [N, 468, 3] pixels; clips without a face are left out."""
    clips = []
    for path in cli.progress(paths, len(paths), "tracking"):
        with MediaPipeTracker() as tracker:
            track = track_face(read_frames(path), tracker, "none")
        if track.valid.any():
            clips.append(track.landmarks[track.valid])
    return clips


def main(arguments: list[str] | None = None) -> None:
    parser = CommandParser(description="Fit the mini pack's 3D face model to clips of talking people.")
    parser.add_argument("--clips", type=Path, nargs="+", required=True, help="folders of clips")
    parser.add_argument("--out", type=Path, required=True, help="face_model.safetensors to write")
    parser.add_argument("--exclude", nargs="*", default=[], help="clips (stems) kept for validation")
    options = parser.parse_args(arguments)
    paths = [
        path for folder in options.clips for path in sorted(folder.glob("*.mp4")) if path.stem not in options.exclude
    ]
    if not paths:
        raise BadInput("no clips", options.clips[0], "*.mp4 files", "none", "name the folder of the training clips")
    clips = track_clips(paths)
    arrays = learn(clips)
    save_weights(options.out, {name: torch.from_numpy(array) for name, array in arrays.items()})
    print(f"{len(clips)} clips, {sum(map(len, clips))} frames, {len(arrays['tri'])} triangles → {options.out}")


if __name__ == "__main__":
    cli.run(main)
