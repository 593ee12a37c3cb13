"""Config of generator training (stage 3), and the parts built from it."""

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

from models.audio.speech_encoder import SpeechEncoder
from models.audio.whisper_encoder import LOG_MEL_PADDING, EncoderDims, WhisperEncoder, log_mel_spectrogram
from models.generation.generator import Generator
from models.generation.latent_codec import LatentCodec
from models.generation.refiner import Refiner, RefinerConfig
from models.layers.model_config import read_model_config
from models.training.discriminators import Discriminators
from models.training.generator_training_model import GeneratorTrainingModel
from utils.core.cli import resolve_dtype
from utils.core.config import Amount, Count, Decay, Positive, Seed, Share, Whole
from utils.core.errors import BadInput
from utils.data.augment import NO_AUGMENTATION
from utils.data.clips import open_clips
from utils.data.dataset import DatasetConfig, TrainingBatches, split_clips
from utils.data.segments import SegmentSource
from utils.data.sound_states import StateSource
from utils.training.losses import LossWeights
from utils.training.training_loop import Intervals
from utils.weights.speech_wheel import N_POSITIONS

if TYPE_CHECKING:
    from accelerate import Accelerator

VALIDATION_SEED = 1_000_003
SEGMENTS = EncoderDims(n_audio_ctx=N_POSITIONS)  # of the sound segments beside the speech encoder's states
MANY_WEIGHTS = 100_000_000
MIN_SYNC_FRAMES = 2  # decoded frames per clip that the sync discriminator compares


@dataclass(frozen=True)
class GeneratorOptimizerConfig:
    """AdamW with cosine_rate."""

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
class DiscriminatorConfig:
    """Training of the discriminators of loss.adversarial and loss.sync, built if those weights are above 0."""

    lr: Amount = 1e-4  # constant
    betas: tuple[Decay, Decay] = (0.5, 0.99)
    start: Whole = 0  # steps that the discriminators train before their losses count for the generator


@dataclass(frozen=True)
class GeneratorTrainingConfig:
    vae_path: Path
    unet_config_file: Path
    checkpoint_dir: Path
    dataset: DatasetConfig
    opti: GeneratorOptimizerConfig
    unet_resume_file: Path | None = None  # initial weights
    # audio encoder: initial weights, or frozen; or the sizes of a new one; null and null: the speech encoder, frozen
    whisper_model_path: Path | None = None
    audio_encoder: EncoderDims | None = None
    train_audio_encoder: bool = False
    refiner: RefinerConfig | None = None  # sizes of a new refiner; null: none, or refiner_resume_dir
    refiner_resume_dir: Path | None = None  # initial refiner
    # all: the whole UNet; last: its last block and output; auto: last for UNets of 100 million weights or more;
    # none: the refiner only
    trained_blocks: Literal["all", "last", "auto", "none"] = "all"
    loss: LossWeights = field(default_factory=LossWeights)
    critics: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    decode_batch: Count | None = None  # items per batch that are decoded for the image losses; null: all
    sample_posterior: bool = False  # sample latents from the VAE's posterior, as upstream, instead of its mean
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None  # null: accelerate's setting
    # auto: bfloat16 where the hardware supports it, else float32; float16 only with mixed_precision fp16, whose
    # scaled loss keeps the decoder's gradients from underflowing
    vae_precision: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    gradient_checkpointing: bool = False  # recompute activations of UNet and VAE decoder in the backward pass
    compile: bool = False  # torch.compile the UNet
    compile_backend: str = "inductor"
    seed: Seed = 0
    tensorboard: bool | None = None  # write event files; null: if TensorBoard is installed
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
    """Raises BadInput for a precision or a time limit that the machine or the number of processes does not allow."""
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
    """bfloat16 where the hardware supports it, else float32: fast, with a range that holds gradients."""
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    return resolve_dtype(device)


def build_model(config: GeneratorTrainingConfig) -> GeneratorTrainingModel:
    generator = Generator.create(read_model_config(config.unet_config_file), config.seed)
    if config.unet_resume_file:
        generator.load_unet(config.unet_resume_file)
    choose_trained_blocks(config, generator)
    encoder = build_audio_encoder(config)
    return GeneratorTrainingModel(generator, encoder, config.train_audio_encoder, build_refiner(config))


