"""Rasterised depth, its 8-bit image and rendered colour against recorded numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.face3d.rasterizer import rasterize, render_depth
from tests.helpers.shading import colours, interpolate
from utils.imaging.images import depth_to_uint8

ROWS = range(4)


@pytest.fixture(scope="module")
def recorded(parity):
    return dict(parity("depth"))


@pytest.fixture(scope="module")
def coefficients(recorded):
    return torch.from_numpy(recorded["in_coeffs"])


@pytest.fixture(scope="module")
def vertices(model, coefficients):
    return model.vertices(coefficients).numpy()


@pytest.mark.parametrize("row", ROWS)
def test_depth_and_coverage(model, vertices, recorded, row):
    depth = render_depth(vertices[row], model.tri.numpy())
    sure = recorded["exclude"][row] == 0
    np.testing.assert_array_equal((depth > 0)[sure], recorded["mask"][row][sure] > 0)
    np.testing.assert_allclose(depth[sure], recorded["depth"][row][sure], atol=2e-3)


@pytest.mark.parametrize("row", ROWS)
def test_eight_bit_depth_from_recorded_depth(recorded, row):
    image = depth_to_uint8(recorded["depth"][row])
    np.testing.assert_allclose(image.astype(int), recorded["depth_u8"][row], atol=1)


@pytest.mark.parametrize("row", ROWS)
def test_eight_bit_depth_end_to_end(model, vertices, recorded, row):
    image = depth_to_uint8(render_depth(vertices[row], model.tri.numpy()))
    sure = recorded["exclude"][row] == 0
    np.testing.assert_allclose(image[sure].astype(int), recorded["depth_u8"][row][sure], atol=3)


@pytest.mark.parametrize("row", ROWS)
def test_rendered_colour(model, vertices, coefficients, recorded, row):
    triangles = model.tri.numpy()
    shaded = colours(model, coefficients[row : row + 1])[0].numpy()
    image = interpolate(shaded, rasterize(vertices[row], triangles), vertices[row], triangles)
    sure = recorded["exclude"][row][::4, ::4] == 0
    found = image[::4, ::4].transpose(2, 0, 1)[:, sure]
    np.testing.assert_allclose(found, recorded["face_image_every4"][row][:, sure], atol=1e-2)


def test_field_of_view(model, recorded):
    camera = model.camera
    fov = 2 * np.degrees(np.arctan(camera.center / camera.focal))
    np.testing.assert_allclose(fov, recorded["f64_fov_deg"][0], rtol=1e-6)
