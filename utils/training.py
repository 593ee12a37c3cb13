"""What both trainers of networks share: budget, learning-rate schedule, running average."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class OptimizerConfig:
    max_steps: int
    lr: float
    min_lr: float
    warmup_steps: int = 0
    max_minutes: float | None = None  # stop earlier after this much time; the schedule follows
    gradient_accumulation_steps: int = 1
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    use_ema: bool = False
    ema_decay: float = 0.999


@dataclass(frozen=True)
class Budget:
    """How long to train: a number of steps, or of minutes if they pass earlier.

    With minutes the result depends on the machine's speed; with steps alone it does not.
    """

    max_steps: int
    max_minutes: float | None = None

    def spent(self, step: int, seconds: float) -> float:
        """Share of the budget that is used, 0 to 1."""
        share = step / self.max_steps
        if self.max_minutes is not None:
            share = max(share, seconds / (60 * self.max_minutes))
        return min(1.0, share)


def cosine_rate(step: int, spent: float, peak: float, floor: float, warmup_steps: int) -> float:
    """Learning rate: linear warm-up, then a half cosine from ``peak`` to ``floor`` as the budget is spent."""
    warmup = min(1.0, (step + 1) / (warmup_steps + 1))
    return warmup * (floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * spent)))


class RunningAverage:
    """An exponential moving average of a module's weights, kept in a copy of the module."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module's weights; the average spans fewer steps while there are few."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averaged: list[Tensor] = list(self.module.parameters())
        current: list[Tensor] = [parameter.detach() for parameter in module.parameters()]
        torch._foreach_lerp_(averaged, current, 1 - decay)
