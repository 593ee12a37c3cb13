"""Train the mini pack's VAE on preprocessed face crops, in one process.

    python -m scripts.mini_pack.train_vae DATA_DIR --output_dir pretrained_models/mini/vae \
        --work_dir work/vae --steps 6000 --validation clip_a clip_b

AutoencoderKL of diffusers, factor 4, sixteen latent channels, few channels at full resolution, which takes most time.
Training images are 128-px crops, mostly of the lower face, and stage 3's other inputs: depth images and crops with a
black half. An interrupted training resumes from --work_dir by the same command and gives the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from models.layers.group_norm import use_contiguous_group_norm
from utils.core.cli import DeviceOptions, run
from utils.core.config import Count, Whole
from utils.core.errors import BadInput
from utils.core.options import Options, field_names, option, parse_options
from utils.data.clips import STORED_SIZE, Clip, clip_names, open_clips
from utils.files.atomic import require_writable
from utils.training.learner import Findings, NetworkLearner, float32_accelerator
from utils.training.optimization import MovingAverage
from utils.training.training_loop import Intervals, TrainingLoop
from utils.weights.checkpoints import half_precision, save_weights

if TYPE_CHECKING:
    from accelerate import Accelerator

CROP_SIZE = 128  # pixels, training crop
CROP_SIDES = (112, 216)  # range of a training crop's side, pixels of the stored 256-px face
LEARNING_RATE = 1e-3
WARMUP_STEPS = 100
KL_WEIGHT = 1e-6  # times the KL summed over a crop's latent, as in latent diffusion
GRADIENT_WEIGHT = 1.0
EMA_DECAY = 0.99
DEPTH_SHARE, BLACK_HALF_SHARE = 0.1, 0.15
REPORT_STEPS = 100
IMAGE_SIZE = 192  # pixels, for the latents' scale and the PSNR
N_MEASURED = 64  # frames for latent scale and PSNR
BATCH_MEASURED = 8


@dataclass(frozen=True, kw_only=True)
class VaeConfig(Options):
    """What a resumed training keeps."""

    channels: tuple[Count, ...] = option((16, 32, 64), help="widths, full resolution first")
    latent_channels: Count = option(16, help="channels of the latents")
    batch_size: Count = option(8, help="crops per step")
    seed: Whole = option(0, help="random seed of weights and crops (default: 0)")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(VaeConfig, DeviceOptions):
    """A VAE, its training data and the length of its training."""

    data_dir: Path = option(positional=True, help="folder written by preprocess_dataset.py")
    output_dir: Path = option(help="diffusers folder to write")
    work_dir: Path = option(help="folder of last.pt, for resuming")
    steps: int | None = option(None, help="number of steps")
    minutes: float | None = option(None, help="wall-clock limit; the earlier of both ends the training")
    validation: tuple[str, ...] = option((), help="clips kept out of training")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is None and self.minutes is None:
            raise BadInput("length of the training missing", advice="give --steps or --minutes")

    @property
    def config(self) -> VaeConfig:
        return VaeConfig(**{name: getattr(self, name) for name in field_names(VaeConfig)})


class Crops(NamedTuple):
    """images: float32 [B, 3, 128, 128] in [-1, 1]; names: of the clips that they show."""

    images: Tensor
    names: list[str]


def build_vae(channels: Sequence[int], latent_channels: int) -> nn.Module:
    from diffusers import AutoencoderKL

    n_levels = len(channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * n_levels,
        up_block_types=("UpDecoderBlock2D",) * n_levels,
        block_out_channels=tuple(channels),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=IMAGE_SIZE,
    )


def sample_batch(clips: list[Clip], batch_size: int, rng: np.random.Generator) -> Crops:
    """Augmented crops of faces, depth images and half-black faces."""
    weights = np.sqrt([clip.valid.sum() for clip in clips])  # long clips more often, but not in proportion
    chosen = rng.choice(len(clips), batch_size, p=weights / weights.sum())
    crops = np.stack([sample_crop(clips[index], rng) for index in chosen])
    images = torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    return Crops(images, [clips[index].name for index in chosen])


def sample_crop(clip: Clip, rng: np.random.Generator) -> np.ndarray:
    """float32 [128, 128, 3] in [-1, 1]."""
    frame = int(rng.choice(np.flatnonzero(clip.valid)))
    kind = rng.random()
    shows_depth = kind < DEPTH_SHARE
    image = np.repeat(clip.depths[frame][..., None], 3, axis=2) if shows_depth else clip.faces[frame]
    if kind < DEPTH_SHARE / 2:
        image = blackened(image, upper=True)
    elif not shows_depth and kind < DEPTH_SHARE + BLACK_HALF_SHARE:
        image = blackened(image, upper=False)
    side = int(rng.integers(*CROP_SIDES))
    free = STORED_SIZE - side
    left = int(rng.integers(free + 1))
    top = round(free * rng.beta(2.0, 1.0))  # denser towards the chin
    crop = cv2.resize(image[top : top + side, left : left + side], (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    crop = crop.astype(np.float32) / 127.5 - 1
    if shows_depth:
        return crop
    gain, offset = rng.uniform(0.85, 1.15, 3), rng.uniform(-0.1, 0.1)
    bright = ((crop + 1) * (gain * 0.3 + gain.mean() * 0.7) - 1 + offset).astype(np.float32)
    return np.where(crop == -1, crop, bright).clip(-1, 1)  # black stays black


def blackened(image: np.ndarray, upper: bool) -> np.ndarray:
    image, half = image.copy(), STORED_SIZE // 2
    image[:half] *= not upper
    image[half:] *= upper
    return image


def reconstruction_loss(vae: nn.Module, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """L1 + gradient L1 (the first value, for the log) and its sum with the weighted KL (the second)."""
    posterior = vae.encode(images).latent_dist
    predicted = vae.decode(posterior.sample(generator)).sample.float()
    difference = predicted - images
    loss = difference.abs().mean()
    for axis in (2, 3):
        loss = loss + GRADIENT_WEIGHT * difference.diff(dim=axis).abs().mean()
    return loss.detach(), loss + KL_WEIGHT * posterior.kl().float().mean()


def learning_rate(step: int, spent: float) -> float:
    return LEARNING_RATE * min(1.0, (step + 1) / WARMUP_STEPS) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * spent)))


@torch.no_grad()
def validate(vae: nn.Module, images: Tensor, dtype: torch.dtype) -> tuple[float, float]:
    """PSNR of the lower half in dB (mean over images) and standard deviation of the latent means."""
    ratios, latents = [], []
    for batch in images.split(BATCH_MEASURED):
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            means = vae.encode(batch).latent_dist.mode()
            decoded = vae.decode(means).sample.float().clamp(-1, 1)
        error = (decoded - batch)[:, :, IMAGE_SIZE // 2 :].square().mean(dim=(1, 2, 3)) / 4
        ratios.append(-10 * error.log10())
        latents.append(means.float().flatten())
    return torch.cat(ratios).mean().item(), torch.cat(latents).std().item()


def measured_frames(clips: list[Clip], device: torch.device) -> Tensor:
    """Frames spread evenly over the clips, float32 [n, 3, 192, 192] in [-1, 1]."""
    n_each = max(1, N_MEASURED // len(clips))
    images = []
    for clip in clips:
        usable = np.flatnonzero(clip.valid)
        for frame in usable[np.linspace(0, len(usable) - 1, n_each).astype(int)]:
            images.append(cv2.resize(clip.faces[int(frame)], (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_AREA))
    stacked = torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    return stacked.contiguous(memory_format=torch.channels_last)


class VaeLearner(NetworkLearner[Crops]):
    """Trains the VAE and its moving average; step k depends on seed and k alone."""

    clip_norm = 1.0

    def __init__(self, config: VaeConfig, clips: list[Clip], held_out: Tensor, accelerator: Accelerator) -> None:
        """held_out: validation images."""
        torch.manual_seed(config.seed)
        self.config, self.clips, self.held_out = config, clips, held_out
        self.accelerator, self.samples_per_step = accelerator, config.batch_size
        network = build_vae(config.channels, config.latent_channels)
        network.to(self.device, memory_format=torch.channels_last)
        use_contiguous_group_norm(network)
        self.average = MovingAverage(network, EMA_DECAY)
        parameters = network.parameters()
        self.prepare(network, torch.optim.AdamW(parameters, LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-4))
        self.dtype = torch.bfloat16 if self.device.type in ("cpu", "cuda") else torch.float32

    def describe(self) -> str:
        return f"VAE of {self.config.latent_channels} latent channels: {len(self.clips)} clips to train on"

    def batch(self, number: int) -> Crops:
        return sample_batch(self.clips, self.samples_per_step, np.random.default_rng([self.config.seed, number]))

    def item_names(self, batch: Crops) -> list[str]:
        return batch.names

    def losses(self, batch: Crops, number: int) -> dict[str, Tensor]:
        generator = torch.Generator(self.device).manual_seed(self.config.seed + number)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            image_loss, loss = reconstruction_loss(self.network, batch.images.to(self.device), generator)
        return {"total": loss, "image": image_loss}

    def rate(self, spent: float) -> float:
        return learning_rate(self.step, spent)

    def after_step(self) -> None:
        self.average.update(self.network, self.step)

    def validate(self) -> Findings:
        ratio, _ = validate(self.average.module, self.held_out, self.dtype)
        return Findings(f"lower half PSNR {ratio:.2f} dB", {"psnr": ratio})

    def state(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        return {"vae": self.network, "average": self.average.module, "optimizer": self.optimizer}


def export(learner: VaeLearner, output_dir: Path) -> None:
    """Write the averaged network as a diffusers folder, fp16, with the scale that makes latents of unit variance.

    config.json is written last and marks the folder as complete.
    """
    vae = learner.average.module
    _, deviation = validate(vae, measured_frames(learner.clips, learner.device), learner.dtype)
    vae.register_to_config(scaling_factor=round(1 / deviation, 5))
    save_weights(output_dir / "diffusion_pytorch_model.safetensors", half_precision(vae.state_dict()))
    vae.save_config(output_dir)


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(TrainingOptions, "Train the mini pack's VAE on preprocessed face crops.", arguments)
    require_writable(options.work_dir)
    require_writable(options.output_dir)
    names = [name for name in clip_names(options.data_dir) if name not in options.validation]
    clips = open_clips(options.data_dir, names, in_memory=True)
    accelerator = float32_accelerator(options.gpu_id)
    held_out = measured_frames(open_clips(options.data_dir, options.validation) or clips, accelerator.device)
    learner = VaeLearner(options.config, clips, held_out, accelerator)
    intervals = Intervals(options.steps, REPORT_STEPS, REPORT_STEPS, REPORT_STEPS, options.minutes)
    TrainingLoop(learner, options.work_dir, intervals, partial(print, flush=True)).run()
    export(learner, options.output_dir)
    print(f"wrote {options.output_dir}: held-out {learner.validate().text} after {learner.step} steps")


if __name__ == "__main__":
    run(main)
