"""A BFM folder with a plausible face in it: the mini pack's face model, cut finer and padded to BFM's sizes.

Random numbers make no face that could be aligned or drawn, so only what the mini pack does not have is drawn by the
rule: texture, and the components beyond its own. Every triangle of its 468-vertex mesh is cut into ``pieces`` squared,
and each new vertex is a weighted mean of the corners, which holds for mean, identity and expression alike; the 468
landmarks stay vertices. Nothing of the Basel Face Model is in the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.io import savemat
from scipy.sparse import csr_matrix, vstack

from scripts.filled_weights.rule import TreeFile, noise
from utils.core.types import N_EXP, N_ID, N_LANDMARKS
from utils.files.atomic import atomic_path
from utils.imaging.geometry import LANDMARKS_68, five_points
from utils.weights.checkpoints import read_arrays
from utils.weights.packs import MINI_DIR

BFM_DIR = PurePosixPath("BFM")
CONVERTED_PATH = BFM_DIR / "BFM_model_front.mat"
N_SHAPE, N_TEXTURE, N_EXPRESSION = 199, 199, 79  # components in the raw files; the conversion keeps 80, 80 and 64
MICRONS_PER_UNIT = 1e5
N_FACES_PER_VERTEX = 8  # columns of point_buf
EXTRA_DEVIATION = 1e-3  # face units, of the components that the mini pack does not have
SMALLEST_DEVIATION = 1.0  # as stored: microns or levels, summed over the mesh
SKIN_COLOUR = (200.0, 150.0, 125.0)  # RGB levels
TEXTURE_DEVIATION = 3.0  # levels
FRONT_HALF_WIDTH = 0.55  # face units; the region of frontmask2_idx and skinmask


@dataclass(frozen=True)
class MeshSize:
    """How fine the mesh is, and how many vertices the raw files have beyond it."""

    pieces: int  # along an edge of the mini pack's mesh
    n_front: int  # vertices of the final mesh
    n_basis: int  # vertices of the expression basis
    n_original: int  # vertices of the shape and texture bases


FULL_SIZE = MeshSize(pieces=9, n_front=35709, n_basis=53215, n_original=53490)
TINY_SIZE = MeshSize(pieces=2, n_front=1800, n_basis=1850, n_original=1900)


@dataclass(frozen=True)
class DenseFace:
    """A face model in float64: mean [V, 3], identity [V, 3, 199], expression [V, 3, 79] in face units per standard
    deviation, colour [V, 3] and texture [V, 3, 199] in levels, triangles [F, 3] 0-based, alignment_points [5, 3]."""

    mean: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    colour: np.ndarray
    texture: np.ndarray
    triangles: np.ndarray
    alignment_points: np.ndarray


def face_model(tiny: bool, seed: int) -> list[TreeFile]:
    """The files of BFM/ but the converted model, which FaceModel.load makes of them."""
    size = TINY_SIZE if tiny else FULL_SIZE
    make = cache(partial(dense_face, size, seed))  # once for all files, only if one is written
    model_bytes = size.n_original * 3 * (N_SHAPE + N_TEXTURE + 2) * 4
    expression_bytes = size.n_basis * 3 * (N_EXPRESSION + 1) * 4
    n_small = 40 * size.n_front
    arrays = {
        "01_MorphableModel.mat": (model_bytes, lambda: morphable_model(make(), size)),
        "BFM_exp_idx.mat": (8 * size.n_basis, lambda: {"trimIndex": column(kept_in_basis(size))}),
        "BFM_front_idx.mat": (8 * size.n_front, lambda: {"idx": column(kept_in_front(size))}),
        "facemodel_info.mat": (4 * n_small, lambda: mesh_info(make())),
        "select_vertex_id.mat": (
            8 * size.n_front,
            lambda: {"select_id": column(kept_in_basis(size)[kept_in_front(size)])},
        ),
        "similarity_Lm3D_all.mat": (68 * 24, lambda: {"lm": landmarks_68_of(make())}),
    }

    def mat_file(name: str) -> TreeFile:
        def write(target: Path) -> None:
            with atomic_path(target) as temporary, temporary.open("wb") as file:
                savemat(file, arrays[name][1]())

        return TreeFile(BFM_DIR / name, arrays[name][0], write)

    return [
        *(mat_file(name) for name in arrays),
        TreeFile(BFM_DIR / "Exp_Pca.bin", expression_bytes, lambda target: write_expression(target, make(), size)),
        TreeFile(BFM_DIR / "std_exp.txt", 1000, lambda target: write_deviations(target, make())),
        TreeFile(BFM_DIR / "index_mp468_from_mesh35709.npy", 8 * N_LANDMARKS, write_landmark_index),
    ]


def converted_bytes(tiny: bool) -> int:
    """About the size of the converted model."""
    return (TINY_SIZE if tiny else FULL_SIZE).n_front * 3 * (N_ID + N_EXP + N_ID + 2) * 4


def dense_face(size: MeshSize, seed: int) -> DenseFace:
    """The mini pack's face on a finer mesh of ``size.n_front`` vertices."""
    mini = read_arrays(MINI_DIR / "face_model.safetensors")
    corners = mini["landmark_index"]
    order = np.argsort(corners)  # so that vertex i is landmark i
    weights, triangles = cut_finer(order[mini["tri"]], size.pieces, size.n_front)

    def spread(values: np.ndarray, n_columns: int, name: str, deviation: float) -> np.ndarray:
        """[468, 3, k] of the corners to [V, 3, n_columns], with drawn components after the k."""
        drawn = deviation * noise(seed, name, (N_LANDMARKS, 3, n_columns - values.shape[-1]))
        values = np.concatenate([values, drawn], axis=-1)
        return (weights @ values.reshape(N_LANDMARKS, -1)).reshape(size.n_front, 3, n_columns)

    mean = weights @ mini["meanshape"].reshape(-1, 3)[corners].astype(np.float64)
    return DenseFace(
        mean=mean - mean.mean(axis=0),
        identity=spread(mini["idBase"].reshape(-1, 3, N_ID)[corners], N_SHAPE, "shapePC", EXTRA_DEVIATION),
        expression=spread(mini["exBase"].reshape(-1, 3, N_EXP)[corners], N_EXPRESSION, "expPC", EXTRA_DEVIATION),
        colour=SKIN_COLOUR + spread(np.zeros((N_LANDMARKS, 3, 0)), 1, "texMU", TEXTURE_DEVIATION)[..., 0],
        texture=spread(np.zeros((N_LANDMARKS, 3, 0)), N_TEXTURE, "texPC", TEXTURE_DEVIATION),
        triangles=triangles,
        alignment_points=mini["alignment_points"].astype(np.float64) - mean.mean(axis=0),
    )


