"""The official BFM folder: its arrays under the names of face_model.py, converted from the raw files if needed.

BFM_model_front.mat is Deep3DFaceRecon's face model: the front of the Basel Face Model 2009 (01_MorphableModel.mat,
micrometres) with the expression components of Guo et al. (Exp_Pca.bin, std_exp.txt). Two index files lead from mesh to
mesh, in the real files

    53490 vertices ──BFM_exp_idx.mat──► 53215 (those with expressions) ──BFM_front_idx.mat──► 35709 (the front)

A component times its standard deviation is a column of the result, lengths in face units of 1e5 micrometres. All
counts are read from the files. Upstream reads Exp_Pca.bin and std_exp.txt from a folder of its own and knows
only 53215 vertices (Deep3DFaceRecon util/load_mats.py); here all six files come from the folder that was named.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from utils.core.errors import BadInput
from utils.core.types import N_EXP, N_ID, N_LANDMARKS, N_TEX
from utils.files.atomic import atomic_path
from utils.imaging.geometry import five_points
from utils.weights.checkpoints import read_arrays, read_numbers, read_words
from utils.weights.official_files import fetch_advice

BFM_FILE = "BFM_model_front.mat"
BFM_ALIGNMENT_FILE = "similarity_Lm3D_all.mat"
BFM_LANDMARK_FILE = "index_mp468_from_mesh35709.npy"

MODEL_2009_FILE = "01_MorphableModel.mat"
EXPRESSION_FILE = "Exp_Pca.bin"
DEVIATION_FILE = "std_exp.txt"
EXPRESSION_INDEX_FILE = "BFM_exp_idx.mat"
FRONT_INDEX_FILE = "BFM_front_idx.mat"
MESH_FILE = "facemodel_info.mat"
RAW_FILES = (
    MODEL_2009_FILE, EXPRESSION_FILE, DEVIATION_FILE, EXPRESSION_INDEX_FILE, FRONT_INDEX_FILE, MESH_FILE
)  # fmt: skip

MICROMETRES = 1e5  # in one face unit, 10 cm
N_KEYPOINTS = 68


class NamedArrays:
    """The arrays of one file; one that is missing or does not fit is a BadInput that names the file."""

    def __init__(self, path: Path, arrays: Mapping[str, np.ndarray]) -> None:
        self.path = path
        self._arrays = arrays

    @classmethod
    def read(cls, path: Path) -> NamedArrays:
        return cls(path, read_arrays(path))

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            raise self.misfit(f"an array {name}", ", ".join(sorted(self._arrays)) or "none")
        return self._arrays[name]

    def of_shape(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        if self[name].shape != shape:
            raise self.misfit(f"{name} of shape {shape}", str(self[name].shape))
        return self[name]

    def indices(self, name: str, n_entries: int, first: int = 1) -> np.ndarray:
        """Indices that count from ``first``, stored as any kind of number, as int64 from 0."""
        values = self[name]
        if values.dtype.kind not in "iuf":
            raise self.misfit(f"{name} with indices", f"values of type {values.dtype}")
        inside = (values >= first) & (values < n_entries + first) & (values == np.rint(values))
        if not (values.size and inside.all()):
            found = f"{values.min()} to {values.max()}" if values.size else "none"
            raise self.misfit(f"{name} with indices from {first} to {n_entries + first - 1}", found)
        return values.astype(np.int64) - first

    def misfit(self, expected: str, found: str) -> BadInput:
        return BadInput("face model file does not fit", self.path, expected, found, fetch_advice(self.path))


def read_bfm_folder(directory: Path) -> tuple[dict[str, np.ndarray], str | None]:
    """The face model's arrays, indices from 0, and a line that the user should see or None.

    Raises BadInput that names the file that is missing, damaged or does not fit.
    """
    _require_files(directory)
    points = NamedArrays.read(directory / BFM_ALIGNMENT_FILE).of_shape("lm", (68, 3))
    landmarks = NamedArrays.read(directory / BFM_LANDMARK_FILE)
    model, note = front_model(directory)
    n_vertices = model["meanshape"].size // 3
    n_faces = len(model["tri"])
    arrays = {
        **{name: model[name] for name in ("idBase", "exBase", "texBase")},
        **{name: model[name].reshape(-1) for name in ("meanshape", "meantex")},
        "tri": model.indices("tri", n_vertices),
        "point_buf": model.indices("point_buf", n_faces + 1),  # one more stands for no face
        "keypoints": model.indices("keypoints", n_vertices).reshape(-1),
        "landmark_index": landmarks.indices("array", n_vertices, first=0).reshape(-1),
        "alignment_points": five_points(points),
        "front_mask": model.indices("frontmask2_idx", n_vertices).reshape(-1),
        "front_triangles": model.indices("tri_mask2", n_vertices),
        "skin_mask": model["skinmask"].reshape(-1),
    }
    if arrays["landmark_index"].size != N_LANDMARKS:
        raise landmarks.misfit(f"{N_LANDMARKS} indices", str(arrays["landmark_index"].size))
    return arrays, note


def front_model(directory: Path) -> tuple[NamedArrays, str | None]:
    """BFM_model_front.mat as it is (indices from 1), and a line for the user or None.

    Where the file is absent it is made from the raw files and kept in the folder, if that can be written.
    """
    path = directory / BFM_FILE
    if path.is_file():
        return NamedArrays.read(path), None
    arrays = convert_bfm(directory)
    made = "made from the raw Basel Face Model files"
    try:
        _write_mat(path, arrays)
    except OSError as error:
        reason = error.strerror or str(error)
        return NamedArrays(path, arrays), f"{path}: {made} for this run alone, it cannot be kept ({reason})"
    return NamedArrays(path, arrays), f"{path}: {made}"


def _require_files(directory: Path) -> None:
    """Raise BadInput that names every file that is missing, or BFM_FILE if it is of a wrong kind."""
    if (directory / BFM_FILE).exists():
        sources: tuple[str, ...] = (BFM_FILE,)
    elif any((directory / name).exists() for name in RAW_FILES):
        sources = RAW_FILES
    else:
        found = f"neither that nor {', '.join(RAW_FILES)}"
        raise BadInput(
            "no face model", directory, f"{BFM_FILE} or what it is made from", found, fetch_advice(directory)
        )
    missing = [name for name in (*sources, BFM_ALIGNMENT_FILE, BFM_LANDMARK_FILE) if not (directory / name).is_file()]
    if missing:
        first, others = directory / missing[0], missing[1:]
        found = f"nothing, and no {', no '.join(others)} either" if others else "nothing"
        raise BadInput("face model incomplete", first, "a file", found, fetch_advice(first))


def _write_mat(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a MATLAB file, whole or not at all."""
    from scipy.io import savemat

    with atomic_path(path) as temporary, temporary.open("wb") as file:
        savemat(file, dict(arrays))


