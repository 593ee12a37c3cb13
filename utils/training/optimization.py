"""Parts of a training that no network is special to: budget, learning rate, running average, seeds, memory, files."""

from __future__ import annotations

import copy
import math
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from utils.core.config import Amount, Count, Decay, Positive, Share, Whole
from utils.core.errors import StageFailure


@dataclass(frozen=True)
class OptimizerConfig:
    max_steps: Count
    lr: Amount
    min_lr: Amount
    warmup_steps: Whole = 0
    max_minutes: Positive | None = None  # stop earlier after this much time; the schedule follows
    gradient_accumulation_steps: Count = 1
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    weight_decay: Amount = 0.01
    max_grad_norm: Positive = 1.0
    use_ema: bool = False
    ema_decay: Share = 0.999


@dataclass(frozen=True)
class Budget:
    """How long to train: a number of steps, or of minutes if they pass earlier; one of them is given.

    With minutes the result depends on the machine's speed; with steps alone it does not.
    """

    max_steps: int | None
    max_minutes: float | None = None

    def spent(self, step: int, seconds: float) -> float:
        """Share of the budget that is used, 0 to 1."""
        share = step / self.max_steps if self.max_steps is not None else 0.0
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


def batch_seed(seed: int, number: int) -> int:
    """Seed of whatever is random in the pass over batch ``number``: posterior draws, dropout.

    A function of the batch alone, so that a continued training needs no stored generator, and another number of
    processes or of accumulated batches changes nothing.
    """
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def frozen(module: nn.Module) -> Iterator[nn.Module]:
    """Within the block gradients pass through the module, but reach none of its weights."""
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


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that this process has held, on the CUDA device or, for others, in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the libraries raise on a full disk into one line; for files that are written whole or not at all."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0][:160]
        kept = "the one before it is intact" if path.exists() else "nothing is left of it"
        raise StageFailure(f"cannot write {path}: {reason}; {kept}; check the free space and the disk") from error
