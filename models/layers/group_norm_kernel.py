"""Group normalisation of bfloat16 numbers in the channels-last layout, compiled for the CPU."""

from __future__ import annotations

import numba
import numpy as np

ROWS_AT_ONCE = 64  # pixels summed in float32 before they go into float64
_FAST_MATHS = {"contract", "reassoc", "nsz"}  # sums in any order, so that they fill the vector registers


@numba.njit(nogil=True, cache=True, fastmath=_FAST_MATHS, error_model="numpy")
def normalise_bits(
    features: np.ndarray, weight: np.ndarray, bias: np.ndarray, n_groups: int, eps: float, result: np.ndarray
) -> None:
    """Group normalisation over pixels and the channels of each group; features and result: uint16 [b, h w, c].

    A bfloat16 number is the upper half of a float32. Rounded to the nearest, to even in between.
    """
    n_images, n_pixels, n_channels = features.shape
    width = n_channels // n_groups
    scale, shift = np.empty(n_channels, np.float32), np.empty(n_channels, np.float32)
    few, few_squared = np.empty(n_channels, np.float32), np.empty(n_channels, np.float32)
    for image in range(n_images):
        total, total_squared = np.zeros(n_channels), np.zeros(n_channels)
        for start in range(0, n_pixels, ROWS_AT_ONCE):
            few[:], few_squared[:] = 0, 0
            for pixel in range(start, min(n_pixels, start + ROWS_AT_ONCE)):
                for channel in range(n_channels):
                    value = np.uint32(np.uint32(features[image, pixel, channel]) << 16).view(np.float32)
                    few[channel] += value
                    few_squared[channel] += value * value
            for channel in range(n_channels):
                total[channel] += few[channel]
                total_squared[channel] += few_squared[channel]
        for first in range(0, n_channels, width):
            mean = total[first : first + width].sum() / (width * n_pixels)
            variance = total_squared[first : first + width].sum() / (width * n_pixels) - mean * mean
            divisor = np.sqrt(max(variance, 0.0) + eps)
            for channel in range(first, first + width):
                scale[channel] = weight[channel] / divisor
                shift[channel] = bias[channel] - mean * weight[channel] / divisor
        for pixel in range(n_pixels):
            for channel in range(n_channels):
                value = np.uint32(np.uint32(features[image, pixel, channel]) << 16).view(np.float32)
                bits = np.uint32(np.float32(value * scale[channel] + shift[channel]).view(np.uint32))
                result[image, pixel, channel] = np.uint16((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)
