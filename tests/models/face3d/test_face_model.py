"""The face model as a module: files it reads, files it refuses, and its geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from models.face3d.face_model import (
    EXPRESSION,
    TRANSLATION,
    FaceModel,
    rotation_matrices,
    split_coefficients,
)
from utils.core.errors import BadInput

BFM_DIR = Path(__file__).resolve().parents[2] / "parity" / "fixtures" / "synthetic_bfm"


@pytest.fixture
def arrays():
    """A small face model: 468 vertices, 10 identity and 64 expression columns."""
    rng = np.random.default_rng(0)
    return {
        "meanshape": rng.normal(size=(468, 3)).astype(np.float32),
        "idBase": rng.normal(size=(3 * 468, 10)).astype(np.float32),
        "exBase": rng.normal(size=(3 * 468, 64)).astype(np.float32),
        "tri": rng.integers(0, 468, (852, 3)).astype(np.int32),
        "landmark_index": np.arange(468, dtype=np.int32),
        "alignment_points": rng.normal(size=(5, 3)).astype(np.float32),
    }


def save(arrays, path: Path) -> Path:
    save_file(arrays, path)
    return path


def test_a_safetensors_file_and_its_folder_load_alike(arrays, tmp_path):
    path = save(arrays, tmp_path / "face_model.safetensors")
    model, same = FaceModel.load(path), FaceModel.load(tmp_path)
    assert (model.n_vertices, model.n_id, model.n_exp) == (468, 10, 64)
    assert torch.equal(model.meanshape, same.meanshape)
    torch.testing.assert_close(model.meanshape.mean(dim=0), torch.zeros(3), atol=1e-6, rtol=0)


def test_half_floats_are_accepted(arrays, tmp_path):
    halved = {k: v.astype(np.float16) if v.dtype == np.float32 else v for k, v in arrays.items()}
    model = FaceModel.load(save(halved, tmp_path / "face_model.safetensors"))
    assert model.vertices(torch.zeros(2, 257)).dtype == torch.float32


def test_columns_that_a_model_lacks_are_ignored(arrays):
    model = FaceModel(arrays)
    coefficients = torch.zeros(2, 257)
    coefficients[1, 10:80] = 5.0
    vertices = model.vertices(coefficients)
    torch.testing.assert_close(vertices[0], vertices[1])


def test_depth_grows_away_from_the_camera(arrays):
    model = FaceModel(arrays)
    coefficients = torch.zeros(2, 257)
    coefficients[1, TRANSLATION] = torch.tensor([0.0, 0.0, 1.0])  # one unit towards the camera
    near, far = model.vertices(coefficients)[1], model.vertices(coefficients)[0]
    torch.testing.assert_close(far[:, 2] - near[:, 2], torch.ones(468))


def test_landmark_bases_give_the_landmarks():
    model = FaceModel.load(BFM_DIR)
    coefficients = torch.zeros(1, 257)
    coefficients[0, EXPRESSION] = torch.linspace(-1, 1, 64)
    mean, _, expression = model.landmark_bases()
    expected = model.shape(coefficients[:, :80], coefficients[:, EXPRESSION])[0, model.landmark_index]
    torch.testing.assert_close(mean + expression @ coefficients[0, EXPRESSION], expected)


def test_rotations_are_orthonormal_and_turn_with_the_axes():
    matrices = rotation_matrices(torch.tensor([[0.3, -0.2, 0.9], [0.0, 0.0, torch.pi / 2]]))
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(3).expand(2, 3, 3), atol=1e-6, rtol=0)
    turned = torch.tensor([1.0, 0.0, 0.0]) @ matrices[1]
    torch.testing.assert_close(turned, torch.tensor([0.0, 1.0, 0.0]), atol=1e-6, rtol=0)


def test_a_missing_or_misfitting_array_is_named(arrays, tmp_path):
    path = tmp_path / "face_model.safetensors"
    without = {name: array for name, array in arrays.items() if name != "tri"}
    with pytest.raises(BadInput, match=r"face_model\.safetensors.*no array tri"):
        FaceModel.load(save(without, path))
    with pytest.raises(BadInput, match=r"exBase has shape \(300, 64\)"):
        FaceModel.load(save(arrays | {"exBase": arrays["exBase"][:300].copy()}, path))
    with pytest.raises(BadInput, match="landmark_index points outside"):
        FaceModel.load(save(arrays | {"landmark_index": arrays["landmark_index"] + 1}, path))


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"BFM_model_front\.mat.*01_MorphableModel\.mat"):
        FaceModel.load(tmp_path)


def test_wrong_coefficient_count_is_refused():
    with pytest.raises(ValueError, match="257"):
        split_coefficients(torch.zeros(1, 256))


def test_bfm_indices_become_zero_based():
    model = FaceModel.load(BFM_DIR)
    assert model.tri.min() == 0
    assert model.point_buf.max() == len(model.tri)
    assert model.note is None


def test_numbers_that_are_not_finite_are_refused(arrays, tmp_path):
    arrays["exBase"][7, 3] = np.nan
    with pytest.raises(BadInput, match="exBase holds numbers that are not finite"):
        FaceModel.load(save(arrays, tmp_path / "face_model.safetensors"))
