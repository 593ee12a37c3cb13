"""Learner of generator training (stage 3): networks, optimizers, batches, losses, validation and export."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from models.audio.whisper_encoder import WhisperEncoder
from models.training.discriminators import Discriminators
from models.training.generator_training_model import GeneratorTrainingModel, Prediction, lower_faces, predict
from models.training.generator_training_setup import (
    GeneratorTrainingConfig,
    build_codec,
    build_data,
    build_discriminators,
    build_model,
    sound_dims,
    speed_up,
)
from models.training.generator_training_validation import Validation, validate
from models.training.perceptual_loss import PerceptualLoss
from utils.data.dataset import Batch, TrainingBatches, numbered_batches
from utils.training.learner import Findings, Learner
from utils.training.losses import lower_half
from utils.training.optimization import MovingAverage, all_finite, batch_seed, cosine_rate
from utils.training.training_loop import writing

if TYPE_CHECKING:
    from accelerate import Accelerator

Numbered = tuple[int, Batch]
Data = tuple[TrainingBatches, TrainingBatches | None]  # for training, and of held-out clips


class GeneratorLearner(Learner[Batch]):
    """Trains generator and audio encoder with a frozen VAE, and discriminators if the config has any.

    A pass depends on the batch's number alone, so two processes and two accumulated batches give the same gradient.
    """

    def __init__(
        self,
        config: GeneratorTrainingConfig,
        accelerator: Accelerator,
        data: Callable[[WhisperEncoder | None], Data] | None = None,
    ) -> None:
        """data: makes the batches for the model's audio encoder, if it has one; None: those of the config."""
        self.config, self.accelerator = config, accelerator
        self.samples_per_step = config.opti.gradient_accumulation_steps * config.dataset.batch_size
        self.codec = build_codec(config, accelerator)
        self.perceptual = PerceptualLoss(self.device, self.codec.dtype) if config.loss.perceptual else None
        model = build_model(config)
        model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.average = MovingAverage(model.to(self.device), config.opti.ema_decay) if config.opti.use_ema else None
        speed_up(config, model)
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        opti = config.opti
        optimizer = torch.optim.AdamW(learned, lr=opti.lr, betas=opti.betas, weight_decay=opti.weight_decay)
        discriminators = build_discriminators(
            config, accelerator.mixed_precision, sound_dims(model.audio_encoder).n_mels
        )
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.discriminators: nn.Module | None = None
        if discriminators is not None:
            own = torch.optim.AdamW(discriminators.parameters(), lr=config.critics.lr, betas=config.critics.betas)
            self.discriminators, self.discriminator_optimizer = accelerator.prepare(discriminators.train(), own)
        encoder = self.plain_model.audio_encoder
        self.training, self.validation = (
            data(encoder) if data else build_data(config, encoder, self.accelerator.num_processes)
        )

    def describe(self) -> str:
        return f"generator with mixed precision {self.accelerator.mixed_precision}, VAE {self.codec.dtype}"

    @property
    def plain_model(self) -> GeneratorTrainingModel:
        return cast(GeneratorTrainingModel, self.accelerator.unwrap_model(self.model))

    @property
    def plain_discriminators(self) -> Discriminators:
        return cast(Discriminators, self.accelerator.unwrap_model(self.discriminators))

    @property
    def best_model(self) -> GeneratorTrainingModel:
        return cast(GeneratorTrainingModel, self.average.module) if self.average else self.plain_model

    def batches(self) -> Iterator[list[Numbered]]:
        """Per step, the batches whose gradients are accumulated."""
        n_parts, n_processes = self.config.opti.gradient_accumulation_steps, self.accelerator.num_processes
        first, n_workers = self.step * n_parts * n_processes, self.config.dataset.num_workers
        coming = numbered_batches(self.training, first, self.accelerator.process_index, n_processes, n_workers)
        while parts := list(itertools.islice(coming, n_parts)):
            yield parts

    def update(self, parts: Sequence[Numbered], spent: float) -> dict[str, Tensor]:
        """Returns the accumulated batches' mean losses."""
        opti = self.config.opti
        for group in self.optimizer.param_groups:
            group["lr"] = cosine_rate(self.step, spent, opti.lr, opti.min_lr, opti.warmup_steps)
        models = [self.model] if self.discriminators is None else [self.model, self.discriminators]
        means: dict[str, Tensor] = {}
        for number, batch in parts:
            with self.accelerator.accumulate(*models):
                for name, value in self._pass(number, batch.to(self.device)).items():
                    means[name] = means.get(name, 0) + value.detach() / len(parts)
        if self.average:
            self.average.update(self.plain_model, self.step)
        self.step += 1
        return means

    def _pass(self, number: int, batch: Batch) -> dict[str, Tensor]:
        """Forward and backward of one batch, and the update if it is the last of its step."""
        torch.manual_seed(batch_seed(self.config.seed, number))
        prediction = self.predict(number, batch)
        losses = self.losses(prediction, batch)
        self.require_finite(losses["total"], number, batch.names)
        self.accelerator.backward(losses["total"])
        norm = self._clip(self.model)
        if norm is not None:
            self.require_finite(norm, number, batch.names)
        self._take_step(self.optimizer)
        if self.discriminators is not None:
            real = lower_faces(prediction.fine_images, batch, prediction.decoded)
            generated = lower_faces(prediction.best_images.detach(), batch, prediction.decoded)
            own = self.discriminators(real, generated)
            self.accelerator.backward(torch.stack([*own.values()]).sum())
            self._clip(self.discriminators)
            self._take_step(self.discriminator_optimizer)
            losses |= own
        return losses

    def _clip(self, model: nn.Module) -> Tensor | None:
        """Gradient norm before clipping; None during accumulation, and with fp16, whose scaled loss may overflow."""
        if not self.accelerator.sync_gradients:
            return None
        norm = self.accelerator.clip_grad_norm_(model.parameters(), self.config.opti.max_grad_norm)
        return None if self.accelerator.scaler else norm

    def _take_step(self, optimizer: torch.optim.Optimizer) -> None:
        """accelerate skips both calls while gradients accumulate."""
        optimizer.step()
        optimizer.zero_grad()

    def predict(self, number: int, batch: Batch) -> Prediction:
        sampling = None
        if self.config.sample_posterior:
            sampling = torch.Generator(self.device).manual_seed(batch_seed(self.config.seed, number))
        return predict(self.model, self.codec, batch, self.config.decode_batch, sampling)

    def losses(self, prediction: Prediction, batch: Batch) -> dict[str, Tensor]:
        """The generator's losses by name, without weights, and their weighted ``total``."""
        weights = self.config.loss
        losses: dict[str, Tensor] = dict(vars(prediction.losses(weights)))
        extra: dict[str, Tensor] = {}
        if self.perceptual is not None:
            images, targets = lower_half(prediction.best_images), lower_half(prediction.fine_images)
            extra["perceptual"] = self.perceptual(images, targets)
        if self.discriminators is not None and self.step >= self.config.critics.start:
            extra |= self.plain_discriminators.judge(lower_faces(prediction.best_images, batch, prediction.decoded))
        for name, value in extra.items():
            losses["total"] = losses["total"] + getattr(weights, name) * value
        return losses | extra

    def validate(self) -> Findings | None:
        """Figures of the held-out clips, and a contact sheet with an item of each."""
        if self.validation is None:
            return None
        found = self.look(self.validation, self.config.dataset.frames_per_clip)
        floor = f"the reference's own mouth {found.reference_psnr:.2f} dB"
        text = f"lower half PSNR {found.psnr:.2f} dB ({floor}), L1 {found.l1:.4f}"
        figures = {"psnr": found.psnr, "reference_psnr": found.reference_psnr, "l1": found.l1}
        return Findings(text, figures, sheet=found.sheet)

    def look(self, batches: TrainingBatches, stride: int) -> Validation:
        """Validation of ``best_model`` on ``batches``; see generator_training_validation."""
        found = validate(self.best_model.eval(), self.codec, batches, stride, self.accelerator.autocast)
        self.plain_model.train()
        return found

    def write_networks(self, directory: Path) -> None:
        self.export(directory / f"step_{self.step:08d}")

    def export(self, directory: Path) -> None:
        """Write the folders that inference_joygen.py loads."""
        with writing(directory):
            self.best_model.export(directory, self.config.export_half)

    def is_sound(self) -> bool:
        return all_finite(self.plain_model) and (self.discriminators is None or all_finite(self.plain_discriminators))

    def state(self) -> dict[str, Any]:
        scaler = self.accelerator.scaler
        state = {
            "model": self.plain_model.state_dict(),
            "average": self.average.module.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
        }
        if self.discriminators is not None:
            state |= {
                "critics": self.plain_discriminators.state_dict(),
                "critic_optimizer": self.discriminator_optimizer.state_dict(),
            }
        return state

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.plain_model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.module.load_state_dict(state["average"] or state["model"])
        if self.accelerator.scaler and state.get("scaler"):
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.discriminators is not None and "critics" in state:  # else they start now
            self.plain_discriminators.load_state_dict(state["critics"])
            self.discriminator_optimizer.load_state_dict(state["critic_optimizer"])
