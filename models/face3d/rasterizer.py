"""Depth images: a z-buffer rasteriser for the CPU, with nvdiffrast's conventions, and the choice among rasterisers.

Pixel centres lie at +0.5, both sides of a triangle are rendered, the nearest surface wins, depth is interpolated
perspective-correctly (1/z is linear on the screen). Row 0 is the top of the image, though camera space has y up.

Two simplifications against nvdiffrast: a triangle that reaches behind the camera is left out instead of clipped, and
a pixel centre exactly on a shared edge belongs to both triangles (the nearer one shows), not to the top-left one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numba
import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int32
from torch import Tensor

from models.face3d.rasterizer_nvdiffrast import NvdiffrastRenderer
from utils.core.types import Camera

EDGE_TOLERANCE = 1e-9  # in barycentric units: keeps rounding from opening cracks along shared edges
SMALLEST_AREA = 1e-12  # px², twice the area; thinner triangles are edge-on
NO_TRIANGLE = -1


class DepthRenderer(Protocol):
    """Renders depth images. ``name``: library and device; ``note``: a line to print once, or None."""

    name: str
    note: str | None

    def __call__(
        self, vertices: Float[Tensor, "v 3"], triangles: Int[Tensor, "f 3"], camera: Camera
    ) -> Float32[np.ndarray, "s s"]:
        """Camera-space vertices to distances from the camera; row 0 is the top, the background is 0."""


def choose_rasterizer(device: torch.device | str, use_opengl: bool = False) -> DepthRenderer:
    """nvdiffrast on a CUDA device where it is installed, the CPU rasteriser below everywhere else.

    use_opengl: render with nvdiffrast's OpenGL context instead of its CUDA one.
    rasterizer_torch.py could serve a GPU without nvdiffrast, but its speed there has not been measured; on a CPU
    the compiled loop below is about ten times faster, so that serves. benchmarks/bench_rasterizer.py compares them.
    """
    device = torch.device(device)
    if device.type != "cuda":
        note = "--use_opengl has no effect without a CUDA device" if use_opengl else None
        return NumbaRenderer(note)
    try:
        return NvdiffrastRenderer(device, use_opengl)
    except ImportError as error:
        reason = f"nvdiffrast cannot be imported ({error}); requirements-gpu.txt says how to get it"
    except RuntimeError as error:  # no compiler for its extension, no OpenGL
        reason = f"nvdiffrast cannot start ({error})"
    return NumbaRenderer(f"depth is rendered on the CPU: {' '.join(reason.split())}")


class NumbaRenderer:
    """The CPU rasteriser of this module."""

    name = "numba, cpu"

    def __init__(self, note: str | None = None) -> None:
        self.note = note

    def __call__(
        self, vertices: Float[Tensor, "v 3"], triangles: Int[Tensor, "f 3"], camera: Camera
    ) -> Float32[np.ndarray, "s s"]:
        return render_depth(vertices.detach().cpu().numpy(), triangles.cpu().numpy(), camera)


@dataclass(frozen=True)
class Rendering:
    """Per pixel: distance from the camera (0 = background) and triangle (-1 = background)."""

    depth: Float32[np.ndarray, "s s"]
    triangle: Int32[np.ndarray, "s s"]


def render_depth(
    vertices: Float[np.ndarray, "v 3"], triangles: Int[np.ndarray, "f 3"], camera: Camera | None = None
) -> Float32[np.ndarray, "s s"]:
    """The depth image of camera-space vertices (z = distance from the camera); background is 0."""
    return rasterize(vertices, triangles, camera).depth


def rasterize(
    vertices: Float[np.ndarray, "v 3"], triangles: Int[np.ndarray, "f 3"], camera: Camera | None = None
) -> Rendering:
    """Find the nearest triangle at every pixel centre and its depth there."""
    camera = camera or Camera()
    screen = project_to_screen(vertices, camera)
    corners = np.ascontiguousarray(triangles, dtype=np.int32)
    nearness, triangle = _fill(screen, corners, camera.image_size, 1.0 / camera.near, 1.0 / camera.far)
    covered = triangle != NO_TRIANGLE
    depth = np.zeros(nearness.shape, np.float32)
    depth[covered] = 1.0 / nearness[covered]
    return Rendering(depth, triangle)


def project_to_screen(vertices: Float[np.ndarray, "v 3"], camera: Camera) -> Float[np.ndarray, "v 3"]:
    """Camera space to (x, y down, 1/z), x and y in pixels; float64. 1/z is 0 at or behind the camera."""
    z = vertices[:, 2].astype(np.float64)
    nearness = np.divide(1.0, z, out=np.zeros_like(z), where=z > 0)
    scaled = camera.focal * vertices[:, :2] * nearness[:, None]
    bottom = camera.image_size - camera.center
    return np.stack([camera.center + scaled[:, 0], bottom - scaled[:, 1], nearness], axis=1)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _fill(
    screen: np.ndarray, triangles: np.ndarray, size: int, nearest: float, farthest: float
) -> tuple[np.ndarray, np.ndarray]:
    """Largest 1/z between farthest and nearest at every pixel centre, and the triangle it belongs to."""
    nearness = np.zeros((size, size))
    owner = np.full((size, size), NO_TRIANGLE, np.int32)
    for index in range(len(triangles)):
        x0, y0, n0 = screen[triangles[index, 0]]
        x1, y1, n1 = screen[triangles[index, 1]]
        x2, y2, n2 = screen[triangles[index, 2]]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        # Written so that NaN is refused too.
        if not (abs(area) > SMALLEST_AREA and min(n0, n1, n2) > 0):
            continue
        first_column = int(max(np.ceil(min(x0, x1, x2) - 0.5), 0))
        last_column = int(min(np.floor(max(x0, x1, x2) - 0.5), size - 1))
        first_row = int(max(np.ceil(min(y0, y1, y2) - 0.5), 0))
        last_row = int(min(np.floor(max(y0, y1, y2) - 0.5), size - 1))
        # Shares of corners 1 and 2 at (x, y) are linear; so is 1/z, which they interpolate.
        share1_dx, share2_dx = (y2 - y0) / area, (y0 - y1) / area
        for row in range(first_row, last_row + 1):
            dy = row + 0.5 - y0
            share1_row, share2_row = (x0 - x2) * dy / area, (x1 - x0) * dy / area
            for column in range(first_column, last_column + 1):
                dx = column + 0.5 - x0
                share1, share2 = share1_row + share1_dx * dx, share2_row + share2_dx * dx
                share0 = 1.0 - share1 - share2
                if min(share0, share1, share2) < -EDGE_TOLERANCE:
                    continue
                here = share0 * n0 + share1 * n1 + share2 * n2
                if nearness[row, column] < here <= nearest and here >= farthest:
                    nearness[row, column] = here
                    owner[row, column] = index
    return nearness, owner
