"""What a training loop trains: something that turns numbered batches into steps."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from utils.core.processes import Processes
from utils.training.optimization import all_finite

B = TypeVar("B")


@dataclass(frozen=True)
class Findings:
    """Of a validation. score: the higher the better, None if the newest weights count as the best; sheet: RGB."""

    text: str
    figures: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None
    sheet: np.ndarray | None = None


class NotFiniteError(Exception):
    """A loss or gradient is NaN or infinite; nothing was learned from the batch."""

    def __init__(self, number: int, items: Sequence[str], processes: Sequence[int]) -> None:
        """number, items: of this process's batch; processes: those that have found it."""
        super().__init__(number)
        self.number, self.items, self.processes = number, items, processes


class Learner(ABC, Generic[B]):
    """Networks, their optimizers, their batches by number, and the step that they have reached."""

    config: Any  # a dataclass; a continued training says what has changed in it
    device: torch.device
    processes: Processes
    optimizer: torch.optim.Optimizer  # whose rate is reported
    samples_per_step: int  # in each process
    step: int = 0  # done so far

    @abstractmethod
    def describe(self) -> str:
        """For the first line of a training."""

    @abstractmethod
    def batches(self) -> Iterator[Sequence[tuple[int, B]]]:
        """What this process still has to learn from: for each step one or more batches with their numbers."""

    @abstractmethod
    def update(self, parts: Sequence[tuple[int, B]], spent: float) -> dict[str, Tensor]:
        """One step; gives this process's loss terms.

        spent: share of the training's budget. Raises NotFiniteError in all processes at once.
        """

    @abstractmethod
    def validate(self) -> Findings | None:
        """In the first process. None: there is nothing to validate on."""

    @abstractmethod
    def is_sound(self) -> bool:
        """All weights are finite."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that continuing needs besides the step; randomness follows batch numbers, so no generators."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Raises RuntimeError, ValueError or KeyError for the state of another network."""

    def description(self) -> dict[str, Any]:
        """Plain values that tell whose weights a checkpoint holds."""
        return {}

    def best_weights(self) -> Mapping[str, Tensor] | None:
        """What to keep as best.pt after a validation, if anything."""
        return None

    def write_networks(self, directory: Path) -> None:
        """What to leave beside each checkpoint, if anything."""


class NetworkLearner(Learner[B]):
    """One network and one optimizer; gradients and running statistics are averaged over the processes."""

    network: nn.Module
    clip_norm: float | None = None

    @abstractmethod
    def batch(self, number: int) -> B: ...

    @abstractmethod
    def item_names(self, batch: B) -> Sequence[str]:
        """What the batch is made of, for messages."""

    @abstractmethod
    def losses(self, batch: B, number: int) -> dict[str, Tensor]:
        """The terms to report, among them "total", which is minimised."""

    @abstractmethod
    def rate(self, spent: float) -> float:
        """Learning rate of the next step."""

    def after_step(self) -> None:
        """Once the weights have changed."""

    def batches(self) -> Iterator[Sequence[tuple[int, B]]]:
        for step in itertools.count(self.step):
            number = step * self.processes.count + self.processes.index
            yield [(number, self.batch(number))]

    def update(self, parts: Sequence[tuple[int, B]], spent: float) -> dict[str, Tensor]:
        ((number, batch),) = parts
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(spent)
        before = [buffer.clone() for buffer in self.network.buffers()]  # running statistics
        terms = self.losses(batch, number)
        self.optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()
        parameters = [parameter for parameter in self.network.parameters() if parameter.grad is not None]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        is_finite = torch.stack([terms["total"].detach(), *torch._foreach_norm(gradients)]).isfinite().all()
        bad = self.processes.which(not is_finite, self.device)
        if bad:
            for buffer, value in zip(self.network.buffers(), before, strict=True):
                buffer.copy_(value)
            raise NotFiniteError(number, self.item_names(batch), bad)
        self.processes.average(gradients)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        self.optimizer.step()
        self.processes.average([buffer for buffer in self.network.buffers() if buffer.is_floating_point()])
        self.after_step()
        self.step += 1
        return {name: term.detach() for name, term in terms.items()}

    def is_sound(self) -> bool:
        return all_finite(self.network)

    def state(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