def convert_bfm(directory: Path) -> dict[str, np.ndarray]:
    """What BFM_model_front.mat holds: float32 bases [3V, up to 80], 64 and 80, means [1, 3V], and the mesh."""
    model = NamedArrays.read(directory / MODEL_2009_FILE)
    n_original = model["shapeMU"].size // 3
    expressed = NamedArrays.read(directory / EXPRESSION_INDEX_FILE).indices("trimIndex", n_original).reshape(-1)
    front = NamedArrays.read(directory / FRONT_INDEX_FILE).indices("idx", len(expressed)).reshape(-1)
    rows = expressed[front]
    shape, texture = _columns(model, "shape", N_ID), _columns(model, "tex", N_TEX)
    result = {
        "meanshape": _vertex_rows(model["shapeMU"].reshape(-1, 1) / MICROMETRES, rows).reshape(1, -1),
        "meantex": _vertex_rows(model["texMU"].reshape(-1, 1), rows).reshape(1, -1),
        "idBase": _vertex_rows(shape, rows) / MICROMETRES,
        "exBase": _vertex_rows(_expression_columns(directory, len(expressed)), front) / MICROMETRES,
        "texBase": _vertex_rows(texture, rows),
    }
    for name, array in result.items():
        if not np.isfinite(array).all():
            source = directory / (EXPRESSION_FILE if name == "exBase" else MODEL_2009_FILE)
            raise BadInput("numbers that are not finite", source, "finite numbers", name, fetch_advice(source))
    mesh = _mesh(NamedArrays.read(directory / MESH_FILE), len(front))
    return {**{name: array.astype(np.float32) for name, array in result.items()}, **mesh}


