"""Piecewise affine warp of a face image that moves its landmarks to those of another expression or pose.

Each triangle between landmarks has one affine map. Outside of the face the movement fades out; between the lips the
triangles span from the upper to the lower lip. The warped frame already has the right lips and skin; the network only
generates what no other frame shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numba
import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8

from utils.core.types import N_LANDMARKS
from utils.imaging.landmarks import EYE_CONTOURS, FACE_OVAL, INNER_LIPS
from utils.weights import packs
from utils.weights.checkpoints import read_weights

Window = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels

N_EYE_POINTS = 16
NEAR_RING, FAR_RING = 1.35, 6.0  # times the face oval's distance from its middle
SMALLEST_AREA = 1e-6  # px², twice the area; thinner triangles hold no pixel
EDGE_TOLERANCE = 1e-6
LIP_FEATHER = 0.012  # of the face's width


@dataclass(frozen=True)
class MouthPicture:
    """A frame's pixels around the lips: uint8 RGB [h, w, 3], landmarks float32 [468, 2] in its pixels, and its share
    of the mixture that is shown between the lips."""

    image: np.ndarray
    landmarks: np.ndarray
    share: float = 1.0


def warp_face(
    face: UInt8[np.ndarray, "h w 3"],
    landmarks: Float[np.ndarray, "468 2"],
    target: Float[np.ndarray, "468 2"],
    window: Window | None = None,
    keeps_detail: bool = False,
) -> UInt8[np.ndarray, "p q 3"]:
    """The face with its landmarks moved to ``target``, all in pixels of the image; the whole of it or a window.

    keeps_detail: interpolate by Lanczos' kernel instead of bilinearly.
    """
    positions = _source_positions(landmarks, target, window or (0, 0, face.shape[1], face.shape[0]))
    method, mode = cv2.INTER_LANCZOS4 if keeps_detail else cv2.INTER_LINEAR, cv2.BORDER_REPLICATE
    return np.asarray(cv2.remap(face, positions[..., 0], positions[..., 1], method, borderMode=mode))


def compose_reference(
    face: UInt8[np.ndarray, "h w 3"],
    landmarks: Float[np.ndarray, "468 2"],
    mouths: Sequence[MouthPicture],
    target: Float[np.ndarray, "468 2"],
    face_width: float,
    window: Window | None = None,
    keeps_detail: bool = False,
) -> UInt8[np.ndarray, "p q 3"]:
    """The face with its landmarks at ``target``: ``face`` warped, between the lips the warped mixture of ``mouths``.

    mouths: of the same person; their shares add up to 1. face_width: pixels of ``face``, for the soft edge at the lips.
    window: the part of ``face`` that is returned. keeps_detail: see warp_face.
    """
    left, top, right, bottom = window or (0, 0, face.shape[1], face.shape[0])
    composed = warp_face(face, landmarks, target, window, keeps_detail)
    blur = max(0.5, LIP_FEATHER * face_width)
    lips, margin = target[list(INNER_LIPS)], 1 + 3 * blur
    x1, y1 = np.floor(np.maximum(lips.min(axis=0) - margin, (left, top))).astype(int).tolist()
    x2, y2 = np.ceil(np.minimum(lips.max(axis=0) + margin, (right, bottom))).astype(int).tolist()
    if x1 >= x2 or y1 >= y2:
        return composed
    between = np.zeros((y2 - y1, x2 - x1), np.float32)
    cv2.fillPoly(between, [np.rint((lips - (x1, y1)) * 16).astype(np.int32)], (1.0,), shift=4)
    weight = cv2.GaussianBlur(between, (0, 0), blur)[..., None]
    inside = np.zeros((*between.shape, 3), np.float32)
    for mouth in mouths:
        shown = warp_face(mouth.image, mouth.landmarks, target, (x1, y1, x2, y2), keeps_detail)
        inside += np.float32(mouth.share) * shown
    part = composed[y1 - top : y2 - top, x1 - left : x2 - left]
    part[:] = np.rint(inside * weight + part * (1 - weight))
    return composed


def _source_positions(
    landmarks: Float[np.ndarray, "468 2"], target: Float[np.ndarray, "468 2"], window: Window
) -> Float32[np.ndarray, "h w 2"]:
    """The point (x, y) of the source image for every pixel of a window of the result."""
    triangles, n_outside, n_mesh = face_triangles()
    corners = target.astype(np.float64)
    moves = landmarks.astype(np.float64) - corners
    oval, middle = corners[list(FACE_OVAL)], corners[list(FACE_OVAL)].mean(axis=0)
    common = moves.mean(axis=0)
    rings = [middle + factor * (oval - middle) for factor in (NEAR_RING, FAR_RING)]
    ring_moves = [(moves[list(FACE_OVAL)] + common) / 2, np.broadcast_to(common, oval.shape)]
    corners, moves = np.concatenate([corners, *rings]), np.concatenate([moves, *ring_moves])
    x1, y1, x2, y2 = window
    positions = np.empty((y2 - y1, x2 - x1, 2), np.float32)
    positions[..., 0], positions[..., 1] = np.arange(x1, x2) + common[0], (np.arange(y1, y2) + common[1])[:, None]
    _fill(positions, corners - (x1, y1), corners + moves, triangles, n_outside, n_mesh)
    return positions


@cache
def face_triangles() -> tuple[Int32[np.ndarray, "f 3"], int, int]:
    """Triangles around the face, of its mesh (MediaPipe's 852, eyes and mouth open) and in its eyes and mouth;
    then the numbers of the first two kinds.

    Corners are landmarks, then the points of the near and of the far ring, in the order of FACE_OVAL.
    """
    mesh = read_weights(packs.face_mesh())["tri"].numpy().astype(np.int32)
    outside, n_ring = [], len(FACE_OVAL)
    for here, there in zip(range(n_ring), [*range(1, n_ring), 0], strict=True):
        near, next_near = N_LANDMARKS + here, N_LANDMARKS + there
        outside += _quad(FACE_OVAL[here], FACE_OVAL[there], near, next_near)
        outside += _quad(near, next_near, near + n_ring, next_near + n_ring)
    eyes = [EYE_CONTOURS[:N_EYE_POINTS], EYE_CONTOURS[N_EYE_POINTS:]]
    opened = [corners for contour in (*eyes, INNER_LIPS) for corners in _strip(contour)]
    triangles = np.concatenate([np.array(outside, np.int32), mesh, np.array(opened, np.int32)])
    return triangles, len(outside), len(mesh)


def _strip(contour: Sequence[int]) -> list[tuple[int, int, int]]:
    """Triangles that close a contour, from one half to the other; its corners are the first and the middle point."""
    half = len(contour) // 2
    one, other = contour[: half + 1], (contour[0], *contour[:half:-1], contour[half])
    triangles = [corners for k in range(half) for corners in _quad(one[k], one[k + 1], other[k], other[k + 1])]
    return [corners for corners in triangles if len(set(corners)) == 3]


def _quad(a: int, b: int, c: int, d: int) -> list[tuple[int, int, int]]:
    """Two triangles between the edges ab and cd."""
    return [(a, b, c), (b, d, c)]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _fill(
    positions: np.ndarray, corners: np.ndarray, sources: np.ndarray, triangles: np.ndarray, n_outside: int, n_mesh: int
) -> None:
    """Interpolate ``sources`` over the triangles. Later triangles cover earlier ones; the mesh's back is skipped."""
    height, width = positions.shape[:2]
    areas = np.zeros(len(triangles))
    for index in range(len(triangles)):
        (x0, y0), (x1, y1) = corners[triangles[index, 0]], corners[triangles[index, 1]]
        x2, y2 = corners[triangles[index, 2]]
        areas[index] = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    facing = np.sign(areas[n_outside : n_outside + n_mesh].sum())
    for index in range(len(triangles)):
        area = areas[index]
        is_mesh = n_outside <= index < n_outside + n_mesh
        if not abs(area) > SMALLEST_AREA or (is_mesh and area * facing < 0):
            continue
        a, b, c = triangles[index]
        (x0, y0), (x1, y1), (x2, y2) = corners[a], corners[b], corners[c]
        first_row, last_row = max(np.ceil(min(y0, y1, y2)), 0), min(np.floor(max(y0, y1, y2)), height - 1)
        first_column, last_column = max(np.ceil(min(x0, x1, x2)), 0), min(np.floor(max(x0, x1, x2)), width - 1)
        # Shares of the second and third corner are linear in column and row.
        share1_dx, share1_dy, share2_dx, share2_dy = (
            (y2 - y0) / area,
            (x0 - x2) / area,
            (y0 - y1) / area,
            (x1 - x0) / area,
        )
        for row in range(int(first_row), int(last_row) + 1):
            for column in range(int(first_column), int(last_column) + 1):
                share1 = (column - x0) * share1_dx + (row - y0) * share1_dy
                share2 = (column - x0) * share2_dx + (row - y0) * share2_dy
                share0 = 1.0 - share1 - share2
                if min(share0, share1, share2) < -EDGE_TOLERANCE:
                    continue
                for axis in range(2):
                    positions[row, column, axis] = (
                        share0 * sources[a, axis] + share1 * sources[b, axis] + share2 * sources[c, axis]
                    )