def build_audio_encoder(config: GeneratorTrainingConfig) -> WhisperEncoder | None:
    """None for the speech encoder, whose states the batches bring."""
    if config.whisper_model_path is not None and config.audio_encoder is not None:
        raise BadInput("audio encoder not clear", expected="either whisper_model_path or audio_encoder")
    if config.whisper_model_path is not None:
        return WhisperEncoder.load(config.whisper_model_path)
    if config.audio_encoder is not None:
        return WhisperEncoder.create(config.audio_encoder, config.seed)
    if config.train_audio_encoder:
        raise BadInput("train_audio_encoder without an encoder", expected="whisper_model_path or audio_encoder")
    return None


def build_refiner(config: GeneratorTrainingConfig) -> Refiner | None:
    """None if the config has none. Raises BadInput if the dataset's pictures do not fit it."""
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
    """Freeze the UNet's blocks that config.trained_blocks leaves out."""
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
    """Apply gradient checkpointing and compilation, which change time and memory, not the result."""
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
    """None if both of their losses are off."""
    loss, dataset = config.loss, config.dataset
    if not loss.adversarial and not loss.sync:
        return None
    if mixed_precision == "fp16":  # whose one loss scale would serve two optimisers
        raise BadInput("loss.adversarial and loss.sync", None, "mixed_precision bf16 or no", "fp16")
    n_clips = dataset.batch_size // dataset.frames_per_clip
    n_decoded = (config.decode_batch or dataset.batch_size) // n_clips
    if loss.sync and min(n_decoded, dataset.frames_per_clip) < MIN_SYNC_FRAMES:
        expected = f"dataset.frames_per_clip of {MIN_SYNC_FRAMES} or more, all of them or as many decoded"
        raise BadInput("loss.sync compares the frames of a clip", None, expected, f"{n_decoded} decoded of each")
    return Discriminators(n_mels, bool(loss.adversarial), bool(loss.sync), config.seed)


def build_data(
    config: GeneratorTrainingConfig, encoder: WhisperEncoder | None, n_processes: int
) -> tuple[TrainingBatches, TrainingBatches | None]:
    """Batches of the training, and of the held-out clips if there are any."""
    sound, states = sound_sources(encoder, config.train_audio_encoder)
    names, held_out = split_clips(config.dataset)
    clips = open_clips(config.dataset.root_dir, names, config.dataset.in_memory)
    n_batches = config.opti.max_steps * config.opti.gradient_accumulation_steps * n_processes
    training = TrainingBatches(clips, config.dataset, sound, n_batches, config.seed, states)
    if not held_out or not config.validation_batches:
        return training, None
    plain = replace(config.dataset, augment=NO_AUGMENTATION)
    clips = open_clips(config.dataset.root_dir, held_out, config.dataset.in_memory)
    return training, TrainingBatches(clips, plain, sound, config.validation_batches, VALIDATION_SEED, states)


def sound_dims(encoder: WhisperEncoder | None) -> EncoderDims:
    """Sizes of the sound segments."""
    return SEGMENTS if encoder is None else encoder.dims


def sound_sources(encoder: WhisperEncoder | None, random_offset: bool) -> tuple[SegmentSource, StateSource | None]:
    """Sound segments of this encoder's input length; without one, the states of the speech encoder too.

    random_offset: see SegmentSource.
    """
    dims = sound_dims(encoder)

    def log_mel(wave: Float[np.ndarray, " n"]) -> Float[Tensor, "c t"]:
        return log_mel_spectrogram(wave, dims.n_mels)

    segments = SegmentSource(log_mel, dims.n_mels, dims.n_audio_ctx, LOG_MEL_PADDING, random_offset)
    if encoder is not None:
        return segments, None
    speech = SpeechEncoder.load()

    def encode(wave: Float[np.ndarray, " n"]) -> Float[Tensor, "t l d"]:
        return torch.cat(list(speech.encode_segments(wave)))

    return segments, StateSource(encode, speech.n_states, speech.width)
