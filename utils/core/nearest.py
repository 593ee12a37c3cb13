"""What stands nearest to each frame of a sequence (pure)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int


def nearest(mask: Bool[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """For every frame the nearest one inside the mask, the earlier of two; ValueError for an empty mask.

    Takes memory in proportion to the frames.
    """
    inside = np.flatnonzero(mask)
    if len(inside) == 0:
        raise ValueError("no frame lies inside the mask")
    frames = np.arange(len(mask))
    after = np.searchsorted(inside, frames).clip(0, len(inside) - 1)
    before = (after - 1).clip(0)
    is_before = np.abs(inside[before] - frames) <= np.abs(inside[after] - frames)
    return np.where(is_before, inside[before], inside[after])
