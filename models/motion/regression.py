"""Speech components to expression by an ensemble of small dilated convolution networks, trained by regression.

With minutes of speech they follow the lips of unheard speakers better than the flow-VAE (docs/mini_pack.md); they give
one motion per sound. The members are groups of the same convolutions; each has its own loss, and their mean is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from utils.core.config import Decay, Layers, Size, Whole


@dataclass(frozen=True)
class RegressionSizes:
    """Dilations are 1, 2, 4 … by layer; with 3 layers an output frame depends on 7 frames to each side."""

    members: Whole = 0  # networks of the ensemble; 0: the flow-VAE is used instead
    hidden: Size = 64
    n_layers: Layers = 3
    dropout: Decay = 0.4  # of hidden channels, in training


class RegressionEnsemble(nn.Module):
    """One convolution network per member: 1x1, residual layers of kernel 3, 1x1."""

    def __init__(self, in_channels: int, out_channels: int, sizes: RegressionSizes) -> None:
        super().__init__()
        self.sizes = sizes
        width, groups = sizes.members * sizes.hidden, sizes.members
        self.input = nn.Conv1d(in_channels, width, 1)
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=2**layer, dilation=2**layer, groups=groups)
            for layer in range(sizes.n_layers)
        )
        self.output = nn.Conv1d(width, sizes.members * out_channels, 1, groups=groups)

    def forward(self, x: Float[Tensor, "b c t"]) -> Float[Tensor, "b m t e"]:
        """Every member's output."""
        hidden = functional.gelu(self.input(x))
        for layer in self.layers:
            hidden = hidden + functional.gelu(layer(self._dropped(hidden)))
        return self.output(self._dropped(hidden)).unflatten(1, (self.sizes.members, -1)).transpose(2, 3)

    def _dropped(self, hidden: Float[Tensor, "b h t"]) -> Float[Tensor, "b h t"]:
        return functional.dropout(hidden, self.sizes.dropout, self.training)

    @torch.no_grad()
    def set_mean(self, mean: Float[Tensor, " e"]) -> None:
        """Make the output's bias a mean, from which training starts."""
        self.output.bias.copy_(mean.repeat(self.sizes.members))  # type: ignore[union-attr]