def cut_finer(triangles: np.ndarray, pieces: int, n_vertices: int) -> tuple[csr_matrix, np.ndarray]:
    """Cut every triangle into ``pieces`` squared, then as many of those at their middles as ``n_vertices`` asks for.

    Returns each vertex as weights of the 468 corners [V, 468], the corners first, and the new triangles [F, 3].

        pieces = 2:   corner ─── middle ─── corner      the middles of an edge are shared with its other triangle
    """
    index: dict[tuple[tuple[int, int], ...], int] = {((corner, pieces),): corner for corner in range(N_LANDMARKS)}
    cut: list[tuple[int, int, int]] = []
    for triangle in triangles.tolist():
        at = {}
        for i in range(pieces + 1):
            for j in range(pieces + 1 - i):
                shares = zip(triangle, (pieces - i - j, i, j), strict=True)
                key = tuple(sorted((corner, share) for corner, share in shares if share))
                at[i, j] = index.setdefault(key, len(index))
        for i in range(pieces):
            for j in range(pieces - i):
                cut.append((at[i, j], at[i + 1, j], at[i, j + 1]))
                if i + j < pieces - 1:
                    cut.append((at[i + 1, j], at[i + 1, j + 1], at[i, j + 1]))
    entries = np.array([(row, corner, share) for key, row in index.items() for corner, share in key])
    weights = csr_matrix((entries[:, 2] / pieces, (entries[:, 0], entries[:, 1])), (len(index), N_LANDMARKS))
    return _split_at_middles(weights, np.array(cut), n_vertices - len(index))


def _split_at_middles(weights: csr_matrix, triangles: np.ndarray, n_more: int) -> tuple[csr_matrix, np.ndarray]:
    """Put a vertex into the middle of ``n_more`` triangles, spread over the mesh."""
    chosen = np.arange(n_more) * len(triangles) // n_more
    first, second, third = triangles[chosen].T
    middles = (weights[first] + weights[second] + weights[third]) / 3
    new = weights.shape[0] + np.arange(n_more)
    around = [(first, second, new), (second, third, new), (third, first, new)]
    pieces = [np.stack(corners, axis=1) for corners in around]
    return vstack([weights, middles]).tocsr(), np.concatenate([np.delete(triangles, chosen, axis=0), *pieces])


def kept_in_basis(size: MeshSize) -> np.ndarray:
    """Which vertices of the original mesh the expression basis has, 0-based [n_basis]."""
    return np.arange(size.n_basis) * size.n_original // size.n_basis


