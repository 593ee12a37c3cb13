"""The config of a stage-3 training, and what is built from it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from models.audio.whisper_encoder import LOG_MEL_PADDING, EncoderDims, WhisperEncoder, log_mel_spectrogram
from models.generation.generator import Generator
from models.generation.latent_codec import LatentCodec
from models.generation.refiner import Refiner, RefinerConfig
from models.layers.model_config import read_model_config
from models.training.discriminators import Discriminators
from models.training.generator_training_model import GeneratorTrainingModel
from utils.core.cli import resolve_dtype
from utils.core.config import Amount, Count, Decay, Seed, Whole
from utils.core.errors import BadInput
from utils.data.augment import NO_AUGMENTATION
from utils.data.clips import open_clips
from utils.data.dataset import DatasetConfig, TrainingBatches, split_clips
from utils.data.segments import SegmentSource
from utils.training.losses import LossWeights
from utils.training.optimization import OptimizerConfig
from utils.training.training_loop import Intervals

if TYPE_CHECKING:
    from accelerate import Accelerator

VALIDATION_SEED = 1_000_003
MANY_WEIGHTS = 100_000_000
MIN_SYNC_FRAMES = 2  # decoded frames of a clip that its sounds are told apart by


@dataclass(frozen=True)
class DiscriminatorConfig:
    """How the networks behind loss.adversarial and loss.sync learn; they are made only if those weights are not 0."""

    lr: Amount = 1e-4  # constant
    betas: tuple[Decay, Decay] = (0.5, 0.99)
    start: Whole = 0  # steps that the discriminators learn before the generator heeds them


@dataclass(frozen=True)
class GeneratorTrainingConfig:
    vae_path: Path
    unet_config_file: Path
    checkpoint_dir: Path
    dataset: DatasetConfig
    opti: OptimizerConfig
    unet_resume_file: Path | None = None  # weights to start from
    whisper_model_path: Path | None = None  # audio encoder to start from, or to use as it is
    audio_encoder: EncoderDims | None = None  # or the sizes of a new one
    train_audio_encoder: bool = False
    refiner: RefinerConfig | None = None  # sizes of a new refiner; null: none, or the one to start from
    refiner_resume_dir: Path | None = None  # refiner to start from
    # last: only the UNet's last block and output; auto: last where all its weights and their gradients are too many;
    # none: the refiner alone learns
    trained_blocks: Literal["all", "last", "auto", "none"] = "all"
    loss: LossWeights = field(default_factory=LossWeights)
    critics: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    decode_batch: Count | None = None  # items of a batch whose images are decoded for the loss; null: all
    sample_posterior: bool = False  # draw latents from the VAE's posterior, as upstream does, instead of its mean
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None  # null: what accelerate's config says
    # auto: bfloat16 where the hardware multiplies it, else float32; float16 only with mixed_precision fp16, whose
    # scaled loss keeps the gradients of its decoder from vanishing
    vae_precision: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    gradient_checkpointing: bool = False  # compute the UNet's and the decoder's states again for their gradients
    compile: bool = False  # torch.compile the UNet
    compile_backend: str = "inductor"
    seed: Seed = 0
    tensorboard: bool | None = None  # write its event files; null: if it is installed
    console_log_interval: Count = 2  # steps
    checkpoint_save_interval: Count = 5000
    checkpoint_validation_interval: Count = 5000
    validation_batches: Whole = 4
    export_half: bool = False  # write fp16 weights

    @property
    def intervals(self) -> Intervals:
        report, opti = self.console_log_interval, self.opti
        validation, checkpoint = self.checkpoint_validation_interval, self.checkpoint_save_interval
        return Intervals(opti.max_steps, report, validation, checkpoint, opti.max_minutes)


def build_accelerator(config: GeneratorTrainingConfig) -> Accelerator:
    """Raises BadInput for what the machine or the number of processes does not allow."""
    from accelerate import Accelerator

    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.opti.gradient_accumulation_steps,
    )
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise BadInput("mixed_precision fp16 needs a GPU", None, "bf16 or no", "fp16 on a CPU")
    if config.opti.max_minutes is not None and accelerator.num_processes > 1:
        raise BadInput("opti.max_minutes is for one process", expected="null", advice="set opti.max_steps instead")
    return accelerator


def build_codec(config: GeneratorTrainingConfig, accelerator: Accelerator) -> LatentCodec:
    device = accelerator.device
    if config.vae_precision == "float16" and accelerator.mixed_precision != "fp16":
        found = f"float16 with mixed_precision {accelerator.mixed_precision}"
        raise BadInput("vae_precision cannot be used", None, "auto, float32 or bfloat16", found)
    dtype = gradient_dtype(device) if config.vae_precision == "auto" else getattr(torch, config.vae_precision)
    codec = LatentCodec.load(config.vae_path, device, dtype)
    if config.gradient_checkpointing:
        codec.vae.enable_gradient_checkpointing()
    return codec


def gradient_dtype(device: torch.device) -> torch.dtype:
    """The fastest number format whose range also holds gradients: bfloat16 where the hardware has it."""
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    return resolve_dtype(device)


def build_model(config: GeneratorTrainingConfig) -> GeneratorTrainingModel:
    generator = Generator.create(read_model_config(config.unet_config_file), config.seed)
    if config.unet_resume_file:
        generator.load_unet(config.unet_resume_file)
    if (config.whisper_model_path is None) == (config.audio_encoder is None):
        raise BadInput("audio encoder not clear", expected="either whisper_model_path or audio_encoder")
    if config.whisper_model_path:
        audio_encoder = WhisperEncoder.load(config.whisper_model_path)
    else:
        audio_encoder = WhisperEncoder.create(config.audio_encoder, config.seed)  # type: ignore[arg-type]
    choose_trained_blocks(config, generator)
    return GeneratorTrainingModel(generator, audio_encoder, config.train_audio_encoder, build_refiner(config))


def build_refiner(config: GeneratorTrainingConfig) -> Refiner | None:
    """None if the config asks for none. Raises BadInput if the dataset does not give what it needs."""
    if config.refiner is not None and config.refiner_resume_dir is not None:
        raise BadInput("refiner not clear", expected="either refiner or refiner_resume_dir")
    if config.refiner_resume_dir is not None:
        refiner = Refiner.load(config.refiner_resume_dir)
    elif config.refiner is not None:
        refiner = Refiner.create(config.refiner, config.seed)
    else:
        return None
    size, dataset = refiner.config.size, config.dataset
    if dataset.picture_size != size or dataset.reference != "composed":
        expected = f"dataset.fine_size={size} and dataset.reference=composed"
        raise BadInput("refiner without its pictures", None, expected, f"{dataset.picture_size}, {dataset.reference}")
    return refiner


def choose_trained_blocks(config: GeneratorTrainingConfig, generator: Generator) -> None:
    """Freeze what is not to learn."""
    n_weights = sum(parameter.numel() for parameter in generator.parameters())
    if config.trained_blocks == "all" or (config.trained_blocks == "auto" and n_weights < MANY_WEIGHTS):
        return
    unet: Any = generator.unet
    unet.requires_grad_(False)
    if config.trained_blocks == "none":
        return
    for part in (unet.up_blocks[-1], unet.conv_norm_out, unet.conv_out):
        part.requires_grad_(True)


def speed_up(config: GeneratorTrainingConfig, model: GeneratorTrainingModel) -> None:
    """Apply the switches that change time and memory, but not the result."""
    unet: Any = model.generator.unet
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if config.compile:
        compiler = os.environ.get("CXX", "g++")
        if config.compile_backend == "inductor" and shutil.which(compiler) is None:
            advice = "install it, name another in CXX, or set compile=false"
            raise BadInput("torch.compile needs a C++ compiler", None, compiler, "nothing", advice)
        unet.compile(backend=config.compile_backend)


def build_discriminators(config: GeneratorTrainingConfig, mixed_precision: str, n_mels: int) -> Discriminators | None:
    """None if the config asks for none."""
    loss, dataset = config.loss, config.dataset
    if not loss.adversarial and not loss.sync:
        return None
    if mixed_precision == "fp16":  # whose one loss scale would serve two optimisers
        raise BadInput("loss.adversarial and loss.sync", None, "mixed_precision bf16 or no", "fp16")
    n_clips = dataset.batch_size // dataset.frames_per_clip
    n_decoded = (config.decode_batch or dataset.batch_size) // n_clips
    if loss.sync and min(n_decoded, dataset.frames_per_clip) < MIN_SYNC_FRAMES:
        expected = f"dataset.frames_per_clip of {MIN_SYNC_FRAMES} or more, all of them or as many decoded"
        raise BadInput("loss.sync tells the frames of a clip apart", None, expected, f"{n_decoded} decoded of each")
    return Discriminators(n_mels, bool(loss.adversarial), bool(loss.sync), config.seed)


def build_data(
    config: GeneratorTrainingConfig, encoder: WhisperEncoder, n_processes: int
) -> tuple[TrainingBatches, TrainingBatches | None]:
    """All batches of the training, and those of the held-out clips, if there are any."""
    sound = sound_source(encoder, config.train_audio_encoder)
    names, held_out = split_clips(config.dataset)
    clips = open_clips(config.dataset.root_dir, names, config.dataset.in_memory)
    n_batches = config.opti.max_steps * config.opti.gradient_accumulation_steps * n_processes
    training = TrainingBatches(clips, config.dataset, sound, n_batches, config.seed)
    if not held_out:
        return training, None
    plain = replace(config.dataset, augment=NO_AUGMENTATION)
    clips = open_clips(config.dataset.root_dir, held_out, config.dataset.in_memory)
    return training, TrainingBatches(clips, plain, sound, config.validation_batches, VALIDATION_SEED)


def sound_source(encoder: WhisperEncoder, random_offset: bool) -> SegmentSource:
    """Segments of sound as this encoder takes them; see SegmentSource for ``random_offset``."""
    dims = encoder.dims

    def log_mel(wave: Float[np.ndarray, " n"]) -> Float[Tensor, "c t"]:
        return log_mel_spectrogram(wave, dims.n_mels)

    return SegmentSource(log_mel, dims.n_mels, dims.n_audio_ctx, LOG_MEL_PADDING, random_offset)
