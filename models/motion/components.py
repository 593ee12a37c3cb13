"""Principal components of an encoder's states: the few numbers per step that networks with little data read."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

_LEAST_VARIANCE = 1e-6  # share of the largest component's; components of less are not brought to deviation 1


class PrincipalComponents(nn.Linear):
    """Fixed projection of states to whitened components, stored with a network's weights."""

    def __init__(self, n_channels: int, n_components: int) -> None:
        super().__init__(n_channels, n_components)
        self.requires_grad_(False)

    def fit(self, states: Float[Tensor, "t c"]) -> None:
        """Set the projection to the largest components of some states, each at mean 0 and deviation 1."""
        mean = states.double().mean(dim=0)
        variances, directions = torch.linalg.eigh(torch.cov(states.double().T))  # the largest come last
        deviations = variances.clamp(min=_LEAST_VARIANCE * float(variances[-1])).sqrt()
        kept = (directions / deviations)[:, -self.out_features :]
        self.weight.copy_(kept.T)
        self.bias.copy_(-mean @ kept)
