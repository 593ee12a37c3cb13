"""The rasteriser of models/face3d/rasterizer.py in plain torch operations, for any device with float64.

Every triangle is compared with the pixel centres of its bounding box, all triangles at once. The image is the same;
the speed is that of the device, see benchmarks/bench_rasterizer.py. It has not been measured on a GPU.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from models.face3d.rasterizer import EDGE_TOLERANCE, SMALLEST_AREA
from utils.core.types import Camera

CANDIDATES_AT_ONCE = 1 << 20  # pixel centres in bounding boxes, about 100 bytes each


class TorchRenderer:
    """Renders on ``device``."""

    note: str | None = None

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.name = f"torch, {device.type}"

    def __call__(
        self, vertices: Float[Tensor, "v 3"], triangles: Int[Tensor, "f 3"], camera: Camera
    ) -> Float32[np.ndarray, "s s"]:
        """Camera-space vertices to distances from the camera; row 0 is the top, the background is 0."""
        depth = depth_in_torch(vertices.to(self._device), triangles.to(self._device), camera)
        return depth.cpu().numpy()


@torch.no_grad()
def depth_in_torch(
    vertices: Float[Tensor, "v 3"], triangles: Int[Tensor, "f 3"], camera: Camera
) -> Float32[Tensor, "s s"]:
    """The depth image on the device of ``vertices``."""
    size = camera.image_size
    corners = _project(vertices.double(), camera)[triangles.long()]  # [f, 3, (x, y down, 1/z)]
    x, y, nearness = corners.unbind(-1)
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    first_column, n_columns = _pixels_between(x, size)
    first_row, n_rows = _pixels_between(y, size)
    is_rendered = (area.abs() > SMALLEST_AREA) & (nearness.amin(dim=1) > 0)  # false for NaN too
    kept = (is_rendered & (n_columns * n_rows > 0)).nonzero()[:, 0]
    boxes = torch.stack([first_column, n_columns, first_row, n_rows], dim=1)[kept]
    corners, area = corners[kept], area[kept]
    buffer = corners.new_zeros(size * size)
    for part in _parts(boxes[:, 1] * boxes[:, 3]):
        _fill(buffer, corners[part], area[part], boxes[part], camera)
    return torch.where(buffer > 0, 1 / buffer, 0.0).float().unflatten(0, (size, size))


def _project(vertices: Float[Tensor, "v 3"], camera: Camera) -> Float[Tensor, "v 3"]:
    """Camera space to (x, y down, 1/z), x and y in pixels. 1/z is 0 at or behind the camera."""
    z = vertices[:, 2:]
    nearness = torch.where(z > 0, 1 / z, 0.0)
    x, y = (camera.focal * vertices[:, :2] * nearness).unbind(-1)
    return torch.stack([camera.center + x, camera.image_size - camera.center - y, nearness[:, 0]], dim=1)


def _pixels_between(values: Float[Tensor, "f 3"], size: int) -> tuple[Int[Tensor, " f"], Int[Tensor, " f"]]:
    """The first pixel centre between a triangle's corners along one axis, and how many there are in the image."""
    first = (values.amin(dim=1) - 0.5).ceil().nan_to_num(0).clamp(0, size)
    last = (values.amax(dim=1) - 0.5).floor().nan_to_num(-1).clamp(-1, size - 1)
    return first.long(), (last - first + 1).clamp(min=0).long()


def _parts(counts: Int[Tensor, " f"]) -> list[slice]:
    """Runs of triangles with about CANDIDATES_AT_ONCE candidates each."""
    part_of_triangle = (counts.cumsum(0) - counts) // CANDIDATES_AT_ONCE
    lengths = torch.unique_consecutive(part_of_triangle, return_counts=True)[1].tolist()
    ends = np.cumsum(lengths, dtype=int).tolist()
    return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]


def _fill(
    buffer: Float[Tensor, " p"],
    corners: Float[Tensor, "f 3 3"],
    area: Float[Tensor, " f"],
    boxes: Int[Tensor, "f 4"],
    camera: Camera,
) -> None:
    """Raise the largest 1/z of every pixel that a triangle covers."""
    counts = boxes[:, 1] * boxes[:, 3]
    owner = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    place = torch.arange(len(owner), device=counts.device) - (counts.cumsum(0) - counts)[owner]
    first_column, n_columns, first_row, _ = boxes[owner].unbind(-1)
    column, row = first_column + place % n_columns, first_row + place // n_columns
    x, y, nearness = corners.unbind(-1)
    # Shares of corners 1 and 2 are linear on the screen; so is 1/z, which they interpolate.
    slopes = torch.stack(
        [y[:, 2] - y[:, 0], x[:, 0] - x[:, 2], y[:, 0] - y[:, 1], x[:, 1] - x[:, 0]], dim=1
    ) / area[:, None]  # fmt: skip
    share1_dx, share1_dy, share2_dx, share2_dy = slopes[owner].unbind(-1)
    dx, dy = column + 0.5 - x[owner, 0], row + 0.5 - y[owner, 0]
    share1, share2 = share1_dy * dy + share1_dx * dx, share2_dy * dy + share2_dx * dx
    shares = torch.stack([1 - share1 - share2, share1, share2], dim=1)
    here = (shares * nearness[owner]).sum(dim=1)
    is_visible = (shares.amin(dim=1) >= -EDGE_TOLERANCE) & (here <= 1 / camera.near) & (here >= 1 / camera.far)
    pixel = (row * camera.image_size + column)[is_visible]
    buffer.scatter_reduce_(0, pixel, here[is_visible], reduce="amax")
