"""Parts of an optimisation: learning-rate schedules, the moving average of weights, seeds, frozen weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn


def cosine_rate(step: int, spent: float, peak: float, floor: float, warmup_steps: int) -> float:
    """Linear warm-up from above 0, then a half cosine from ``peak`` to ``floor`` over ``spent``, 0 to 1 (stage 3)."""
    warmup = min(1.0, (step + 1) / (warmup_steps + 1))
    return warmup * (floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * spent)))


def exponential_rate(step: int, peak: float, factor: float, decay_steps: int, warmup_steps: int) -> float:
    """Linear warm-up; meanwhile and after it ``factor`` per ``decay_steps``, smoothly (audio2motion)."""
    warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    return peak * warmup * factor ** (step / decay_steps)


def staircase_rate(step: int, peak: float, factor: float, decay_steps: int, floor: float) -> float:
    """``factor`` after every ``decay_steps``, down to ``floor`` (sync expert)."""
    return max(floor, peak * factor ** (step // decay_steps))


class MovingAverage:
    """Exponential moving average of a module's weights and running statistics, kept in a copy of the module."""

    def __init__(self, module: nn.Module, decay: float, ramps: bool = True) -> None:
        """ramps: the average spans fewer steps at the start: the decay is (1 + step) / (10 + step) if that is less."""
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self.decay, self.ramps = decay, ramps

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step)) if self.ramps else self.decay
        pairs = list(zip(_tensors(self.module), _tensors(module), strict=True))
        averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([slow for slow, _ in averaged], [fast for _, fast in averaged], 1 - decay)
        for slow, fast in pairs:
            if not slow.is_floating_point():  # counters
                slow.copy_(fast)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in (*module.parameters(), *module.buffers())]


def batch_seed(seed: int, number: int) -> int:
    """Seed of the pass over batch ``number``: posterior samples, dropout.

    A function of the batch's number alone: a resumed training needs no stored generator, and the number of processes
    or of accumulated batches changes nothing.
    """
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def frozen(module: nn.Module) -> Iterator[nn.Module]:
    """Gradients pass through the module within the block, but its weights get none."""
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield module
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)


def all_finite(module: nn.Module) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in module.parameters())
