"""Train the generator (stage 3) on what preprocess_dataset.py wrote.

    accelerate launch --config_file config/accelerate_config.yaml train_joygen.py [--config FILE] [key=value ...]

Without --config the official size is trained (config/joygen.yaml); config/joygen_mini.yaml is the embedded pack.
Stopped at any moment, the same command continues from <checkpoint_dir>/last.pt.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import yaml

from models.generator import Generator
from models.joint_model import JointModel, joint_losses
from models.latent_codec import LatentCodec, hide_lower_half, read_model_config
from models.whisper_encoder import LOG_MEL_PADDING, EncoderDims, WhisperEncoder, log_mel_spectrogram
from utils.augment import NO_AUGMENTATION
from utils.checkpoints import read_weights, save_checkpoint
from utils.cli import run
from utils.clips import open_clips
from utils.config import load_config, to_dict
from utils.dataset import Batch, DatasetConfig, TrainingBatches, split_clips
from utils.errors import BadInput, StageFailure
from utils.images import to_bytes, to_signed
from utils.losses import GeneratorLosses, LossWeights, lower_half, lower_half_psnr
from utils.segments import SegmentSource
from utils.store import require_writable, write_rgb
from utils.training import Budget, OptimizerConfig, RunningAverage, cosine_rate

if TYPE_CHECKING:
    from accelerate import Accelerator

VALIDATION_SEED = 1_000_003
SHEET_COLUMNS = 12


@dataclass(frozen=True)
class JoyGenConfig:
    vae_path: Path
    unet_config_file: Path
    checkpoint_dir: Path
    dataset: DatasetConfig
    opti: OptimizerConfig
    unet_resume_file: Path | None = None  # weights to start from
    whisper_model_path: Path | None = None  # audio encoder to start from, or to use as it is
    audio_encoder: EncoderDims | None = None  # or the sizes of a new one
    train_audio_encoder: bool = False
    loss: LossWeights = field(default_factory=LossWeights)
    decode_batch: int | None = None  # items of a batch whose images are decoded for the loss; null: all
    sample_posterior: bool = False  # draw latents from the VAE's posterior, as upstream does, instead of its mean
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None  # null: what accelerate's config says
    vae_precision: Literal["float32", "bfloat16", "float16"] = "float32"
    seed: int = 0
    console_log_interval: int = 2  # steps
    checkpoint_save_interval: int = 5000
    checkpoint_validation_interval: int = 5000
    validation_batches: int = 4
    export_half: bool = False  # write fp16 weights


def main(arguments: list[str] | None = None) -> None:
    config = parse_config(arguments)
    require_writable(config.checkpoint_dir)
    trainer = Trainer(config, build_accelerator(config))
    trainer.resume()
    trainer.train()


def parse_config(arguments: list[str] | None) -> JoyGenConfig:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("config/joygen.yaml"))
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as opti.max_steps=20")
    options = parser.parse_intermixed_args(arguments)
    return load_config(JoyGenConfig, options.config, options.overrides)


def build_accelerator(config: JoyGenConfig) -> Accelerator:
    from accelerate import Accelerator

    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.opti.gradient_accumulation_steps,
    )
    if config.opti.max_minutes is not None and accelerator.num_processes > 1:
        raise BadInput("opti.max_minutes is for one process", expected="null", advice="set opti.max_steps instead")
    return accelerator


def build_model(config: JoyGenConfig) -> JointModel:
    generator = Generator.create(read_model_config(config.unet_config_file), config.seed)
    if config.unet_resume_file:
        generator.load_unet(config.unet_resume_file)
    if (config.whisper_model_path is None) == (config.audio_encoder is None):
        raise BadInput("audio encoder not clear", expected="either whisper_model_path or audio_encoder")
    if config.whisper_model_path:
        audio_encoder = WhisperEncoder.load(config.whisper_model_path)
    else:
        audio_encoder = WhisperEncoder.create(config.audio_encoder, config.seed)
    return JointModel(generator, audio_encoder, config.train_audio_encoder)


class Trainer:
    """Networks, data and optimiser of one training, and where it stands."""

    def __init__(self, config: JoyGenConfig, accelerator: Accelerator) -> None:
        self.config, self.accelerator, self.device = config, accelerator, accelerator.device
        self.codec = LatentCodec.load(config.vae_path, self.device, getattr(torch, config.vae_precision))
        model = build_model(config).to(memory_format=torch.channels_last).train()
        self.training, self.validation = self._build_data(model)
        self.average = RunningAverage(model.to(self.device), config.opti.ema_decay) if config.opti.use_ema else None
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            learned, config.opti.lr, betas=config.opti.betas, weight_decay=config.opti.weight_decay
        )
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.budget = Budget(config.opti.max_steps, config.opti.max_minutes)
        self.step, self.seconds = 0, 0.0

    def _build_data(self, model: JointModel) -> tuple[TrainingBatches, TrainingBatches | None]:
        config, dims = self.config, model.audio_encoder.dims

        def log_mel(wave):
            return log_mel_spectrogram(wave, dims.n_mels)

        sound = SegmentSource(log_mel, dims.n_mels, dims.n_audio_ctx, LOG_MEL_PADDING, config.train_audio_encoder)
        names, held_out = split_clips(config.dataset)
        clips = open_clips(config.dataset.root_dir, names, config.dataset.in_memory)
        n_batches = config.opti.max_steps * config.opti.gradient_accumulation_steps * self.accelerator.num_processes
        training = TrainingBatches(clips, config.dataset, sound, n_batches, config.seed)
        if not held_out:
            return training, None
        plain = replace(config.dataset, augment=NO_AUGMENTATION)
        clips = open_clips(config.dataset.root_dir, held_out, config.dataset.in_memory)
        return training, TrainingBatches(clips, plain, sound, config.validation_batches, VALIDATION_SEED)

    def train(self) -> None:
        started = last_time = time.monotonic()
        n_micro, first_step = self.config.opti.gradient_accumulation_steps, self.step
        loader = iter(self._loader())
        while (spent := self.budget.spent(self.step, self.seconds)) < 1:
            losses = self._optimizer_step([next(loader).to(self.device) for _ in range(n_micro)], spent)
            now = time.monotonic()
            self.seconds, last_time = self.seconds + now - last_time, now
            if self.step % self.config.console_log_interval == 0:
                pace = (now - started) / (self.step - first_step)
                self._print(f"step {self.step} ({100 * spent:.0f} %) {_losses_text(losses)} {pace:.2f} s/step")
            if self.step % self.config.checkpoint_validation_interval == 0:
                self.validate()
            if self.step % self.config.checkpoint_save_interval == 0:
                self.save()
                self.export(self.config.checkpoint_dir / f"step_{self.step:08d}")
        self.save()
        self.validate()
        self.export(self.config.checkpoint_dir / "final")
        self._print(
            f"wrote {self.config.checkpoint_dir / 'final'} after {self.step} steps, {self.seconds / 60:.1f} min"
        )

    def _loader(self) -> torch.utils.data.DataLoader:
        """The batches of this process that are still to come."""
        n_processes, n_micro = self.accelerator.num_processes, self.config.opti.gradient_accumulation_steps
        first = self.step * n_micro * n_processes + self.accelerator.process_index
        order = range(first, len(self.training), n_processes)
        return torch.utils.data.DataLoader(
            self.training, batch_size=None, sampler=order, num_workers=self.config.dataset.num_workers
        )

    def _optimizer_step(self, batches: list[Batch], spent: float) -> GeneratorLosses:
        """One update from one or more accumulated batches; returns the losses of the last."""
        opti = self.config.opti
        for group in self.optimizer.param_groups:
            group["lr"] = cosine_rate(self.step, spent, opti.lr, opti.min_lr, opti.warmup_steps)
        for batch in batches:
            with self.accelerator.accumulate(self.model):
                losses = self._losses(batch)
                if not torch.isfinite(losses.total):
                    raise StageFailure(f"loss is not finite at step {self.step}, batch {', '.join(batch.names)}")
                self.accelerator.backward(losses.total)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), opti.max_grad_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
        if self.average:
            self.average.update(self.accelerator.unwrap_model(self.model), self.step)
        self.step += 1
        return losses

    def _losses(self, batch: Batch) -> GeneratorLosses:
        config = self.config
        return joint_losses(self.model, self.codec, batch, config.loss, config.decode_batch, self._latent_generator())

    def _latent_generator(self) -> torch.Generator | None:
        if not self.config.sample_posterior:
            return None
        seed = (self.config.seed * self.config.opti.max_steps + self.step) * self.accelerator.num_processes
        return torch.Generator(self.device).manual_seed(seed + self.accelerator.process_index)

    @property
    def best_model(self) -> JointModel:
        return self.average.module if self.average else self.accelerator.unwrap_model(self.model)

    @torch.no_grad()
    def validate(self) -> None:
        """Print how well held-out clips are drawn, and write a sheet of them."""
        if self.validation is None or not self.accelerator.is_main_process:
            return
        model = self.best_model.eval()
        ratios, floors, distances, columns = [], [], [], []
        for index in range(len(self.validation)):
            batch = self.validation[index].to(self.device)
            inputs = self.codec.generator_input(batch.targets, batch.references, batch.depths)
            with self.accelerator.autocast():
                latents = model(inputs, batch.log_mel, batch.rows, batch.has_audio)
            images, targets = self.codec.decode(latents.float()), to_signed(batch.targets)
            ratios.append(lower_half_psnr(images, targets))
            floors.append(lower_half_psnr(to_signed(batch.references), targets))
            distances.append(lower_half(images - targets).abs().mean())
            columns.append(validation_columns(batch, images, self.config.dataset.frames_per_clip))
        write_rgb(
            self.config.checkpoint_dir / f"validation_{self.step:08d}.png",
            torch.cat(columns, dim=1)[:, :SHEET_COLUMNS]
            .permute(0, 3, 1, 4, 2)
            .flatten(2, 3)
            .flatten(0, 1)
            .cpu()
            .numpy(),
        )
        self._print(
            f"validation at step {self.step}: lower half PSNR {torch.cat(ratios).mean():.2f} dB "
            f"(the reference's own mouth {torch.cat(floors).mean():.2f} dB), L1 {torch.stack(distances).mean():.4f}"
        )
        self.accelerator.unwrap_model(self.model).train()

    def save(self) -> None:
        """Write everything that continuing needs."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "config": yaml.safe_dump(to_dict(self.config)),
            "model": self.accelerator.unwrap_model(self.model).state_dict(),
            "average": self.average.module.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        save_checkpoint(self.config.checkpoint_dir / "last.pt", state)

    def resume(self) -> None:
        """Continue where the last run in this folder stopped, if there was one."""
        path = self.config.checkpoint_dir / "last.pt"
        if not path.is_file():
            return
        state = read_weights(path)
        try:
            self.accelerator.unwrap_model(self.model).load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average:
                self.average.module.load_state_dict(state["average"] or state["model"])
        except (RuntimeError, ValueError, KeyError) as error:
            advice = "choose another checkpoint_dir, or the config it was started with"
            raise BadInput("training of another network", path, advice=advice) from error
        self.step, self.seconds = state["step"], state["seconds"]
        self._print(f"continuing after step {self.step}")

    def export(self, directory: Path) -> None:
        if self.accelerator.is_main_process:
            self.best_model.export(directory, self.config.export_half)

    def _print(self, text: str) -> None:
        if self.accelerator.is_main_process:
            print(text, flush=True)


def validation_columns(batch: Batch, images: torch.Tensor, stride: int) -> torch.Tensor:
    """uint8 [5, n, 3, h, w]: reference, masked, target, prediction and depth of the first frame of every clip."""
    targets = to_signed(batch.targets)
    rows = (
        batch.references,
        to_bytes(hide_lower_half(targets)),
        batch.targets,
        to_bytes(images),
        batch.depths.expand(-1, 3, -1, -1),
    )
    return torch.stack([row[::stride] for row in rows])


def _losses_text(losses: GeneratorLosses) -> str:
    return " ".join(f"{name} {value.item():.4f}" for name, value in vars(losses).items())


if __name__ == "__main__":
    run(main)
