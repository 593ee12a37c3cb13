"""Calls of nvdiffrast, and depth from its output: equal to the CPU rasteriser's.

nvdiffrast needs a GPU. A stand-in with its documented calls and conventions answers here, in plain numpy and by another
method than the rasteriser that it is compared with: barycentric shares from the inverse of clip-space corners.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from models.face3d.face_model import EXPRESSION, TRANSLATION, FaceModel
from models.face3d.rasterizer import NumbaRenderer, choose_rasterizer, render_depth
from models.face3d.rasterizer_nvdiffrast import NvdiffrastRenderer
from utils.core.types import Camera

BFM_DIR = Path(__file__).resolve().parents[2] / "parity" / "fixtures" / "synthetic_bfm"
SMALL = Camera(focal=253.75, center=28.0, image_size=56)  # the real one, a quarter as large
OFF_CENTRE = Camera(focal=145.0, center=13.0, image_size=32, near=8.0, far=12.0)


@dataclass
class RasterizeCudaContext:
    device: torch.device | None = None


@dataclass
class RasterizeGLContext:
    output_db: bool = True
    mode: str = "automatic"
    device: torch.device | None = None


def rasterize(glctx, pos, tri, resolution, ranges=None, grad_db=True) -> tuple[torch.Tensor, torch.Tensor]:
    """(u, v, z/w, triangle + 1) of the nearest triangle at every pixel centre, the bottom row first."""
    assert isinstance(glctx, RasterizeCudaContext | RasterizeGLContext)
    assert pos.dtype == torch.float32
    assert tri.dtype == torch.int32
    assert pos.is_contiguous()
    assert tri.is_contiguous()
    height, width = resolution
    x, y = np.meshgrid(2 * (np.arange(width) + 0.5) / width - 1, 2 * (np.arange(height) + 0.5) / height - 1)
    pixels = np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    result, nearest = np.zeros((x.size, 4), np.float32), np.full(x.size, np.inf)
    for index, corners in enumerate(pos[0].numpy().astype(np.float64)[tri.numpy()]):
        plane = corners[:, [0, 1, 3]].T
        if abs(np.linalg.det(plane)) < 1e-12:
            continue
        shares = np.linalg.inv(plane) @ pixels  # times w of the point, which their sum is one over
        in_front = shares.sum(axis=0) > 0
        shares = shares / np.where(in_front, shares.sum(axis=0), 1)
        depth = (corners[:, 2] @ shares) / (corners[:, 3] @ shares)
        seen = in_front & (shares.min(axis=0) >= 0) & (np.abs(depth) <= 1) & (depth < nearest)
        nearest[seen] = depth[seen]
        result[seen] = np.stack([shares[0], shares[1], depth, np.full(x.size, index + 1)], axis=1)[seen]
    return torch.from_numpy(result.reshape(1, height, width, 4)), torch.zeros(1, height, width, 0)


def interpolate(attr, rast, tri) -> tuple[torch.Tensor, torch.Tensor]:
    assert attr.dtype == torch.float32
    assert attr.is_contiguous()
    covered = rast[..., 3] > 0
    corners = attr[0][tri[(rast[..., 3][covered] - 1).long()].long()]
    u, v = rast[covered][:, 0], rast[covered][:, 1]
    shares = torch.stack([u, v, 1 - u - v], dim=1)
    image = torch.zeros(*rast.shape[:3], attr.shape[2])
    image[covered] = (shares[..., None] * corners).sum(dim=1)
    return image, torch.zeros(*rast.shape[:3], 0)


@pytest.fixture
def nvdiffrast(monkeypatch) -> ModuleType:
    """The stand-in, where the real package would be."""
    package, module = ModuleType("nvdiffrast"), ModuleType("nvdiffrast.torch")
    for part in (RasterizeCudaContext, RasterizeGLContext, rasterize, interpolate):
        setattr(module, part.__name__, part)
    monkeypatch.setitem(sys.modules, "nvdiffrast", package)
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", module)
    return module


@pytest.fixture(scope="module")
def face() -> tuple[torch.Tensor, torch.Tensor]:
    model = FaceModel.load(BFM_DIR)
    coefficients = torch.zeros(1, 257)
    coefficients[0, EXPRESSION] = torch.linspace(-1, 1, 64)
    coefficients[0, 224:227] = torch.tensor([0.2, -0.4, 0.1])
    coefficients[0, TRANSLATION] = torch.tensor([0.1, -0.2, 0.3])
    return model.vertices(coefficients)[0], model.tri


def random_mesh(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Triangles that also cross the near and the far plane of OFF_CENTRE."""
    rng = np.random.default_rng(seed)
    vertices = rng.uniform([-1.2, -1.2, 6.0], [1.2, 1.2, 14.0], (40, 3)).astype(np.float32)
    return torch.from_numpy(vertices), torch.from_numpy(rng.integers(0, 40, (60, 3)))


def require_same_depth(vertices: torch.Tensor, triangles: torch.Tensor, camera: Camera) -> None:
    found = NvdiffrastRenderer(torch.device("cpu"))(vertices, triangles, camera)
    expected = render_depth(vertices.numpy(), triangles.numpy(), camera)
    assert found.dtype == np.float32
    assert np.count_nonzero(expected) > expected.size / 5
    np.testing.assert_array_equal(found > 0, expected > 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=0)


def test_a_face(nvdiffrast, face):
    require_same_depth(*face, SMALL)


@pytest.mark.parametrize("seed", range(3))
def test_a_camera_off_centre_and_its_clipping_planes(nvdiffrast, seed):
    require_same_depth(*random_mesh(seed), OFF_CENTRE)


@pytest.mark.gpu
@pytest.mark.parametrize("use_opengl", [False, True])
def test_the_real_package(face, use_opengl):
    pytest.importorskip("nvdiffrast.torch")
    renderer = choose_rasterizer("cuda", use_opengl)
    if renderer.note is not None:
        pytest.skip(renderer.note)
    camera = Camera()
    found = renderer(face[0].to("cuda"), face[1].to("cuda"), camera)
    expected = render_depth(face[0].numpy(), face[1].numpy(), camera)
    on_both = (found > 0) & (expected > 0)
    assert np.count_nonzero((found > 0) != (expected > 0)) < 0.01 * np.count_nonzero(expected)
    assert np.mean(np.abs(found - expected)[on_both] > 2e-3) < 0.01


@pytest.mark.parametrize(("use_opengl", "context"), [(False, RasterizeCudaContext), (True, RasterizeGLContext)])
def test_a_cuda_device_is_drawn_on_by_nvdiffrast(nvdiffrast, monkeypatch, use_opengl, context):
    made = []
    monkeypatch.setattr(nvdiffrast, context.__name__, lambda **options: made.append(context(**options)))
    renderer = choose_rasterizer("cuda:1", use_opengl)
    assert isinstance(renderer, NvdiffrastRenderer)
    assert renderer.note is None
    assert ("OpenGL" in renderer.name) == use_opengl
    assert [one.device for one in made] == [torch.device("cuda:1")]


def test_nvdiffrast_that_cannot_start(nvdiffrast, monkeypatch):
    def fail(**options: object) -> None:
        raise RuntimeError("Error building extension\n'nvdiffrast_plugin'")

    monkeypatch.setattr(nvdiffrast, "RasterizeGLContext", fail)
    renderer = choose_rasterizer("cuda", use_opengl=True)
    assert isinstance(renderer, NumbaRenderer)
    assert renderer.note == (
        "depth is rendered on the CPU: nvdiffrast cannot start (Error building extension 'nvdiffrast_plugin')"
    )
