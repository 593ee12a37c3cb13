"""The official BFM folder: which of its files serve, and their arrays under the names of face_model.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from models.face3d.bfm_conversion import RAW_FILES, NamedArrays, convert_bfm
from utils.core.errors import BadInput
from utils.core.types import N_LANDMARKS
from utils.files.atomic import atomic_path
from utils.imaging.geometry import five_points
from utils.weights.official_files import fetch_advice

BFM_FILE = "BFM_model_front.mat"
BFM_ALIGNMENT_FILE = "similarity_Lm3D_all.mat"
BFM_LANDMARK_FILE = "index_mp468_from_mesh35709.npy"


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
