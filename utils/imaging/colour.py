"""Colour correction of a generated face to its frame, against visible seams and tints."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8

WORKING_SIZE = 48  # pixels; the correction is smooth, so it is computed on small images
REACH = 0.1  # of the image's side: standard deviation over which a known difference spreads
GLOBAL_SHARE = 1e-3  # weight of the mean difference where nothing known is near


def match_colours(
    face: UInt8[np.ndarray, "h w 3"], source: UInt8[np.ndarray, "h w 3"], known: Float[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Add the smooth part of source - face to a generated face.

    known: 0 to 1, how far a pixel shows the same skin in both (the face around the new mouth). The difference is
    averaged there and extended to the rest by normalised convolution (Knutsson and Westin 1993). Without any known
    pixel the face is returned unchanged.
    """
    height, width = face.shape[:2]
    small = (WORKING_SIZE, WORKING_SIZE)
    weight = cv2.resize(known.astype(np.float32), small, interpolation=cv2.INTER_AREA)[..., None]
    if weight.sum() == 0:
        return face
    difference = cv2.subtract(source, face, dtype=cv2.CV_32F)
    weighted = cv2.resize(difference * known[..., None].astype(np.float32), small, interpolation=cv2.INTER_AREA)
    mean = weighted.sum((0, 1)) / weight.sum()
    spread_difference, spread_weight = _spread(weighted), _spread(weight[..., 0])[..., None]
    correction = (spread_difference + GLOBAL_SHARE * mean) / (spread_weight + GLOBAL_SHARE)
    correction = cv2.resize(correction.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.add(face, correction, dtype=cv2.CV_8U))


def _spread(image: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), REACH * WORKING_SIZE, borderType=cv2.BORDER_CONSTANT)
