"""The loop of the trainings of stage 1: steps, reports, validations, checkpoints, exact resumption.

Batch k depends on the seed and k only. Process p of n takes batches p, n + p, 2 n + p, ...; gradients are averaged.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from utils.atomic import atomic_path
from utils.checkpoints import read_weights, save_checkpoint
from utils.errors import BadInput, StageFailure
from utils.processes import Processes
from utils.training import all_finite, peak_memory, writing
from utils.training_log import TrainingLog

LAST_NAME, BEST_NAME, BAD_BATCH_NAME = "last.pt", "best.pt", "bad_batch.json"
GIBIBYTE = 2**30
N_NAMED_ITEMS = 3

B = TypeVar("B")


@dataclass(frozen=True)
class Intervals:
    max_steps: int
    report: int
    validation: int
    checkpoint: int


class Learner(ABC, Generic[B]):
    """What a loop trains: a network, its optimizer, its batches by number."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device
    batch_size: int  # samples
    clip_norm: float | None = None

    @abstractmethod
    def batch(self, number: int) -> B: ...

    @abstractmethod
    def item_names(self, batch: B) -> Sequence[str]:
        """What the batch is made of, for messages."""

    @abstractmethod
    def losses(self, batch: B, number: int, step: int) -> dict[str, Tensor]:
        """The terms to report, among them "total", which is minimised."""

    @abstractmethod
    def rate(self, step: int) -> float:
        """Learning rate."""

    @abstractmethod
    def validate(self, say: Callable[[str], None]) -> tuple[float | None, dict[str, float]]:
        """A score, the higher the better (None: nothing to validate on), and figures for the log."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Plain values that tell whose weights a checkpoint holds."""

    @abstractmethod
    def best_weights(self) -> Mapping[str, Tensor]:
        """Those that are validated and exported."""

    def after_step(self) -> None:
        """Once the weights have changed."""

    def state(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])


