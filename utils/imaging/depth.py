"""Camera depth as the 8-bit picture that the generator reads: near is bright, background is black."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

_TINY = 1e-8  # keeps a flat surface from dividing by zero


def depth_to_uint8(depth: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Scale the covered pixels (depth > 0) of one image so that its nearest is 255 and its farthest 0.

    ``255 - (z - min) / (max - min + 1e-8) * 255``, truncated. A depth image with nothing on it stays black
    (upstream fails on the minimum of nothing).
    """
    covered = depth > 0
    image = np.zeros(depth.shape, np.uint8)
    if covered.any():
        z = depth[covered]
        nearest, farthest = z.min(), z.max()
        image[covered] = (255 - (z - nearest) / (farthest - nearest + _TINY) * 255).astype(np.uint8)
    return image
