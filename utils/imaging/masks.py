"""Masks from face landmarks: the mouth for the depth input, the lower face for blending.

Landmarks are MediaPipe's 468 points in pixels of the image that the mask is for (usually a face crop).
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from utils.imaging.landmarks import OUTER_LIPS

# MediaPipe's face oval below the ears, from the right ear over the chin to the left ear
JAW_LINE = (132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361)
# the upper edge: cheeks beside the wings of the nose, and the points under the nostrils
UNDER_NOSE = (205, 98, 97, 2, 326, 327, 425)
# wings, nostrils and tip of the nose; they hang into the hull when the head is bowed
NOSE = (1, 2, 4, 19, 48, 64, 94, 97, 98, 278, 294, 326, 327)

DEFAULT_FEATHER = 0.08  # of the hull's width


def mouth_mask(landmarks: Float[np.ndarray, "468 2"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """1 inside the outer contour of the lips, else 0; size = (height, width).

    Coordinates are truncated to whole pixels, as in the reference.
    """
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [landmarks[list(OUTER_LIPS)].astype(np.int32)], (1,))
    return mask


def lower_face_mask(
    landmarks: Float[np.ndarray, "468 2"],
    size: tuple[int, int],
    new_landmarks: Float[np.ndarray, "468 2"] | None = None,
    feather: float = DEFAULT_FEATHER,
) -> Float[np.ndarray, "h w"]:
    """Opacity of the generated face: 1 around the mouth, 0 outside the lower face.

    size: (height, width) of the mask, float32. The region is the convex hull of jaw line, cheeks and the points
    under the nose, without the nose. With ``new_landmarks`` (the same face with the new expression) the hull
    covers both jaws: the old chin is covered when the mouth closes, the new chin is shown when it opens.
    The edge rises smoothly from 0 over ``feather`` times the hull's width INSIDE the region, and towards the
    borders of the image too, since the generated face ends there.
    """
    faces = [landmarks] if new_landmarks is None else [landmarks, new_landmarks]
    outline = np.concatenate([face[list(JAW_LINE + UNDER_NOSE)] for face in faces])
    region = _fill_hull(outline, size) & (1 - _fill_hull(landmarks[list(NOSE)], size))
    width = float(np.ptp(outline[:, 0]))
    return _feather_inside(region, max(1.0, feather * width))


def face_mask(landmarks: Float[np.ndarray, "468 2"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """1 inside the convex hull of the whole face, else 0; size = (height, width)."""
    return _fill_hull(landmarks, size)


def _fill_hull(points: Float[np.ndarray, "n 2"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    mask = np.zeros(size, np.uint8)
    hull = cv2.convexHull(np.rint(points).astype(np.int32))
    cv2.fillConvexPoly(mask, hull, (1,))
    return mask


def _feather_inside(region: UInt8[np.ndarray, "h w"], distance: float) -> Float[np.ndarray, "h w"]:
    """Rise from 0 outside a region to 1 at ``distance`` pixels inside it, with no kink at either end."""
    depth = cv2.distanceTransform(np.pad(region, 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    ramp = np.clip(depth / distance, 0.0, 1.0)
    return (ramp * ramp * (3.0 - 2.0 * ramp)).astype(np.float32)