class TrainingLoop(Generic[B]):
    """Trains to max_steps, from <directory>/last.pt if there is one; the first process alone writes."""

    def __init__(
        self,
        learner: Learner[B],
        directory: Path,
        intervals: Intervals,
        say: Callable[[str], None],
        processes: Processes | None = None,
    ) -> None:
        """say: prints a line, in the first process."""
        self.learner, self.directory, self.intervals, self.say = learner, directory, intervals, say
        self.processes = processes or Processes()
        self.step, self.best = 0, float("-inf")

    def run(self) -> None:
        """Raises StageFailure if a loss or gradient is not finite, or a file cannot be written."""
        self._restore()
        self.say(f"training from step {self.step} to {self.intervals.max_steps}")
        log = TrainingLog(self.directory, self.step) if self.processes.is_first else None
        sums: dict[str, float] = {}
        busy, n_steps = 0.0, 0
        while self.step < self.intervals.max_steps:
            started = time.monotonic()
            for name, value in self._train_step().items():
                sums[name] = sums.get(name, 0.0) + value
            busy, n_steps = busy + time.monotonic() - started, n_steps + 1
            if self._is_time(self.intervals.report):
                self._report(log, {name: value / n_steps for name, value in sums.items()}, n_steps / busy)
                sums, busy, n_steps = {}, 0.0, 0
            if self._is_time(self.intervals.validation):
                self._validate(log)
            if self._is_time(self.intervals.checkpoint):
                self._save()  # last: a run that is killed before does the rest again
        if log is not None:
            log.close()

    def _is_time(self, interval: int) -> bool:
        return self.step % interval == 0 or self.step == self.intervals.max_steps

    def _train_step(self) -> dict[str, float]:
        """One optimizer step; gives the loss terms."""
        learner, processes = self.learner, self.processes
        number = self.step * processes.count + processes.index
        batch = learner.batch(number)
        for group in learner.optimizer.param_groups:
            group["lr"] = learner.rate(self.step)
        before = [buffer.clone() for buffer in learner.network.buffers()]  # running statistics
        terms = learner.losses(batch, number, self.step)
        learner.optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()
        parameters = [parameter for parameter in learner.network.parameters() if parameter.grad is not None]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        is_finite = torch.stack([terms["total"].detach(), *torch._foreach_norm(gradients)]).isfinite().all()
        bad = processes.which(not is_finite, learner.device)
        if bad:
            for buffer, value in zip(learner.network.buffers(), before, strict=True):
                buffer.copy_(value)
            raise self._stopped(bad, number, learner.item_names(batch))
        processes.average(gradients)
        if learner.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, learner.clip_norm)
        learner.optimizer.step()
        processes.average([buffer for buffer in learner.network.buffers() if buffer.is_floating_point()])
        learner.after_step()
        self.step += 1
        return {name: term.item() for name, term in terms.items()}

    def _stopped(self, bad: list[int], number: int, names: Sequence[str]) -> StageFailure:
        """Write which batch it was, and keep the state before it if that is sound."""
        path = self.directory / BAD_BATCH_NAME
        if self.processes.index == bad[0]:
            record = {"step": self.step, "batch": number, "items": list(names)}
            with writing(path), atomic_path(path) as temporary:
                temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        is_sound = all_finite(self.learner.network)
        if is_sound:
            self._save()
        self.processes.wait()
        items = ", ".join(names[:N_NAMED_ITEMS]) + (", ..." if len(names) > N_NAMED_ITEMS else "")
        kept = "holds the state before it" if is_sound else "is as it was, because the weights are not finite"
        where = f"loss or gradient is not finite at step {self.step}, batch {number} ({items})"
        advice = "lower the learning rate, or take the batch's clips out"
        return StageFailure(f"{where}; {LAST_NAME} {kept}, {path} names the batch; {advice}")

    def _report(self, log: TrainingLog | None, losses: dict[str, float], steps_per_s: float) -> None:
        """The first process's losses and memory, the speed of all."""
        if log is None:
            return
        pace = steps_per_s * self.processes.count * self.learner.batch_size
        memory = peak_memory(self.learner.device) / GIBIBYTE
        rate = self.learner.rate(self.step - 1)
        log.report("train", self.step, losses | {"lr": rate, "samples_per_s": pace, "memory_gib": memory})
        terms = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
        self.say(f"step {self.step}  {terms}  {pace:.1f} samples/s  peak {memory:.2f} GiB")

    def _validate(self, log: TrainingLog | None) -> None:
        """Keep the network if it was never better; without anything to validate on, the newest."""
        if log is None:
            return
        self.say(f"validation at step {self.step}")
        score, figures = self.learner.validate(self.say)
        if score is not None:
            log.report("validation", self.step, {"score": score, **figures})
        if score is None or score > self.best:
            self.best = self.best if score is None else score
            content = {"network": dict(self.learner.best_weights()), "step": self.step, "score": self.best}
            with writing(self.directory / BEST_NAME):
                save_checkpoint(self.directory / BEST_NAME, content)

    def _save(self) -> None:
        if not self.processes.is_first:
            return
        state = {"description": self.learner.description(), "step": self.step, "best": self.best}
        with writing(self.directory / LAST_NAME):
            save_checkpoint(self.directory / LAST_NAME, state | self.learner.state())

    def _restore(self) -> None:
        path = self.directory / LAST_NAME
        if not path.is_file():
            return
        state = read_weights(path)
        expected, found = self.learner.description(), state.get("description", {})
        if found != expected:
            differ = sorted(key for key in {*expected, *found} if expected.get(key) != found.get(key))
            what = f"other {', '.join(differ)}"
            advice = "choose another output_dir, or delete this one"
            raise BadInput("checkpoint of another network", path, "the config's network", what, advice)
        self.learner.load_state(state)
        self.step, self.best = state["step"], state["best"]
