"""Group normalisation that is exact and fast on the CPU."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# Of PyTorch, up to which our kernel's one thread is used. By the figures below, taken on one thread, PyTorch's own wins
# with several for groups of 4 channels, but by less than it loses for the odd widths of small networks.
MOST_THREADS = 4


class ContiguousGroupNorm(nn.GroupNorm):
    """Group normalisation with two ways around PyTorch 2.13's CPU kernel for the channels-last layout.

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
    from models.layers.group_norm_kernel import normalise_bits  # numba takes a third of a second

    result = torch.empty_like(features)
    normalise_bits(_bits(features), weight.float().numpy(), bias.float().numpy(), n_groups, eps, _bits(result))
    return result


def _bits(features: Float[Tensor, "b c h w"]) -> np.ndarray:
    """The memory of a channels-last tensor, uint16 [b, h w, c]."""
    bits: np.ndarray = features.permute(0, 2, 3, 1).flatten(1, 2).view(torch.uint16).numpy()
    return bits
