"""Checkpoints from before PyTorch 0.4.1 lack the counters of batch norms, which only training reads."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_COUNTER = "num_batches_tracked"


def with_counters(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The state with a zero for every counter of ``network`` that it lacks; nothing else is added."""
    missing = [key for key in network.state_dict() if key.endswith(_COUNTER) and key not in state]
    return {**state, **{key: torch.zeros((), dtype=torch.long) for key in missing}}
