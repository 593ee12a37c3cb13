"""Depth by nvdiffrast (Laine et al. 2020) on a CUDA device; the package is imported when a renderer is made.

The image is that of rasterizer.py, but nvdiffrast's CUDA context rounds vertices to 1/16 of a pixel, so that
pixels on a silhouette may differ. Its conventions: clip space as in OpenGL, -w ≤ x, y, z ≤ w inside; row 0 of an image
is the bottom one; triangles count from 1 and 0 is the background. Not tested with the package itself: without a GPU the
tests replace it by a stand-in with those conventions.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from utils.core.types import Camera


class NvdiffrastRenderer:
    """Renders on ``device``. ImportError without nvdiffrast, RuntimeError where it cannot start."""

    note: str | None = None

    def __init__(self, device: torch.device, use_opengl: bool = False) -> None:
        self._package: Any = importlib.import_module("nvdiffrast.torch")
        self._device = device
        self.name = "nvdiffrast, OpenGL" if use_opengl else "nvdiffrast, CUDA"
        if use_opengl:
            self._context = self._package.RasterizeGLContext(output_db=False, device=device)
        else:
            self._context = self._package.RasterizeCudaContext(device=device)

    def __call__(
        self, vertices: Float[Tensor, "v 3"], triangles: Int[Tensor, "f 3"], camera: Camera
    ) -> Float32[np.ndarray, "s s"]:
        """Camera-space vertices to distances from the camera; row 0 is the top, the background is 0."""
        vertices = vertices.to(self._device, torch.float32)
        corners = triangles.to(self._device, torch.int32).contiguous()
        clip = (vertices @ _clip_rows(camera).to(vertices).mT + _clip_offset(camera).to(vertices))[None].contiguous()
        size = (camera.image_size, camera.image_size)
        raster, _ = self._package.rasterize(self._context, clip, corners, resolution=size, grad_db=False)
        distance, _ = self._package.interpolate(vertices[None, :, 2:].contiguous(), raster, corners)
        is_covered = raster[0, ..., 3] > 0
        depth = torch.where(is_covered, distance[0, ..., 0], 0.0)
        return depth.flip(0).cpu().numpy()


def _clip_rows(camera: Camera) -> Float[Tensor, "4 3"]:
    """The linear part of the projection from camera space (z = distance, w) to clip space.

    x / w = 2 (centre + focal x / z) / size - 1, the same for y, which points up in both; z / w is -1 at near, 1 at far.
    """
    scale = 2 * camera.focal / camera.image_size
    shift = 2 * camera.center / camera.image_size - 1
    along = (camera.far + camera.near) / (camera.far - camera.near)
    return torch.tensor([[scale, 0, shift], [0, scale, shift], [0, 0, along], [0, 0, 1]])


def _clip_offset(camera: Camera) -> Float[Tensor, " 4"]:
    """The constant part of that projection."""
    return torch.tensor([0, 0, -2 * camera.far * camera.near / (camera.far - camera.near), 0])
