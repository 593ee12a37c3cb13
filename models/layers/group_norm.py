"""Exact and fast group normalisation on the CPU, with a compiled kernel for bfloat16."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# Threads of PyTorch up to which our single-threaded kernel is used. By the figures below, measured on one thread,
# PyTorch's own wins with several for groups of 4 channels, but loses more at the odd widths of small networks.
MOST_THREADS = 4
ROWS_AT_ONCE = 64  # pixels summed in float32 before they go into float64
_FAST_MATHS = {"contract", "reassoc", "nsz"}  # sums in any order, so that they fill the vector registers


class ContiguousGroupNorm(nn.GroupNorm):
    """Group normalisation with two workarounds for PyTorch 2.13's CPU kernel for the channels-last layout.

    That kernel is off by up to 4e-4 in float32, and its bfloat16 backward pass takes 20 times as long as in the plain
    layout, so numbers go to the plain layout for the time of the sums and, since convolutions want channels-last, back.
    bfloat16 without gradients stays where it is, in a kernel of our own: PyTorch's takes 7 to 40 times as long
    where a group has 3, 5, 6 or 8 channels, 1.3 to 2 times as long where it has 4, 10 or 16 (both on one thread).
    """

    def forward(self, input: Tensor) -> Tensor:
        if not input.is_contiguous(memory_format=torch.channels_last):
            return super().forward(input)
        if not torch.is_grad_enabled() and input.dtype != torch.float32:
            is_ours = input.dtype == self.weight.dtype == torch.bfloat16 and input.device.type == "cpu"
            if is_ours and torch.get_num_threads() <= MOST_THREADS:
                return normalise_groups(input, self.num_groups, self.weight, self.bias, self.eps)
            return super().forward(input)
        normal = F.group_norm(input.contiguous(), self.num_groups, self.weight, self.bias, self.eps)
        return normal.contiguous(memory_format=torch.channels_last)


def use_contiguous_group_norm(module: nn.Module) -> None:
    """Replace a network's group normalisations in place; weights and their names stay as they are."""
    for part in module.modules():
        if type(part) is nn.GroupNorm:
            part.__class__ = ContiguousGroupNorm


def normalise_groups(
    features: Float[Tensor, "b c h w"],
    n_groups: int,
    weight: Float[Tensor, " c"],
    bias: Float[Tensor, " c"],
    eps: float,
) -> Float[Tensor, "b c h w"]:
    """Group normalisation of bfloat16 numbers in the channels-last layout, on one thread, without gradients."""
    result = torch.empty_like(features)
    _compiled_kernel()(_bits(features), weight.float().numpy(), bias.float().numpy(), n_groups, eps, _bits(result))
    return result


def _bits(features: Float[Tensor, "b c h w"]) -> np.ndarray:
    """The memory of a channels-last tensor, uint16 [b, h w, c]."""
    bits: np.ndarray = features.permute(0, 2, 3, 1).flatten(1, 2).view(torch.uint16).numpy()
    return bits


@functools.cache
def _compiled_kernel() -> Callable[[np.ndarray, np.ndarray, np.ndarray, int, float, np.ndarray], None]:
    import numba  # takes a third of a second

    compiled = numba.njit(nogil=True, cache=True, fastmath=_FAST_MATHS, error_model="numpy")
    return compiled(_normalise_bits)  # type: ignore[no-any-return]


def _normalise_bits(
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
