"""The fast rasteriser against a slow, plain twin, and properties of what it draws."""

from __future__ import annotations

import numpy as np
import pytest

from models.rasterizer import interpolate, rasterize, render_depth
from utils.types import Camera

CAMERA = Camera()
SMALL = Camera(focal=145.0, center=16.0, image_size=32)


def plain_depth(vertices: np.ndarray, triangles: np.ndarray, camera: Camera) -> np.ndarray:
    """Every triangle against every pixel centre; the twin that is read, not run."""
    centres = np.arange(camera.image_size) + 0.5
    pixels = np.stack(np.meshgrid(centres, centres), axis=-1)
    nearest = np.full((camera.image_size, camera.image_size), np.inf)
    for corners in vertices[triangles].astype(np.float64):
        depths = corners[:, 2]
        x = camera.center + camera.focal * corners[:, 0] / depths
        y = camera.image_size - (camera.center + camera.focal * corners[:, 1] / depths)
        matrix = np.stack([x, y, np.ones(3)])  # barycentric shares solve matrix @ shares = (x, y, 1)
        if abs(np.linalg.det(matrix)) < 1e-9:
            continue
        homogeneous = np.concatenate([pixels, np.ones((*pixels.shape[:2], 1))], axis=-1)
        shares = homogeneous @ np.linalg.inv(matrix).T
        inside = (shares >= -1e-9).all(axis=-1)
        depth = 1 / (shares @ (1 / depths))
        visible = inside & (depth < nearest) & (depth >= camera.near) & (depth <= camera.far)
        nearest[visible] = depth[visible]
    return np.where(np.isfinite(nearest), nearest, 0)


def random_mesh(seed: int, n_vertices: int = 40, n_triangles: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    vertices = rng.uniform([-1.2, -1.2, 8.5], [1.2, 1.2, 11.5], (n_vertices, 3)).astype(np.float32)
    return vertices, rng.integers(0, n_vertices, (n_triangles, 3))


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_plain_twin(seed):
    vertices, triangles = random_mesh(seed)
    expected = plain_depth(vertices, triangles, SMALL)
    np.testing.assert_allclose(render_depth(vertices, triangles, SMALL), expected, atol=1e-5)


def test_a_plane_facing_the_camera_has_one_depth_without_cracks():
    x, y = np.meshgrid(np.linspace(-2, 2, 23), np.linspace(-2, 2, 23))
    vertices = np.stack([x.ravel(), y.ravel(), np.full(x.size, 10.0)], axis=1)
    corner = np.arange(22 * 23).reshape(22, 23)[:, :-1].ravel()
    triangles = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + 23], axis=1),
            np.stack([corner + 1, corner + 24, corner + 23], axis=1),
        ]
    )
    np.testing.assert_allclose(render_depth(vertices, triangles), 10.0, rtol=1e-6)


def test_up_in_the_world_is_up_in_the_image():
    vertices = np.array([[-0.2, 0.5, 10.0], [0.2, 0.5, 10.0], [0.0, 0.9, 10.0]])
    rows, columns = np.nonzero(render_depth(vertices, np.array([[0, 1, 2]])))
    assert rows.max() < 112
    assert abs(columns.mean() - 111.5) < 0.5


def test_winding_does_not_matter_and_the_nearest_wins():
    far = np.array([[-1, -1, 11.0], [1, -1, 11.0], [0, 1, 11.0]])
    near = np.array([[-1, -1, 9.0], [1, -1, 9.0], [0, 1, 9.0]])
    vertices = np.concatenate([far, near])
    for triangles in ([[0, 1, 2], [5, 4, 3]], [[3, 5, 4], [0, 2, 1]]):
        assert render_depth(vertices, np.array(triangles))[130, 112] == 9.0


def test_depth_is_perspective_correct():
    """On a plane that recedes, 1/z and not z is linear on the screen."""
    vertices = np.array([[-2.0, -2.0, 7.0], [2.0, -2.0, 7.0], [0.0, 4.0, 14.0]])
    depth = render_depth(vertices, np.array([[0, 1, 2]]))[:, 112].astype(np.float64)
    nearness = 1 / depth[depth > 0]
    np.testing.assert_allclose(np.diff(nearness, 2), 0, atol=1e-7)


def test_what_lies_outside_of_near_and_far_is_not_drawn():
    vertices = np.array([[-1, -1, 0.0], [1, -1, 0.0], [0, 1, 0.0]])
    for z in (-10.0, 0.0, 4.0, 16.0, np.nan):
        assert not render_depth(vertices + [0, 0, z], np.array([[0, 1, 2]])).any()


def test_a_mesh_outside_of_the_image_draws_nothing():
    vertices, triangles = random_mesh(0)
    assert not render_depth(vertices + [100, 0, 0], triangles).any()


def test_rendering_names_the_triangle_and_interpolates_its_attributes():
    vertices, triangles = random_mesh(1)
    rendering = rasterize(vertices, triangles, SMALL)
    covered = rendering.depth > 0
    np.testing.assert_array_equal(covered, rendering.triangle >= 0)
    depth = interpolate(vertices[:, 2:], rendering, vertices, triangles, SMALL)[..., 0]
    np.testing.assert_allclose(depth, rendering.depth, rtol=1e-5)
    ones = interpolate(np.ones((len(vertices), 2)), rendering, vertices, triangles, SMALL)
    np.testing.assert_allclose(ones[covered], 1.0, rtol=1e-6)
