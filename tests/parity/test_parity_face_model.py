"""The parametric face model against recorded numbers (shape, pose, landmarks, light)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.face3d.face_model import rotation_matrices, split_coefficients
from tests.helpers.shading import colours, normals, texture


@pytest.fixture(scope="module")
def recorded(parity):
    return dict(parity("bfm"))


@pytest.fixture(scope="module")
def coefficients(recorded):
    return torch.from_numpy(recorded["in_coeffs"])


def test_camera_vertices(model, coefficients, recorded):
    np.testing.assert_allclose(model.vertices(coefficients), recorded["vertex_camera"], atol=5e-5)


def test_rotation(coefficients, recorded):
    rotation = rotation_matrices(split_coefficients(coefficients).angles)
    np.testing.assert_allclose(rotation, recorded["rotation"], atol=1e-6)


@pytest.mark.parametrize(("name", "index"), [("lm68", "keypoints"), ("lm468", "landmark_index")])
def test_landmarks_with_y_up(model, coefficients, recorded, name, index):
    points = model.project(model.vertices(coefficients)[:, getattr(model, index)])
    np.testing.assert_allclose(points, recorded[name], atol=2e-3)


def test_landmarks_with_y_down(model, coefficients, recorded, parity):
    np.testing.assert_allclose(model.landmarks468(coefficients), parity("depth")["lm468_crop224"], atol=2e-3)
    points = model.project_y_down(model.vertices(coefficients)[:, model.keypoints])
    np.testing.assert_allclose(223 - points[..., 1], recorded["lm68"][..., 1], atol=2e-3)


def test_normals_texture_and_colours(model, coefficients, recorded):
    parts = split_coefficients(coefficients)
    found = normals(model, model.shape(parts.identity, parts.expression))
    np.testing.assert_allclose(found, recorded["vertex_normal"], atol=1e-4)
    np.testing.assert_allclose(texture(model, coefficients), recorded["texture"], atol=1e-4)
    np.testing.assert_allclose(colours(model, coefficients), recorded["color"], atol=1e-4)


def test_alignment_points_and_regions(model, recorded):
    np.testing.assert_allclose(model.alignment_points, recorded["f64_lm3d_5points"], atol=1e-6)
    np.testing.assert_array_equal(model.front_mask, recorded["train_front_mask"])
    np.testing.assert_array_equal(model.front_triangles, recorded["train_front_face_buf"])
    np.testing.assert_array_equal(model.skin_mask, recorded["train_skin_mask"])
