"""Colour rendering of the face model, which the pipeline does not need: texture, light, interpolation over pixels."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from models.face3d.face_model import FaceModel, rotation_matrices, split_coefficients
from models.face3d.rasterizer import NO_TRIANGLE, Rendering, project_to_screen
from utils.core.types import Camera

AMBIENT_LIGHT = 0.8  # added to the first spherical-harmonics coefficient of every colour channel


def texture(model: FaceModel, coefficients: Tensor) -> Tensor:
    """Unlit vertex colours of coefficients [B, 257], RGB [B, V, 3], about 0..1."""
    amounts = split_coefficients(coefficients).texture[:, : model.texBase.shape[1]]
    colours = model.meantex.reshape(-1) + amounts @ model.texBase.T
    return colours.unflatten(-1, (-1, 3)) / 255.0


def normals(model: FaceModel, shape: Tensor) -> Tensor:
    """Unit vertex normals of unposed shapes [B, V, 3]: the mean of the normals of the faces around each vertex."""
    first, second, third = (shape[:, model.tri[:, corner]] for corner in range(3))
    faces = nn.functional.normalize(torch.cross(first - second, second - third, dim=-1), dim=-1)
    faces = torch.cat([faces, faces.new_zeros(len(shape), 1, 3)], dim=1)  # row F: "no face"
    return nn.functional.normalize(faces[:, model.point_buf].sum(dim=2), dim=-1)


def colours(model: FaceModel, coefficients: Tensor) -> Tensor:
    """Vertex colours under the coefficients' spherical-harmonics light, RGB [B, V, 3], about 0..1."""
    parts = split_coefficients(coefficients)
    posed = normals(model, model.shape(parts.identity, parts.expression)) @ rotation_matrices(parts.angles)
    light = parts.gamma.unflatten(-1, (3, 9)).clone()
    light[..., 0] += AMBIENT_LIGHT
    return texture(model, coefficients) * (spherical_harmonics(posed) @ light.mT)


def spherical_harmonics(directions: Tensor) -> Tensor:
    """The first nine real harmonics times the Lambertian kernel (Ramamoorthi and Hanrahan 2001)."""
    x, y, z = directions.unbind(-1)
    kernel = (math.pi, 2 * math.pi / math.sqrt(3), 2 * math.pi / math.sqrt(8))
    constant = kernel[0] / math.sqrt(4 * math.pi)
    linear = kernel[1] * math.sqrt(3) / math.sqrt(4 * math.pi)
    quadratic = kernel[2] * 3 * math.sqrt(5) / math.sqrt(12 * math.pi)
    return torch.stack(
        [
            constant * torch.ones_like(x),
            -linear * y,
            linear * z,
            -linear * x,
            quadratic * x * y,
            -quadratic * y * z,
            quadratic * (3 * z**2 - 1) / (2 * math.sqrt(3)),
            -quadratic * x * z,
            quadratic * (x**2 - y**2) / 2,
        ],
        dim=-1,
    )


def interpolate(
    attributes: np.ndarray,
    rendering: Rendering,
    vertices: np.ndarray,
    triangles: np.ndarray,
    camera: Camera | None = None,
) -> np.ndarray:
    """Vertex attributes (colours) at every pixel, perspective-correct; background is 0."""
    screen = project_to_screen(vertices, camera or Camera())
    rows, columns = np.nonzero(rendering.triangle != NO_TRIANGLE)
    corners = triangles[rendering.triangle[rows, columns]]
    (x0, y0, n0), (x1, y1, n1), (x2, y2, n2) = (screen[corners[:, i]].T for i in range(3))
    x, y = columns + 0.5, rows + 0.5
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    share1 = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) / area
    share2 = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) / area
    weights = np.stack([(1 - share1 - share2) * n0, share1 * n1, share2 * n2], axis=1)
    weights /= weights.sum(axis=1, keepdims=True)
    image = np.zeros((*rendering.triangle.shape, attributes.shape[1]), np.float32)
    image[rows, columns] = np.einsum("pi,pic->pc", weights, attributes[corners])
    return image
