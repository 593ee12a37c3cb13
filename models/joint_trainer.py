"""A training of stage 3 from start to end: batches in, checkpoints, log and validation sheets out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from torch import Tensor

from models.joint_learner import Learner, NotFiniteError, Numbered
from models.joint_setup import JoyGenConfig, build_data
from models.joint_validation import validate
from utils.atomic import atomic_path
from utils.batch_loader import numbered_batches
from utils.checkpoints import read_weights, save_checkpoint
from utils.config import to_dict
from utils.errors import BadInput, StageFailure
from utils.image_files import write_rgb
from utils.training import Budget, all_finite, peak_memory, writing
from utils.training_log import TrainingLog

if TYPE_CHECKING:
    from accelerate import Accelerator

LAST_NAME = "last.pt"
BAD_BATCH_NAME = "bad_batch.json"
N_NAMED_ITEMS = 3
GIBIBYTE = 2**30


class Trainer:
    """The loop of one process among ``accelerator.num_processes``; the main one writes.

    Process p of n takes batches p, n + p, 2 n + p, ...
    """

    def __init__(self, config: JoyGenConfig, accelerator: Accelerator, say: Callable[[str], None]) -> None:
        """say: prints a line, in the main process."""
        self.config, self.accelerator, self.say = config, accelerator, say
        self.learner = Learner(config, accelerator)
        encoder = self.learner.plain_model.audio_encoder
        self.training, self.validation = build_data(config, encoder, accelerator.num_processes)
        self.budget = Budget(config.opti.max_steps, config.opti.max_minutes)
        self.seconds = 0.0

    @property
    def step(self) -> int:
        return self.learner.step

    @property
    def last_path(self) -> Path:
        return self.config.checkpoint_dir / LAST_NAME

    def train(self) -> None:
        """To the end of the budget. Raises StageFailure if a loss is not finite or a file cannot be written."""
        config, log = self.config, self._open_log()
        self.say(f"training {self._sizes()}, from step {self.step}")
        batches, last_time = self.batches(), time.monotonic()
        busy, n_steps = 0.0, 0  # since the last report
        while (spent := self.budget.spent(self.step, self.seconds)) < 1:
            started = time.monotonic()
            losses = self._update(batches, spent)
            busy, n_steps = busy + time.monotonic() - started, n_steps + 1
            if self.step % config.console_log_interval == 0:
                self._report(log, losses, n_steps / busy)
                busy, n_steps = 0.0, 0
            if self.step % config.checkpoint_validation_interval == 0:
                self.validate(log)
            now = time.monotonic()
            self.seconds, last_time = self.seconds + now - last_time, now
            if self.step % config.checkpoint_save_interval == 0:
                self.export(config.checkpoint_dir / f"step_{self.step:08d}")
                self.save()  # last: a run that is killed before does the rest again
        if self.step % config.checkpoint_validation_interval:
            self.validate(log)
        self.export(config.checkpoint_dir / "final")
        self.save()
        if log is not None:
            log.close()
        self.say(f"wrote {config.checkpoint_dir / 'final'} after {self.step} steps, {self.seconds / 60:.1f} min")

    def _sizes(self) -> str:
        n_processes, n_micro = self.accelerator.num_processes, self.config.opti.gradient_accumulation_steps
        batch = n_processes * n_micro * self.config.dataset.batch_size
        processes = "1 process" if n_processes == 1 else f"{n_processes} processes"
        precision = f"mixed precision {self.accelerator.mixed_precision}, VAE {self.learner.codec.dtype}"
        return f"in {processes} on {self.accelerator.device.type}, {batch} samples per step, {precision}"

    def batches(self) -> Iterator[Numbered]:
        """The batches of this process that are still to come."""
        index, n_processes = self.accelerator.process_index, self.accelerator.num_processes
        first = self.step * self.config.opti.gradient_accumulation_steps * n_processes
        return numbered_batches(self.training, first, index, n_processes, self.config.dataset.num_workers)

    def _update(self, batches: Iterator[Numbered], spent: float) -> dict[str, Tensor]:
        parts = [next(batches) for _ in range(self.config.opti.gradient_accumulation_steps)]
        try:
            return self.learner.update(parts, spent)
        except NotFiniteError as error:
            raise self._stopped(error) from error

    def _stopped(self, error: NotFiniteError) -> StageFailure:
        """Write which batch it was, and keep the state before it if that is sound."""
        path, names = self.config.checkpoint_dir / BAD_BATCH_NAME, error.batch.names
        if self.accelerator.process_index == error.processes[0]:
            record = {"step": self.step, "batch": error.number, "items": list(names)}
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(record, indent=2) + "\n")
        is_sound = all_finite(self.learner.plain_model)
        if is_sound:
            self.save()
        self.accelerator.wait_for_everyone()
        items = ", ".join(names[:N_NAMED_ITEMS]) + (", ..." if len(names) > N_NAMED_ITEMS else "")
        kept = "holds the state before it" if is_sound else "is as it was, because the weights are not finite"
        advice = "lower opti.lr, or take the batch's clips out"
        where = f"loss is not finite at step {self.step}, batch {error.number} ({items})"
        return StageFailure(f"{where}; {LAST_NAME} {kept}, {path} names the batch; {advice}")

    def _open_log(self) -> TrainingLog | None:
        if not self.accelerator.is_main_process:
            return None
        for leftover in self.config.checkpoint_dir.glob(".partial-*"):  # of a run that was killed while it wrote
            with suppress(OSError):
                leftover.unlink()
        return TrainingLog(self.config.checkpoint_dir, self.step, self.config.tensorboard)

    def _report(self, log: TrainingLog | None, losses: dict[str, Tensor], steps_per_s: float) -> None:
        """Mean losses of all processes, their joint speed, and the main process's memory."""
        figures = self.learner.mean_of_processes(losses)
        n_batches = self.config.opti.gradient_accumulation_steps * self.accelerator.num_processes
        pace = steps_per_s * n_batches * self.config.dataset.batch_size
        memory = peak_memory(self.accelerator.device) / GIBIBYTE
        if log is not None:
            rate = self.learner.optimizer.param_groups[0]["lr"]
            log.report("train", self.step, figures | {"lr": rate, "samples_per_s": pace, "memory_gib": memory})
        spent = self.budget.spent(self.step, self.seconds)
        text = " ".join(f"{name} {value:.4f}" for name, value in figures.items())
        self.say(f"step {self.step} ({100 * spent:.0f} %) {text}  {pace:.2f} samples/s  peak {memory:.2f} GiB")

    def validate(self, log: TrainingLog | None = None) -> None:
        """Say how well held-out clips are drawn, and write a sheet of them."""
        if self.validation is None or not self.accelerator.is_main_process:
            return
        learner, stride = self.learner, self.config.dataset.frames_per_clip
        model = learner.best_model.eval()
        found = validate(model, learner.codec, self.validation, stride, self.accelerator.autocast)
        learner.plain_model.train()
        write_rgb(self.config.checkpoint_dir / f"validation_{self.step:08d}.png", found.sheet)
        if log is not None:
            figures = {"psnr": found.psnr, "reference_psnr": found.reference_psnr, "l1": found.l1}
            log.report("validation", self.step, figures)
        self.say(
            f"validation at step {self.step}: lower half PSNR {found.psnr:.2f} dB "
            f"(the reference's own mouth {found.reference_psnr:.2f} dB), L1 {found.l1:.4f}"
        )

    def save(self) -> None:
        """Write everything that continuing needs."""
        if self.accelerator.is_main_process:
            config = yaml.safe_dump(to_dict(self.config))
            with writing(self.last_path):
                save_checkpoint(self.last_path, {"config": config, "seconds": self.seconds} | self.learner.state())

    def resume(self) -> None:
        """Continue where the last run in this folder stopped, if there was one."""
        if not self.last_path.is_file():
            return
        state = read_weights(self.last_path)
        try:
            self.learner.load_state(state)
            self.seconds, config = state["seconds"], yaml.safe_load(state["config"])
        except (RuntimeError, ValueError, KeyError) as error:
            advice = "choose another checkpoint_dir, or the config it was started with"
            raise BadInput("training of another network", self.last_path, advice=advice) from error
        changed = changed_keys(config, to_dict(self.config))
        self.say(f"continuing after step {self.step}" + (f", with other {', '.join(changed)}" if changed else ""))

    def export(self, directory: Path) -> None:
        if self.accelerator.is_main_process:
            with writing(directory):
                self.learner.best_model.export(directory, self.config.export_half)


def changed_keys(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the config values that differ."""
    changed = []
    for key in new:
        before, after = old.get(key), new[key]
        if isinstance(before, dict) and isinstance(after, dict):
            changed += changed_keys(before, after, f"{prefix}{key}.")
        elif before != after:
            changed.append(prefix + key)
    return changed
