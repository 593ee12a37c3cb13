"""The rasterisers against a slow, plain implementation and each other; their properties; the choice of one."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.face3d import rasterizer_torch
from models.face3d.face_model import EXPRESSION, TRANSLATION, FaceModel
from models.face3d.rasterizer import NumbaRenderer, choose_rasterizer, rasterize, render_depth
from models.face3d.rasterizer_torch import TorchRenderer
from tests.helpers.shading import interpolate
from utils.core.types import Camera

BFM_DIR = Path(__file__).resolve().parents[2] / "parity" / "fixtures" / "synthetic_bfm"

CAMERA = Camera()
SMALL = Camera(focal=145.0, center=16.0, image_size=32)


def plain_depth(vertices: np.ndarray, triangles: np.ndarray, camera: Camera) -> np.ndarray:
    """Every triangle against every pixel centre: the plain implementation."""
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


def in_torch(vertices: np.ndarray, triangles: np.ndarray, camera: Camera = CAMERA, device: str = "cpu") -> np.ndarray:
    return TorchRenderer(torch.device(device))(torch.from_numpy(vertices), torch.from_numpy(triangles), camera)


@pytest.mark.parametrize("seed", range(6))
def test_torch_equals_the_plain_twin(seed):
    vertices, triangles = random_mesh(seed)
    expected = plain_depth(vertices, triangles, SMALL)
    np.testing.assert_allclose(in_torch(vertices, triangles, SMALL), expected, atol=1e-5)


@pytest.fixture(scope="module")
def face() -> tuple[np.ndarray, np.ndarray]:
    """A posed face of a few thousand triangles."""
    model = FaceModel.load(BFM_DIR)
    coefficients = torch.zeros(1, 257)
    coefficients[0, EXPRESSION] = torch.linspace(-1, 1, 64)
    coefficients[0, 224:227] = torch.tensor([0.2, -0.4, 0.1])
    coefficients[0, TRANSLATION] = torch.tensor([0.1, -0.2, 0.3])
    return model.vertices(coefficients)[0].numpy(), model.tri.numpy()


def test_torch_draws_a_face_as_numba_does(face):
    expected = render_depth(*face)
    assert 10_000 < np.count_nonzero(expected) < 40_000
    np.testing.assert_allclose(in_torch(*face), expected, rtol=1e-6, atol=0)


def test_torch_in_many_parts(face, monkeypatch):
    monkeypatch.setattr(rasterizer_torch, "CANDIDATES_AT_ONCE", 1000)
    np.testing.assert_allclose(in_torch(*face), render_depth(*face), rtol=1e-6, atol=0)


@pytest.mark.gpu
def test_torch_on_a_gpu(face):
    np.testing.assert_allclose(in_torch(*face, device="cuda"), render_depth(*face), rtol=1e-6, atol=0)


def test_torch_leaves_out_what_cannot_be_seen():
    vertices, triangles = random_mesh(0)
    vertices = vertices.astype(np.float64)
    for moved in ([100, 0, 0], [0, 0, -20], [0, 0, -5.5], [0, 0, 20], [0, 0, np.nan], [np.nan, 0, 0], [1e300, 0, 0]):
        expected = render_depth(vertices + moved, triangles, SMALL)
        np.testing.assert_allclose(in_torch(vertices + moved, triangles, SMALL), expected, atol=1e-5)
    assert not in_torch(vertices, triangles[:0], SMALL).any()


@pytest.mark.parametrize("device", ["cpu", torch.device("mps")])
def test_without_cuda_numba_draws(device, face):
    renderer = choose_rasterizer(device)
    assert isinstance(renderer, NumbaRenderer)
    assert renderer.note is None
    rendered = renderer(torch.from_numpy(face[0]), torch.from_numpy(face[1]), SMALL)
    np.testing.assert_array_equal(rendered, render_depth(*face, SMALL))
    assert "no effect" in choose_rasterizer(device, use_opengl=True).note


def test_cuda_without_nvdiffrast_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvdiffrast", None)
    renderer = choose_rasterizer("cuda:0")
    assert isinstance(renderer, NumbaRenderer)
    assert renderer.note.startswith("depth is rendered on the CPU: nvdiffrast cannot be imported")
    assert "requirements-gpu.txt" in renderer.note
