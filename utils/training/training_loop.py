"""The training loop: steps, reports, validations, checkpoints, exact resumption, early stopping.

Batch k depends on the seed and k only. Process p of n takes batches p, n + p, 2 n + p, ...; gradients are averaged.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
import yaml
from safetensors import SafetensorError
from torch import Tensor

from utils.core.config import changed_keys, to_dict
from utils.core.errors import BadInput, StageFailure
from utils.files.atomic import PARTIAL, atomic_path
from utils.files.image_files import write_rgb
from utils.training.learner import Learner, NotFiniteError
from utils.training.training_log import TrainingLog
from utils.weights.checkpoints import read_weights, save_checkpoint

LAST_NAME, BEST_NAME, BAD_BATCH_NAME = "last.pt", "best.pt", "bad_batch.json"
GIBIBYTE = 2**30
N_NAMED_ITEMS = 3

B = TypeVar("B")


@dataclass(frozen=True)
class Intervals:
    """In steps. A training ends with a report, a validation and a checkpoint.

    max_minutes: limit of wall-clock time, besides or instead of max_steps. patience: steps without a better score
    after which a training of one process ends; the initial weights are validated too.
    """

    max_steps: int | None
    report: int
    validation: int
    checkpoint: int
    max_minutes: float | None = None
    patience: int | None = None


@dataclass(frozen=True)
class Budget:
    """Length of a training: steps or minutes, whichever ends first; at least one is given.

    With minutes the result depends on the machine's speed.
    """

    max_steps: int | None
    max_minutes: float | None = None

    def spent(self, step: int, seconds: float) -> float:
        """Share of the budget used, 0 to 1."""
        share = step / self.max_steps if self.max_steps is not None else 0.0
        if self.max_minutes is not None:
            share = max(share, seconds / (60 * self.max_minutes))
        return min(1.0, share)


class TrainingLoop(Generic[B]):
    """Trains to the end of the budget, from <directory>/last.pt if it exists; only the first process writes."""

    def __init__(
        self,
        learner: Learner[B],
        directory: Path,
        intervals: Intervals,
        say: Callable[[str], None],
        tensorboard: bool | None = None,
    ) -> None:
        """say: prints a line; called in the first process only. tensorboard: see TrainingLog."""
        self.learner, self.directory, self.intervals, self._say = learner, directory, intervals, say
        self.accelerator, self.tensorboard = learner.accelerator, tensorboard
        self.budget = Budget(intervals.max_steps, intervals.max_minutes)
        self.seconds, self._last_time = 0.0, 0.0
        self.best, self.best_step = float("-inf"), 0

    def say(self, text: str) -> None:
        if self.accelerator.is_main_process:
            self._say(text)

    def run(self) -> None:
        """Raises StageFailure if a loss or gradient is not finite, or a file cannot be written."""
        self.restore()
        self.train()

    def train(self) -> None:
        learner, intervals, log = self.learner, self.intervals, self._open_log()
        self.say(learner.describe())
        until = f" to {intervals.max_steps}" if intervals.max_steps is not None else ""
        self.say(f"training {self._sizes()}, from step {learner.step}{until}")
        means, batches, self._last_time = _Means(), learner.batches(), time.monotonic()
        if intervals.patience is not None and learner.step == 0:
            self._validate(log)
        is_over = self._is_over()
        while not is_over:
            started = time.monotonic()
            losses = self.update(next(batches), self._spent())
            means.add(losses, time.monotonic() - started)
            self._count_time()
            is_over = self._is_over()
            if is_over or learner.step % intervals.report == 0:
                self._report(log, means)
                means = _Means()
            if is_over or learner.step % intervals.validation == 0:
                self._validate(log)
                is_over = is_over or self._is_over()
            if is_over or learner.step % intervals.checkpoint == 0:
                self._keep()  # last, so that a run killed before it repeats report and validation
        if log is not None:
            log.close()

    def update(self, parts: Sequence[tuple[int, B]], spent: float) -> dict[str, Tensor]:
        """One step from numbered batches; spent: share of the budget."""
        try:
            return self.learner.update(parts, spent)
        except NotFiniteError as error:
            raise self._stopped(error) from error

    def save(self) -> None:
        """Write last.pt, the state for resuming."""
        if not self.accelerator.is_main_process:
            return
        learner = self.learner
        state = {"config": yaml.safe_dump(to_dict(learner.config)), "description": learner.description()}
        state |= {"step": learner.step, "seconds": self.seconds, "best": self.best, "best_step": self.best_step}
        with writing(self.directory / LAST_NAME):
            save_checkpoint(self.directory / LAST_NAME, state | learner.state())

    def restore(self) -> None:
        """Load last.pt if it exists; raises BadInput if it is another network's."""
        path, learner = self.directory / LAST_NAME, self.learner
        if not path.is_file():
            return
        state = read_weights(path)
        what, advice = "training of another network", "choose another output folder, or the config it was started with"
        expected, found = learner.description(), state.get("description", {})
        if found != expected:
            differ = sorted(key for key in {*expected, *found} if expected.get(key) != found.get(key))
            raise BadInput(what, path, "the config's network", f"other {', '.join(differ)}", advice)
        try:
            learner.load_state(state)
            learner.step = state["step"]
        except (RuntimeError, ValueError, KeyError) as error:
            raise BadInput(what, path, advice=advice) from error
        self.seconds, self.best = state.get("seconds", 0.0), state.get("best", self.best)
        self.best_step = state.get("best_step", learner.step)
        before = yaml.safe_load(state["config"]) if "config" in state else None
        changed = changed_keys(before, to_dict(learner.config)) if before else []
        self.say(f"continuing after step {learner.step}" + (f", with other {', '.join(changed)}" if changed else ""))

    def _spent(self) -> float:
        return self.budget.spent(self.learner.step, self.seconds)

    def _is_over(self) -> bool:
        patience = self.intervals.patience
        return self._spent() >= 1 or (patience is not None and self.learner.step >= self.best_step + patience)

    def _count_time(self) -> None:
        now = time.monotonic()
        self.seconds, self._last_time = self.seconds + now - self._last_time, now

    def _sizes(self) -> str:
        n_processes, n_samples = (
            self.accelerator.num_processes,
            self.accelerator.num_processes * self.learner.samples_per_step,
        )
        processes = "1 process" if n_processes == 1 else f"{n_processes} processes"
        return f"in {processes} on {self.learner.device.type}, {n_samples} samples per step"

    def _open_log(self) -> TrainingLog | None:
        if not self.accelerator.is_main_process:
            return None
        for leftover in self.directory.glob(f"{PARTIAL}*"):  # of a run that was killed while writing
            with suppress(OSError):
                leftover.unlink()
        return TrainingLog(self.directory, self.learner.step, self.tensorboard)

    def _stopped(self, error: NotFiniteError) -> StageFailure:
        """Write the batch's number and items, and the state before it if its weights are finite.

        A gradient is averaged before the check, so it is not finite in all processes; the first one's batch is named.
        """
        path, names = self.directory / BAD_BATCH_NAME, error.items
        if self.accelerator.process_index == error.processes[0]:
            record = {"step": self.learner.step, "batch": error.number, "items": list(names)}
            with writing(path), atomic_path(path) as temporary:
                temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        is_sound = self.learner.is_sound()
        if is_sound:
            self.save()
        self.accelerator.wait_for_everyone()
        items = ", ".join(names[:N_NAMED_ITEMS]) + (", ..." if len(names) > N_NAMED_ITEMS else "")
        kept = "holds the state before it" if is_sound else "is as it was, because the weights are not finite"
        where = f"loss or gradient is not finite at step {self.learner.step}, batch {error.number} ({items})"
        advice = "lower the learning rate, or take the batch's clips out"
        return StageFailure(f"{where}; {LAST_NAME} {kept}, {path} names the batch; {advice}")

    def _report(self, log: TrainingLog | None, means: _Means) -> None:
        """Losses and speed of all processes, memory of the first. Must be called in all of them."""
        values = self.accelerator.reduce(means.losses(), "mean")
        if log is None:
            return
        losses = dict(zip(means.names(), values.tolist(), strict=True))
        pace = means.steps_per_s() * self.accelerator.num_processes * self.learner.samples_per_step
        memory = peak_memory(self.learner.device) / GIBIBYTE
        rate = self.learner.optimizer.param_groups[0]["lr"]
        log.report("train", self.learner.step, losses | {"lr": rate, "samples_per_s": pace, "memory_gib": memory})
        terms = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
        share = f"step {self.learner.step} ({100 * self._spent():.0f} %)"
        self.say(f"{share}  {terms}  {pace:.2f} samples/s  peak {memory:.2f} GiB")

    def _validate(self, log: TrainingLog | None) -> None:
        """Validate, and keep the weights as best.pt if the score is the best; without a score the newest are kept."""
        if log is None:
            return
        step, found = self.learner.step, self.learner.validate()
        score = found.score if found is not None else None
        if found is not None:
            self.say(f"validation at step {step}: {found.text}")
            log.report("validation", step, ({} if score is None else {"score": score}) | dict(found.figures))
            if found.sheet is not None:
                path = self.directory / f"validation_{step:08d}.png"
                with writing(path), atomic_path(path) as temporary:
                    write_rgb(temporary, found.sheet)
        if score is None or score > self.best:
            self.best, self.best_step = self.best if score is None else score, step
            self._keep_best(self.learner.best_weights())

    def _keep_best(self, weights: Mapping[str, Tensor] | None) -> None:
        if weights is not None:
            content: dict[str, Any] = {"network": dict(weights), "step": self.best_step, "score": self.best}
            with writing(self.directory / BEST_NAME):
                save_checkpoint(self.directory / BEST_NAME, content)

    def _keep(self) -> None:
        self._count_time()
        if self.accelerator.is_main_process and self.learner.step % self.intervals.checkpoint == 0:
            self.learner.write_networks(self.directory)
        self.save()


class _Means:
    """Means of the loss terms since the last report, each over the steps that have it."""

    def __init__(self) -> None:
        self._terms: dict[str, list[Tensor]] = {}
        self._seconds, self._n_steps = 0.0, 0

    def add(self, losses: Mapping[str, Tensor], seconds: float) -> None:
        for name, value in losses.items():
            self._terms.setdefault(name, []).append(value)
        self._seconds, self._n_steps = self._seconds + seconds, self._n_steps + 1

    def names(self) -> list[str]:
        return list(self._terms)

    def losses(self) -> Tensor:
        return torch.stack([torch.stack(values).float().mean() for values in self._terms.values()])

    def steps_per_s(self) -> float:
        return self._n_steps / self._seconds


def peak_memory(device: torch.device) -> int:
    """Peak memory of this process in bytes, on the CUDA device or, for other devices, in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of writing, such as a full disk, into a one-line StageFailure; for files written atomically."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0][:160]
        kept = "the one before it is intact" if path.exists() else "nothing is left of it"
        raise StageFailure(f"cannot write {path}: {reason}; {kept}; check the free space and the disk") from error