def kept_in_front(size: MeshSize) -> np.ndarray:
    """Which vertices of the expression basis the final mesh has, 0-based [n_front]."""
    return np.arange(size.n_front) * size.n_basis // size.n_front


def column(indices: np.ndarray) -> np.ndarray:
    """Indices as the .mat files hold them: 1-based, [n, 1]."""
    return (indices + 1).astype(np.float64)[:, None]


def morphable_model(face: DenseFace, size: MeshSize) -> dict[str, np.ndarray]:
    """The arrays of 01_MorphableModel.mat; shape in microns."""
    rows = kept_in_basis(size)[kept_in_front(size)]

    def padded(values: np.ndarray) -> np.ndarray:
        whole = np.zeros((size.n_original, 3, values.shape[-1]), np.float32)
        whole[rows] = values
        return whole.reshape(3 * size.n_original, -1)

    shape, shape_deviations = components(face.identity * MICRONS_PER_UNIT)
    texture, texture_deviations = components(face.texture)
    return {
        "shapeMU": padded(face.mean[..., None] * MICRONS_PER_UNIT),
        "shapePC": padded(shape),
        "shapeEV": shape_deviations[:, None],
        "texMU": padded(face.colour[..., None]),
        "texPC": padded(texture),
        "texEV": texture_deviations[:, None],
    }


def components(basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A basis [V, 3, k] as directions of length 1 and their standard deviations [k]; an empty one stays all zero."""
    deviations = np.maximum(np.sqrt(np.einsum("vck,vck->k", basis, basis)), SMALLEST_DEVIATION)
    return basis / deviations, deviations


def write_expression(target: Path, face: DenseFace, size: MeshSize) -> None:
    """Exp_Pca.bin: the number of components (int32), then float32 of a mean, which is 0, and of every component."""
    directions, _ = components(face.expression * MICRONS_PER_UNIT)
    whole = np.zeros((N_EXPRESSION, size.n_basis, 3), "<f4")
    whole[:, kept_in_front(size)] = np.moveaxis(directions, -1, 0)
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        file.write(np.array([N_EXPRESSION], "<i4").tobytes())
        file.write(np.zeros((size.n_basis, 3), "<f4").tobytes())
        file.write(whole.tobytes())


def write_deviations(target: Path, face: DenseFace) -> None:
    """std_exp.txt: the expression's standard deviations in microns."""
    _, deviations = components(face.expression * MICRONS_PER_UNIT)
    with atomic_path(target) as temporary:
        np.savetxt(temporary, deviations[None], fmt="%.4f")


def write_landmark_index(target: Path) -> None:
    """The vertices of MediaPipe's 468 landmarks, 0-based: the first ones, see cut_finer."""
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        np.save(file, np.arange(N_LANDMARKS))


def mesh_info(face: DenseFace) -> Mapping[str, np.ndarray]:
    """The arrays of facemodel_info.mat, 1-based."""
    is_front = np.abs(face.mean[:, 0]) < FRONT_HALF_WIDTH
    return {
        "tri": face.triangles + 1,
        "point_buf": faces_around(face.triangles, len(face.mean)) + 1,
        "keypoints": LANDMARKS_68[None] + 1,
        "frontmask2_idx": np.flatnonzero(is_front)[:, None] + 1,
        "tri_mask2": face.triangles[is_front[face.triangles].all(axis=1)] + 1,
        "skinmask": is_front[None].astype(np.float64),
    }


def faces_around(triangles: np.ndarray, n_vertices: int) -> np.ndarray:
    """The first eight triangles at every vertex [V, 8], 0-based; the number of triangles where there are fewer."""
    vertices = triangles.ravel()
    order = np.argsort(vertices, kind="stable")
    starts = np.searchsorted(vertices[order], np.arange(n_vertices))
    place = np.arange(len(order)) - starts[vertices[order]]
    fits = place < N_FACES_PER_VERTEX
    table = np.full((n_vertices, N_FACES_PER_VERTEX), len(triangles))
    table[vertices[order][fits], place[fits]] = order[fits] // 3
    return table


def landmarks_68_of(face: DenseFace) -> np.ndarray:
    """The mean face's 68 points [68, 3], moved so that their five alignment points are the face's."""
    points = face.mean[LANDMARKS_68]
    eyes = (slice(36, 42), slice(42, 48))
    rest = (30, 48, 54)
    for target, place in zip(face.alignment_points, (*eyes, *rest), strict=True):
        now = five_points(points)
        points[place] += target - now[(*eyes, *rest).index(place)]
    return points
