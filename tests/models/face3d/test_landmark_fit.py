"""Landmark fitting recovers the coefficients of rendered landmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.face3d.face_model import ANGLES, EXPRESSION, IDENTITY, TRANSLATION, FaceModel, rotation_matrices
from models.face3d.landmark_fit import FitSettings, angles_of, fit_landmarks, landmark_weights
from utils.core.errors import BadInput

BFM_DIR = Path(__file__).resolve().parents[2] / "parity" / "fixtures" / "synthetic_bfm"
N_FRAMES = 40
NO_PRIOR = FitSettings(identity_ridge=1e-4, expression_ridge=1e-4, n_identity_steps=6, n_frame_steps=5)


@pytest.fixture(scope="module")
def model():
    return FaceModel.load(BFM_DIR)


@pytest.fixture(scope="module")
def coefficients():
    """One person, N_FRAMES random expressions and poses."""
    generator = torch.Generator().manual_seed(0)
    coefficients = torch.zeros(N_FRAMES, 257)
    coefficients[:, IDENTITY] = torch.randn(80, generator=generator)
    coefficients[:, EXPRESSION] = torch.randn(N_FRAMES, 64, generator=generator)
    coefficients[:, ANGLES] = torch.randn(N_FRAMES, 3, generator=generator) * torch.tensor([0.2, 0.3, 0.1])
    coefficients[:, TRANSLATION] = torch.randn(N_FRAMES, 3, generator=generator) * torch.tensor([0.1, 0.1, 0.3])
    return coefficients


@pytest.fixture(scope="module")
def landmarks(model, coefficients):
    return model.landmarks468(coefficients).numpy()


@pytest.fixture(scope="module")
def all_valid():
    return np.ones(N_FRAMES, bool)


def correlation(a, b) -> float:
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


def expression_offsets(model, coefficients) -> np.ndarray:
    """How far the expression moves each landmark, apart from pose."""
    *_, basis = model.landmark_bases()
    return torch.einsum("kie,ne->nki", basis, torch.as_tensor(coefficients)[:, EXPRESSION]).numpy()


def reprojection_error(face_model, coefficients, landmarks):
    """Mean distance in pixels of the 224 px crop between fitted and given landmarks, per frame."""
    projected = face_model.landmarks468(torch.as_tensor(coefficients, dtype=torch.float32)).numpy()
    return np.linalg.norm(projected - landmarks, axis=-1).mean(axis=-1)


def test_coefficients_are_recovered(model, coefficients, landmarks, all_valid):
    fitted = fit_landmarks(model, landmarks, all_valid, NO_PRIOR)
    assert reprojection_error(model, fitted, landmarks).max() < 0.02
    np.testing.assert_allclose(fitted[:, ANGLES], coefficients[:, ANGLES], atol=0.005)
    assert correlation(fitted[:, EXPRESSION], coefficients[:, EXPRESSION]) > 0.95
    assert correlation(expression_offsets(model, fitted), expression_offsets(model, coefficients)) > 0.97


def test_the_default_prior_costs_little(model, coefficients, landmarks, all_valid):
    fitted = fit_landmarks(model, landmarks, all_valid)
    assert reprojection_error(model, fitted, landmarks).max() < 0.5
    assert correlation(expression_offsets(model, fitted), expression_offsets(model, coefficients)) > 0.8


def test_noisy_landmarks_move_the_fit_little(model, landmarks, all_valid):
    noisy = landmarks + np.random.default_rng(0).normal(scale=0.5, size=landmarks.shape)
    fitted = fit_landmarks(model, noisy, all_valid)
    assert reprojection_error(model, fitted, landmarks).mean() < 0.4  # below the noise, of mean length 0.63


def test_identity_is_shared_and_the_rest_is_unused(model, landmarks, all_valid):
    fitted = fit_landmarks(model, landmarks, all_valid)
    assert fitted.shape == (N_FRAMES, 257)
    assert fitted.dtype == np.float32
    assert (fitted[:, IDENTITY] == fitted[0, IDENTITY]).all()
    assert fitted[0, IDENTITY].any()
    used = np.zeros(257, bool)
    for section in (IDENTITY, EXPRESSION, ANGLES, TRANSLATION):
        used[section] = True
    assert not fitted[:, ~used].any()


def test_the_result_does_not_depend_on_the_chunks(model, landmarks, all_valid):
    whole = fit_landmarks(model, landmarks, all_valid)
    pieces = fit_landmarks(model, landmarks, all_valid, FitSettings(chunk_size=7))
    np.testing.assert_allclose(pieces, whole, atol=1e-3)


def test_frames_without_a_face_take_the_nearest_coefficients(model, landmarks, all_valid):
    valid = all_valid.copy()
    valid[[0, 1, 10, 11, 12, 39]] = False
    spoilt = landmarks.copy()
    spoilt[~valid] = 0.0
    fitted = fit_landmarks(model, spoilt, valid)
    for frame, neighbour in ((0, 2), (1, 2), (10, 9), (11, 9), (12, 13), (39, 38)):
        np.testing.assert_array_equal(fitted[frame], fitted[neighbour])
    np.testing.assert_allclose(reprojection_error(model, fitted, landmarks)[valid].max(), 0, atol=0.5)


def test_a_single_frame_is_enough(model, landmarks):
    fitted = fit_landmarks(model, landmarks[:1], np.array([True]))
    assert reprojection_error(model, fitted, landmarks[:1])[0] < 0.5


def test_no_face_at_all_is_refused(model, landmarks, all_valid):
    with pytest.raises(BadInput, match="0 of 40"):
        fit_landmarks(model, landmarks, ~all_valid)


def test_smoothed_rotation_is_steadier_and_still_fits(model, coefficients):
    still = coefficients.clone()
    still[:, ANGLES] = torch.tensor([0.1, -0.2, 0.05])
    still[:, EXPRESSION] *= 0.5
    landmarks = model.landmarks468(still).numpy()
    landmarks += np.random.default_rng(1).normal(scale=0.3, size=landmarks.shape).astype(np.float32)
    valid = np.arange(N_FRAMES) % 9 != 4
    rough = fit_landmarks(model, landmarks, valid)
    smooth = fit_landmarks(model, landmarks, valid, FitSettings(rotation_sigma=2.0))
    assert smooth[:, ANGLES].std(axis=0).max() < rough[:, ANGLES].std(axis=0).max() / 2
    added = reprojection_error(model, smooth, landmarks)[valid] - reprojection_error(model, rough, landmarks)[valid]
    assert added.mean() < 0.1


def test_the_flip_moves_the_face_by_its_pixel(model, landmarks, all_valid):
    lower = fit_landmarks(model, landmarks + np.array([0, 1], np.float32), all_valid, FitSettings(flip=224.0))
    np.testing.assert_allclose(lower, fit_landmarks(model, landmarks, all_valid), atol=1e-2)


def test_angles_invert_the_rotation():
    angles = torch.tensor([[0.3, -1.2, 2.0], [-0.5, 0.4, -0.1]])
    torch.testing.assert_close(angles_of(rotation_matrices(angles)), angles, atol=1e-5, rtol=0)


def test_points_without_a_vertex_weigh_nothing_on_the_bfm_only(model):
    weights = landmark_weights(model, FitSettings())
    assert (weights == 0).sum() == 8
    assert weights[13] == FitSettings().lip_weight