def _columns(model: NamedArrays, kind: str, most: int) -> np.ndarray:
    """The first components of "shape" or "tex" times their standard deviations, float64 [3 V, k]."""
    n_rows = model["shapeMU"].size
    mean, components, deviations = (model[f"{kind}{part}"] for part in ("MU", "PC", "EV"))
    expected = (n_rows, deviations.size)
    if n_rows % 3 or mean.size != n_rows or components.shape != expected:
        raise model.misfit(f"{kind}PC of shape {expected} and {kind}MU of {n_rows}", str(components.shape))
    return components[:, :most] * deviations.reshape(-1)[:most].astype(np.float64)


def _expression_columns(directory: Path, n_vertices: int) -> np.ndarray:
    """The first expression components times their standard deviations, float64 [3 V, k].

    Exp_Pca.bin: int32 number of components | float32 mean [3 V], unused | float32 components [number, 3 V].
    """
    path, deviation_path = directory / EXPRESSION_FILE, directory / DEVIATION_FILE
    words, deviations = read_words(path), read_numbers(deviation_path)
    n_components = int(words[:1].view("<i4")[0])
    if n_components < 1 or len(words) != 1 + 3 * n_vertices * (1 + n_components):
        expected = f"a mean and the components of {n_vertices} vertices, as many as {EXPRESSION_INDEX_FILE} lists"
        found = f"{n_components} components in {4 * len(words)} bytes"
        raise BadInput("face model file does not fit", path, expected, found, fetch_advice(path))
    if len(deviations) != n_components:
        expected, found = f"{n_components} numbers, as {EXPRESSION_FILE} says", str(len(deviations))
        advice = fetch_advice(deviation_path)
        raise BadInput("face model file does not fit", deviation_path, expected, found, advice)
    components = words[1 + 3 * n_vertices :].view("<f4").reshape(n_components, -1)
    return components[:N_EXP].T * deviations[:N_EXP]


def _vertex_rows(columns: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """The x, y and z rows of some vertices: [3 V, k] to [3 n, k]."""
    n_columns = columns.shape[1]
    return columns.reshape(-1, 3, n_columns)[vertices].reshape(-1, n_columns)


def _mesh(arrays: NamedArrays, n_vertices: int) -> dict[str, np.ndarray]:
    """Triangles, faces around a vertex and regions: as the file holds them, checked."""
    n_faces = len(arrays["tri"])
    expected = {"tri": (n_faces, 3), "point_buf": (n_vertices, 8), "tri_mask2": (len(arrays["tri_mask2"]), 3)}
    mesh = {name: arrays.of_shape(name, shape) for name, shape in expected.items()}
    for name, size in (("keypoints", N_KEYPOINTS), ("skinmask", n_vertices)):
        if arrays[name].size != size:
            raise arrays.misfit(f"{name} of {size} entries", str(arrays[name].size))
    for name in ("tri", "tri_mask2", "keypoints", "frontmask2_idx"):
        arrays.indices(name, n_vertices)
    arrays.indices("point_buf", n_faces + 1)  # one more stands for no face
    return mesh | {name: arrays[name] for name in ("keypoints", "frontmask2_idx", "skinmask")}
