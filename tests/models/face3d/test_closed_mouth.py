"""models/face3d/closed_mouth.py: the smallest expression that shuts a face model's mouth, and a clip's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.face3d.closed_mouth import LOWER_POINTS, MOST_FRAMES, UPPER_POINTS, LipGaps, lip_gaps, rest_expression
from models.face3d.face_model import EXPRESSION, FaceModel
from utils.core.types import N_COEFFS
from utils.files.arrays import ArrayRows, save_array
from utils.imaging.landmarks import LOWER_INNER_LIP, UPPER_INNER_LIP
from utils.metrics.mouth_motion import mouth_opening
from utils.weights.packs import MINI_DIR

N_SCAN = 600  # vertices of a synthetic dense model


@pytest.fixture(scope="module")
def mini() -> FaceModel:
    return FaceModel.load(MINI_DIR / "face_model.safetensors")


@pytest.fixture(scope="module")
def scan() -> FaceModel:
    """A dense model as BFM's is: landmarks are some of its vertices, and its mean mouth is wide open."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(N_SCAN)[:468].astype(np.int32)
    shape, expression = rng.normal(size=(N_SCAN, 3)), rng.normal(0, 0.05, (N_SCAN * 3, 64))
    for upper, lower in zip(UPPER_POINTS, LOWER_POINTS, strict=True):
        shape[rows[lower]] = shape[rows[upper]] - [0, 0.3, 0]
    return FaceModel(
        {
            "meanshape": shape.reshape(-1).astype(np.float32),
            "idBase": rng.normal(0, 0.02, (N_SCAN * 3, 80)).astype(np.float32),
            "exBase": expression.astype(np.float32),
            "tri": np.array([[0, 1, 2]], np.int32),
            "landmark_index": rows,
            "alignment_points": rng.normal(size=(5, 3)).astype(np.float32),
        }
    )


def landmarks(face: FaceModel, expression: np.ndarray, identity: np.ndarray | None = None) -> np.ndarray:
    mean, identity_basis, basis = (part.numpy() for part in face.landmark_bases())
    base = mean if identity is None else mean + identity_basis @ identity[: identity_basis.shape[2]]
    return base + basis @ expression[: basis.shape[2]]


def test_opposite_points_are_opposite() -> None:
    assert (UPPER_INNER_LIP, LOWER_INNER_LIP) in list(zip(UPPER_POINTS, LOWER_POINTS, strict=True))
    assert len(set(UPPER_POINTS) | set(LOWER_POINTS)) == 18


@pytest.mark.parametrize("model", ["mini", "scan"])
def test_the_mouth_is_shut_from_any_start(model: str, request: pytest.FixtureRequest) -> None:
    face = request.getfixturevalue(model)
    rng = np.random.default_rng(1)
    for identity in (None, rng.normal(size=80).astype(np.float32)):
        gaps = LipGaps.of(face, identity)
        for start in (None, rng.normal(size=64).astype(np.float32)):
            points = landmarks(face, gaps.closed(start), identity)
            apart = points[list(UPPER_POINTS), 1] - points[list(LOWER_POINTS), 1]
            assert np.abs(apart).max() < 2e-3 * gaps.eyes


def test_no_smaller_change_shuts_it(scan: FaceModel) -> None:
    """Any other expression that shuts the mouth is farther from the start."""
    gaps = LipGaps.of(scan)
    start = np.random.default_rng(2).normal(size=64).astype(np.float32)
    closed = gaps.closed(start)
    within = gaps.directions()
    for other in np.random.default_rng(3).normal(size=(20, 64)):
        unseen = other - within @ (within.T @ other)  # moves no gap
        np.testing.assert_allclose(gaps.basis @ unseen[: gaps.n], 0, atol=1e-6)
        assert np.linalg.norm(closed + unseen - start) > np.linalg.norm(closed - start)


def test_an_open_mouth_shuts_and_the_rest_of_the_face_hardly_moves(mini: FaceModel) -> None:
    gaps = LipGaps.of(mini)
    wide = np.zeros(64, np.float32)
    wide[: gaps.n] += 3 * gaps.middle_basis / np.linalg.norm(gaps.middle_basis)
    assert gaps.opening(wide[None])[0] > 0.1
    before, after = landmarks(mini, wide), landmarks(mini, gaps.closed(wide))
    assert mouth_opening(after[None])[0] < 0.005
    eyes, lips = [33, 133, 159, 145, 263], [13, 14, 17, 0]
    moved = np.linalg.norm(after - before, axis=1)
    assert moved[eyes].max() < 0.2 * moved[lips].max()


def test_crossed_lips_are_parted_and_others_left(mini: FaceModel) -> None:
    gaps = LipGaps.of(mini)
    motion = np.random.default_rng(4).normal(size=(50, 64)).astype(np.float32)
    opening = gaps.opening(motion)
    assert (opening < -0.01).any()
    assert (opening > 0.01).any()
    found = gaps.uncrossed(motion)
    np.testing.assert_allclose(gaps.opening(found), np.maximum(opening, 0), atol=1e-6)
    np.testing.assert_array_equal(found[opening > 0], motion[opening > 0])


def stored(path: Path, coeffs: np.ndarray) -> ArrayRows:
    save_array(path, coeffs)
    return ArrayRows(path, (None, N_COEFFS), "f", "")


def test_gap_is_that_of_the_drawn_lips(mini):
    expressions = np.random.default_rng(0).normal(0, 0.5, (6, 64)).astype(np.float32)
    shape = mini.shape(torch.zeros(6, mini.n_id), torch.from_numpy(expressions))[:, mini.landmark_index]
    expected = (shape[:, UPPER_INNER_LIP, 1] - shape[:, LOWER_INNER_LIP, 1]).numpy()
    np.testing.assert_allclose(lip_gaps(mini, expressions), expected, atol=1e-5)


@pytest.mark.parametrize("n_frames", [1, 40, MOST_FRAMES + 500])
def test_rest_is_a_closed_mouth_of_the_clip(mini, tmp_path, n_frames):
    coeffs = np.random.default_rng(1).normal(0, 0.5, (n_frames, N_COEFFS)).astype(np.float32)
    valid = np.arange(n_frames) % 3 != 1
    coeffs[~valid] = 50.0  # a frame without a face counts for nothing
    rest = rest_expression(mini, stored(tmp_path / "coeffs.npy", coeffs), valid)
    gaps = lip_gaps(mini, coeffs[valid][:, EXPRESSION])
    assert gaps.min() - 1e-6 <= lip_gaps(mini, rest[None])[0] <= np.quantile(gaps, 0.1) + 1e-6


def test_no_face_at_all_has_no_expression(mini, tmp_path):
    coeffs = stored(tmp_path / "coeffs.npy", np.ones((3, N_COEFFS), np.float32))
    assert not rest_expression(mini, coeffs, np.zeros(3, bool)).any()
