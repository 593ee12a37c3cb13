"""Principal components of an encoder's states: the few numbers per step that networks with little data read."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from utils.metrics.ridge import principal_components


class PrincipalComponents(nn.Linear):
    """Fixed projection of states to whitened components, stored with a network's weights."""

    def __init__(self, n_channels: int, n_components: int) -> None:
        super().__init__(n_channels, n_components)
        self.requires_grad_(False)

    def fit(self, states: Float[Tensor, "t c"]) -> None:
        """Set the projection to the largest components of some states, each at mean 0 and deviation 1."""
        mean = states.double().mean(dim=0)
        kept = torch.from_numpy(principal_components(states.cpu().numpy(), self.out_features)).to(mean)
        self.weight.copy_(kept.T)
        self.bias.copy_(-mean @ kept)
