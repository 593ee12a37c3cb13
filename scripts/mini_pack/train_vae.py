"""Train the mini pack's small VAE on preprocessed face crops.

    python -m scripts.mini_pack.train_vae DATA_DIR --output_dir pretrained_models/mini/vae \
        --work_dir work/vae --steps 6000 --validation clip_a clip_b

AutoencoderKL of diffusers, factor 4, sixteen latent channels, thin at full resolution, where the time goes. It sees
128-px crops biased to the lower face, and what stage 3 also encodes: depth images and crops with a black half.
Stopped at any moment, the same command continues from --work_dir and gives the same weights.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from models.group_norm import use_contiguous_group_norm
from utils.atomic import require_writable
from utils.checkpoints import half_precision, read_weights, save_checkpoint, save_weights
from utils.cli import resolve_device, run
from utils.clips import STORED_SIZE, Clip, clip_names, open_clips
from utils.errors import BadInput
from utils.training import RunningAverage

CROP_SIZE = 128  # pixels, training crop
CROP_SIDES = (112, 216)  # pixels of the stored 256-px face that a training crop spans
LEARNING_RATE = 1e-3
WARMUP_STEPS = 100
KL_WEIGHT = 1e-6  # times the KL summed over a crop's latent, as in latent diffusion
GRADIENT_WEIGHT = 1.0
EMA_DECAY = 0.99
DEPTH_SHARE, BLACK_HALF_SHARE = 0.1, 0.15
SAVE_SECONDS = 120
LOG_STEPS = 100
IMAGE_SIZE = 192  # pixels, where the latents' scale and the PSNR are measured
N_MEASURED = 64  # frames that latent scale and PSNR are measured on
BATCH_MEASURED = 8


@dataclass(frozen=True)
class Budget:
    """How long to train: a number of steps, or of minutes (then the result depends on the machine's speed)."""

    steps: int | None
    minutes: float | None

    def spent(self, step: int, seconds: float) -> float:
        """Share of the budget that is used, 0 to 1."""
        share = step / self.steps if self.steps else 0.0
        return min(1.0, max(share, seconds / (60 * self.minutes) if self.minutes else 0.0))


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", type=Path, help="what preprocess_dataset.py wrote")
    parser.add_argument("--output_dir", type=Path, required=True, help="diffusers folder to write at the end")
    parser.add_argument("--work_dir", type=Path, required=True, help="folder of last.pt, to continue from")
    parser.add_argument("--steps", type=int, help="length of the training")
    parser.add_argument("--minutes", type=float, help="or its wall-clock time; whichever is reached first")
    parser.add_argument("--validation", nargs="*", default=[], help="clips kept out of training")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 32, 64], help="widths, full resolution first")
    parser.add_argument("--latent_channels", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gpu_id", type=int, default=0, help="CUDA device if there is one; -1 forces the CPU")
    options = parser.parse_args(arguments)
    if options.steps is None and options.minutes is None:
        parser.error("give --steps or --minutes")
    return options


def build_vae(channels: list[int], latent_channels: int) -> nn.Module:
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


def sample_batch(clips: list[Clip], batch_size: int, rng: np.random.Generator) -> Tensor:
    """float32 [B, 3, 128, 128] in [-1, 1]: augmented crops of faces, depth images and half-black faces."""
    weights = np.sqrt([clip.valid.sum() for clip in clips])  # long clips more often, but not in proportion
    chosen = rng.choice(len(clips), batch_size, p=weights / weights.sum())
    crops = np.stack([sample_crop(clips[index], rng) for index in chosen])
    return torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


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


class Trainer:
    """Network, its running average and optimiser; saves and continues exactly."""

    def __init__(self, options: argparse.Namespace, device: torch.device) -> None:
        torch.manual_seed(options.seed)
        self.device, self.seed = device, options.seed
        self.vae = build_vae(options.channels, options.latent_channels)
        self.vae.to(device, memory_format=torch.channels_last)
        use_contiguous_group_norm(self.vae)
        self.average = RunningAverage(self.vae, EMA_DECAY)
        self.optimizer = torch.optim.AdamW(self.vae.parameters(), LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
        self.step, self.seconds = 0, 0.0
        self.checkpoint_path = options.work_dir / "last.pt"
        self.dtype = torch.bfloat16 if device.type in ("cpu", "cuda") else torch.float32

    def train_step(self, clips: list[Clip], batch_size: int, spent: float) -> float:
        """One step whose randomness depends on seed and step number only. Returns the image loss."""
        images = sample_batch(clips, batch_size, np.random.default_rng([self.seed, self.step])).to(self.device)
        generator = torch.Generator(self.device).manual_seed(self.seed + self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, spent)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            image_loss, loss = reconstruction_loss(self.vae, images, generator)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.vae.parameters(), 1.0)
        self.optimizer.step()
        self.average.update(self.vae, self.step)
        self.step += 1
        return image_loss.item()

    def save(self) -> None:
        state = {name: part.state_dict() for name, part in self._parts().items()}
        save_checkpoint(self.checkpoint_path, state | {"step": self.step, "seconds": self.seconds})

    def _parts(self) -> dict[str, Any]:
        return {"vae": self.vae, "average": self.average.module, "optimizer": self.optimizer}

    def resume(self) -> None:
        if not self.checkpoint_path.is_file():
            return
        state = read_weights(self.checkpoint_path)
        try:
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
        except (RuntimeError, KeyError) as error:
            advice = "choose another --work_dir, or the options it was started with"
            raise BadInput("training of another network", self.checkpoint_path, advice=advice) from error
        self.step, self.seconds = state["step"], state["seconds"]


def train(trainer: Trainer, clips: list[Clip], held_out: Tensor, batch_size: int, budget: Budget) -> None:
    last_time = last_save = time.monotonic()
    while (spent := budget.spent(trainer.step, trainer.seconds)) < 1:
        loss = trainer.train_step(clips, batch_size, spent)
        now = time.monotonic()
        trainer.seconds, last_time = trainer.seconds + now - last_time, now
        if trainer.step % LOG_STEPS == 0:
            ratio, _ = validate(trainer.average.module, held_out, trainer.dtype)
            pace = trainer.seconds / trainer.step
            print(
                f"step {trainer.step} {100 * spent:.0f}% loss {loss:.4f} PSNR {ratio:.2f} dB {pace:.2f} s/step",
                flush=True,
            )
        if now - last_save > SAVE_SECONDS:
            trainer.save()
            last_save = now
    trainer.save()


def export(trainer: Trainer, clips: list[Clip], output_dir: Path) -> None:
    """Write the averaged network as a diffusers folder, fp16, with the scale that makes latents of unit variance."""
    vae = trainer.average.module
    _, deviation = validate(vae, measured_frames(clips, trainer.device), trainer.dtype)
    vae.register_to_config(scaling_factor=round(1 / deviation, 5))
    vae.save_config(output_dir)
    save_weights(output_dir / "diffusion_pytorch_model.safetensors", half_precision(vae.state_dict()))


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    require_writable(options.work_dir)
    require_writable(options.output_dir)
    names = [name for name in clip_names(options.data_dir) if name not in options.validation]
    clips = open_clips(options.data_dir, names, in_memory=True)
    device = resolve_device(options.gpu_id)
    held_out = measured_frames(open_clips(options.data_dir, options.validation) or clips, device)
    trainer = Trainer(options, device)
    trainer.resume()
    train(trainer, clips, held_out, options.batch_size, Budget(options.steps, options.minutes))
    export(trainer, clips, options.output_dir)
    ratio, _ = validate(trainer.average.module, held_out, trainer.dtype)
    print(f"wrote {options.output_dir}: held-out PSNR of the lower half {ratio:.2f} dB after {trainer.step} steps")


if __name__ == "__main__":
    run(main)
