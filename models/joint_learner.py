"""How stage 3 learns from a batch: networks, optimisers and the step they have reached. Opens and writes no file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from models.critics import Critics
from models.joint_model import JointModel, Prediction, lower_faces, predict
from models.joint_setup import JoyGenConfig, build_codec, build_critics, build_model, speed_up
from models.perceptual import feature_distance
from utils.dataset import Batch
from utils.losses import lower_half
from utils.training import RunningAverage, batch_seed, cosine_rate

if TYPE_CHECKING:
    from accelerate import Accelerator

Numbered = tuple[int, Batch]


class NotFiniteError(Exception):
    """A loss is NaN or infinite; nothing was learned from the batch."""

    def __init__(self, number: int, batch: Batch, processes: list[int]) -> None:
        """number, batch: what this process had; processes: those whose loss it was."""
        super().__init__(number)
        self.number, self.batch, self.processes = number, batch, processes


class Learner:
    """Generator and audio encoder, frozen VAE, and the critics if the config asks for any.

    What happens in a pass depends on the batch's number alone, so two processes, or two accumulated batches, give the
    mean gradient of the same two batches.
    """

    def __init__(self, config: JoyGenConfig, accelerator: Accelerator) -> None:
        self.config, self.accelerator = config, accelerator
        self.codec = build_codec(config, accelerator)
        model = build_model(config)
        model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.average = RunningAverage(model.to(self.device), config.opti.ema_decay) if config.opti.use_ema else None
        speed_up(config, model)
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        opti = config.opti
        optimizer = torch.optim.AdamW(learned, lr=opti.lr, betas=opti.betas, weight_decay=opti.weight_decay)
        critics = build_critics(config, accelerator.mixed_precision, model.audio_encoder.dims.n_mels)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.critics: nn.Module | None = None
        if critics is not None:
            own = torch.optim.AdamW(critics.parameters(), lr=config.critics.lr, betas=config.critics.betas)
            self.critics, self.critic_optimizer = accelerator.prepare(critics.train(), own)
        self.step = 0

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def plain_model(self) -> JointModel:
        return cast(JointModel, self.accelerator.unwrap_model(self.model))

    @property
    def plain_critics(self) -> Critics:
        return cast(Critics, self.accelerator.unwrap_model(self.critics))

    @property
    def best_model(self) -> JointModel:
        return cast(JointModel, self.average.module) if self.average else self.plain_model

    def update(self, batches: Sequence[Numbered], spent: float) -> dict[str, Tensor]:
        """One optimiser step from one or more accumulated batches; gives this process's mean losses.

        spent: share of the training's budget, for the learning rate. Raises NotFiniteError in all processes at once.
        """
        opti = self.config.opti
        for group in self.optimizer.param_groups:
            group["lr"] = cosine_rate(self.step, spent, opti.lr, opti.min_lr, opti.warmup_steps)
        models = [self.model] if self.critics is None else [self.model, self.critics]
        means: dict[str, Tensor] = {}
        for number, batch in batches:
            with self.accelerator.accumulate(*models):
                for name, value in self._pass(number, batch.to(self.device)).items():
                    means[name] = means.get(name, 0) + value.detach() / len(batches)
        if self.average:
            self.average.update(self.plain_model, self.step)
        self.step += 1
        return means

    def _pass(self, number: int, batch: Batch) -> dict[str, Tensor]:
        """Forward and backward of one batch, and the update if it is the last of its step."""
        torch.manual_seed(batch_seed(self.config.seed, number))
        prediction = self.predict(number, batch)
        losses = self.losses(prediction, batch)
        self._require_finite(losses["total"], number, batch)
        self._learn(self.model, self.optimizer, losses["total"])
        if self.critics is not None:
            real = lower_faces(prediction.fine_images, batch, prediction.decoded)
            drawn = lower_faces(prediction.best_images.detach(), batch, prediction.decoded)
            own = self.critics(real, drawn)
            self._learn(self.critics, self.critic_optimizer, torch.stack([*own.values()]).sum())
            losses |= own
        return losses

    def _learn(self, model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        self.accelerator.backward(loss)
        if self.accelerator.sync_gradients:
            self.accelerator.clip_grad_norm_(model.parameters(), self.config.opti.max_grad_norm)
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
        if weights.perceptual:
            images, targets = lower_half(prediction.best_images), lower_half(prediction.fine_images)
            extra["perceptual"] = feature_distance(self.codec, images, targets)
        if self.critics is not None and self.step >= self.config.critics.start:
            extra |= self.plain_critics.judge(lower_faces(prediction.best_images, batch, prediction.decoded))
        for name, value in extra.items():
            losses["total"] = losses["total"] + getattr(weights, name) * value
        return losses | extra

    def _require_finite(self, loss: Tensor, number: int, batch: Batch) -> None:
        """All processes hear of it, or they would wait for the one that stops."""
        found = torch.isfinite(loss.detach()).reshape(1)
        if self.accelerator.num_processes > 1:
            found = self.accelerator.gather(found)
        if not bool(found.all()):
            raise NotFiniteError(number, batch, [i for i, is_finite in enumerate(found.tolist()) if not is_finite])

    def mean_of_processes(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """Of the same losses in each; to be called in all."""
        values = torch.stack([value.float() for value in losses.values()])
        if self.accelerator.num_processes > 1:
            values = self.accelerator.reduce(values, "mean")
        return dict(zip(losses, values.tolist(), strict=True))

    def state(self) -> dict[str, Any]:
        """All that continuing needs; generators of random numbers are not among it, see batch_seed."""
        scaler = self.accelerator.scaler
        state = {
            "model": self.plain_model.state_dict(),
            "average": self.average.module.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
            "step": self.step,
        }
        if self.critics is not None:
            state |= {
                "critics": self.plain_critics.state_dict(),
                "critic_optimizer": self.critic_optimizer.state_dict(),
            }
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Raises RuntimeError, ValueError or KeyError for the state of another network."""
        self.plain_model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.module.load_state_dict(state["average"] or state["model"])
        if self.accelerator.scaler and state.get("scaler"):
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.critics is not None and "critics" in state:  # else they begin now
            self.plain_critics.load_state_dict(state["critics"])
            self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.step = state["step"]
