"""Learner: networks, optimizer and numbered batches, as the training loop drives them."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from utils.core.cli import resolve_device
from utils.training.optimization import all_finite

if TYPE_CHECKING:
    from accelerate import Accelerator

B = TypeVar("B")


@dataclass(frozen=True)
class Findings:
    """Result of a validation. score: higher is better, None: the newest weights are best; sheet: contact sheet, RGB."""

    text: str
    figures: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None
    sheet: np.ndarray | None = None


class NotFiniteError(Exception):
    """A loss or gradient is NaN or infinite; the weights are as before the batch."""

    def __init__(self, number: int, items: Sequence[str], processes: Sequence[int]) -> None:
        """number, items: of this process's batch; processes: indices of those that found it."""
        super().__init__(number)
        self.number, self.items, self.processes = number, items, processes


class Learner(ABC, Generic[B]):
    """Networks, their optimizers, their batches by number, and the step that they have reached."""

    config: Any  # a dataclass; a resumed training prints what has changed in it
    accelerator: Accelerator
    optimizer: torch.optim.Optimizer  # its learning rate is reported
    samples_per_step: int  # in each process
    step: int = 0  # done so far

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @abstractmethod
    def describe(self) -> str:
        """Text that a training prints first."""

    @abstractmethod
    def batches(self) -> Iterator[Sequence[tuple[int, B]]]:
        """This process's remaining batches: for each step one or more, with their numbers."""

    @abstractmethod
    def update(self, parts: Sequence[tuple[int, B]], spent: float) -> dict[str, Tensor]:
        """One step; returns this process's loss terms.

        spent: share of the training's budget. Raises NotFiniteError in all processes at once.
        """

    @abstractmethod
    def validate(self) -> Findings | None:
        """Called in the first process. None: there are no validation clips."""

    @abstractmethod
    def is_sound(self) -> bool:
        """All weights are finite."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """State for resuming, besides the step; randomness depends on batch numbers, so no generators."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Raises RuntimeError, ValueError or KeyError for the state of another network."""

    def description(self) -> dict[str, Any]:
        """Plain values that identify the network of a checkpoint."""
        return {}

    def best_weights(self) -> Mapping[str, Tensor] | None:
        """Weights for best.pt after a validation; None: no best.pt."""
        return None

    def write_networks(self, directory: Path) -> None:
        """Write exported networks beside a checkpoint, if the learner has any."""

    def require_finite(self, value: Tensor, number: int, items: Sequence[str]) -> None:
        """Raises NotFiniteError in all processes if ``value`` is not finite in one of them."""
        found = self.accelerator.gather((~torch.isfinite(value.detach())).reshape(1).float())
        bad = cast(Tensor, found).nonzero().flatten().tolist()
        if bad:
            raise NotFiniteError(number, items, bad)


def float32_accelerator(gpu_id: int) -> Accelerator:
    """For trainings in float32, whatever mixed_precision the launcher is told; see resolve_device for ``gpu_id``.

    Of several processes each has the CUDA device of its own number.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    device = resolve_device(gpu_id)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)  # a config may switch a network's parts off
    return Accelerator(mixed_precision="no", cpu=device.type == "cpu", kwargs_handlers=[unused])


class NetworkLearner(Learner[B]):
    """One network and one optimizer. accelerate averages gradients over the processes; running statistics are those of
    the first."""

    network: nn.Module
    clip_norm: float = math.inf

    def prepare(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Hand both to accelerate. ``model`` is called for losses; ``network`` is the same without its wrapper."""
        self.network = network
        self.model, self.optimizer = self.accelerator.prepare(network, optimizer)

    @abstractmethod
    def batch(self, number: int) -> B: ...

    @abstractmethod
    def item_names(self, batch: B) -> Sequence[str]:
        """Names of the batch's items, for messages."""

    @abstractmethod
    def losses(self, batch: B, number: int) -> dict[str, Tensor]:
        """The terms to report, among them "total", which is minimised."""

    @abstractmethod
    def rate(self, spent: float) -> float:
        """Learning rate of the next step."""

    def after_step(self) -> None:
        """Called after each update of the weights."""

    def batches(self) -> Iterator[Sequence[tuple[int, B]]]:
        for step in itertools.count(self.step):
            number = step * self.accelerator.num_processes + self.accelerator.process_index
            yield [(number, self.batch(number))]

    def update(self, parts: Sequence[tuple[int, B]], spent: float) -> dict[str, Tensor]:
        ((number, batch),) = parts
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(spent)
        before = [buffer.clone() for buffer in self.network.buffers()]  # running statistics
        terms = self.losses(batch, number)
        self.optimizer.zero_grad(set_to_none=True)
        try:
            self.require_finite(terms["total"], number, self.item_names(batch))
            self.accelerator.backward(terms["total"])
            norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.clip_norm)
            self.require_finite(cast(Tensor, norm), number, self.item_names(batch))
        except NotFiniteError:
            for buffer, value in zip(self.network.buffers(), before, strict=True):
                buffer.copy_(value)
            raise
        self.optimizer.step()
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
