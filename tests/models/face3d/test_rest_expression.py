"""The expression of a face that says nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.face3d.face_model import EXPRESSION, FaceModel
from models.face3d.rest_expression import MOST_FRAMES, lip_gaps, rest_expression
from utils.core.types import N_COEFFS
from utils.files.array_files import save_array
from utils.files.array_rows import ArrayRows
from utils.imaging.landmarks import LOWER_INNER_LIP, UPPER_INNER_LIP

FACE_MODEL = Path(__file__).resolve().parents[3] / "pretrained_models" / "mini" / "face_model.safetensors"


@pytest.fixture(scope="module")
def face_model() -> FaceModel:
    return FaceModel.load(FACE_MODEL)


def stored(path: Path, coeffs: np.ndarray) -> ArrayRows:
    save_array(path, coeffs)
    return ArrayRows(path, (None, N_COEFFS), "f", "")


def test_gap_is_that_of_the_drawn_lips(face_model):
    expressions = np.random.default_rng(0).normal(0, 0.5, (6, 64)).astype(np.float32)
    shape = face_model.shape(torch.zeros(6, face_model.n_id), torch.from_numpy(expressions))[
        :, face_model.landmark_index
    ]
    drawn = (shape[:, UPPER_INNER_LIP, 1] - shape[:, LOWER_INNER_LIP, 1]).numpy()
    np.testing.assert_allclose(lip_gaps(face_model, expressions), drawn, atol=1e-5)


@pytest.mark.parametrize("n_frames", [1, 40, MOST_FRAMES + 500])
def test_rest_is_a_closed_mouth_of_the_clip(face_model, tmp_path, n_frames):
    coeffs = np.random.default_rng(1).normal(0, 0.5, (n_frames, N_COEFFS)).astype(np.float32)
    valid = np.arange(n_frames) % 3 != 1
    coeffs[~valid] = 50.0  # a frame without a face counts for nothing
    rest = rest_expression(face_model, stored(tmp_path / "coeffs.npy", coeffs), valid)
    gaps = lip_gaps(face_model, coeffs[valid][:, EXPRESSION])
    assert gaps.min() - 1e-6 <= lip_gaps(face_model, rest[None])[0] <= np.quantile(gaps, 0.1) + 1e-6


def test_no_face_at_all_has_no_expression(face_model, tmp_path):
    coeffs = stored(tmp_path / "coeffs.npy", np.ones((3, N_COEFFS), np.float32))
    assert not rest_expression(face_model, coeffs, np.zeros(3, bool)).any()
