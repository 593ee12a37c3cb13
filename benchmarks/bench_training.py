"""Samples per second, memory and seconds per part of a training step of stage 3, and the data loader's rate.

    python -m benchmarks.bench_training [--official] [--data_dir DATA_DIR] [--steps 3]

Prints one Markdown table. Weights are random, which does not change the cost. Without --data_dir the clips are
synthetic, of the stored size and format. --official adds the official sizes: on a CPU with one sample per batch, 15 GB
of memory and some minutes, on a GPU with the config's batch size. Every row is measured in a process of its own, for
its peak memory. s/step is a step of the trainer; the parts are timed one by one.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmarks.measuring import ROOT, Stopwatch, run_python
from models.generation.latent_codec import build_vae
from models.training.generator_training_learner import GeneratorLearner
from models.training.generator_training_setup import GeneratorTrainingConfig, build_accelerator
from utils.core import cli
from utils.core.config import Count, load_config
from utils.core.options import Options, option, parse_options, words_of
from utils.core.types import N_COEFFS
from utils.data.dataset import Batch, TrainingBatches
from utils.files.image_files import write_gray, write_rgb
from utils.imaging.images import to_signed
from utils.results.store import depth_path, face_path, save_edit_arrays, save_sound
from utils.training.losses import generator_losses
from utils.training.training_loop import peak_memory
from utils.weights.checkpoints import save_weights

OFFICIAL_VAE = {  # stabilityai/sd-vae-ft-mse
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
}
WHISPER_TINY = "{n_audio_state: 384, n_audio_head: 6, n_audio_layer: 4, n_audio_ctx: 1500, n_mels: 80}"
PARTS = ("encode", "UNet", "decode", "backward", "update")
COLUMNS = ("size", "batch", "precision", "s/step", "samples/s", *(f"{part} s" for part in PARTS), "memory GiB")
LOADER_COLUMNS = ("loader samples/s", "loaders needed")
N_LOADED = 10  # batches
N_CLIPS, N_FRAMES = 4, 50
GIBIBYTE = 2**30


@dataclass(frozen=True, kw_only=True)
class StepOptions(Options):
    """Clips and sizes of the steps that are measured."""

    data_dir: Path | None = option(None, help="preprocessed clips (default: synthetic ones)")
    official: bool = option(False, help="add the official sizes (15 GB on a CPU)")
    steps: Count = option(3, help="timed steps, after one warm-up step")
    row: Literal["mini", "official"] | None = option(None, help="print this row only, measured in this process")


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(StepOptions, "Benchmark the training step of stage 3.", arguments)
    with tempfile.TemporaryDirectory() as folder:
        data_dir = options.data_dir or make_clips(Path(folder) / "data")
        if options.row:
            print(" | ".join(("", *row(options.row, data_dir, Path(folder), options.steps), "")).strip())
            return
        columns = (*COLUMNS, *LOADER_COLUMNS)
        print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        for name in ("mini", "official") if options.official else ("mini",):
            words = words_of(replace(options, row=name, data_dir=data_dir.absolute()))
            run = run_python(["-m", "benchmarks.bench_training", *words])
            print(run.output.splitlines()[-1], flush=True)


def row(name: str, data_dir: Path, folder: Path, n_steps: int) -> tuple[str, ...]:
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    config = read_config(name, data_dir, folder)
    learner = GeneratorLearner(config, build_accelerator(config))
    batches = learner.training
    batch = batches[0].to(learner.device)
    n_timed = 1 if is_one_step(name) else n_steps
    seconds = measure(lambda: learner.update([(0, batch)], 0.0), learner.device, n_timed)
    memory = peak_memory(learner.device) / GIBIBYTE
    parts = cost_of_parts(learner, batch, n_timed)
    pace = config.dataset.batch_size / seconds
    loaded = loader_rate(batches, config)
    precision = f"{learner.accelerator.mixed_precision}, VAE {str(learner.codec.dtype).removeprefix('torch.')}"
    return (
        f"{name}, {config.dataset.img_size} px, {learner.device.type}",
        str(config.dataset.batch_size),
        precision,
        *(f"{value:.2f}" for value in (seconds, pace, *(parts[part] for part in PARTS), memory)),
        f"{loaded:.0f}",
        f"{pace / loaded:.2f}",
    )


def is_one_step(name: str) -> bool:
    return name == "official" and not torch.cuda.is_available()


def read_config(name: str, data_dir: Path, folder: Path) -> GeneratorTrainingConfig:
    overrides = [f"dataset.root_dir={data_dir}", f"checkpoint_dir={folder}", "dataset.in_memory=false"]
    if name == "mini":
        overrides += ["vae_path=pretrained_models/mini/vae"]
        return load_config(GeneratorTrainingConfig, ROOT / "config" / "joygen_mini.yaml", overrides)
    vae_dir = folder / "vae"
    vae_dir.mkdir()
    (vae_dir / "config.json").write_text(json.dumps(OFFICIAL_VAE))
    save_weights(vae_dir / "diffusion_pytorch_model.safetensors", build_vae(OFFICIAL_VAE).state_dict())
    overrides += [f"vae_path={vae_dir}", "whisper_model_path=null", f"audio_encoder={WHISPER_TINY}"]
    overrides += ["mixed_precision=bf16", "unet_resume_file=null"]
    overrides += ["dataset.batch_size=1"] if is_one_step(name) else []
    return load_config(GeneratorTrainingConfig, ROOT / "config" / "joygen.yaml", overrides)


def measure(work: Callable[[], object], device: torch.device, n_timed: int) -> float:
    """Mean seconds, after one warm-up run."""
    work()
    watch = Stopwatch(partial(synchronized_seconds, device))
    with watch.running("all"):
        for _ in range(n_timed):
            work()
    return watch.seconds["all"] / n_timed


def synchronized_seconds(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def cost_of_parts(learner: GeneratorLearner, batch: Batch, n_timed: int) -> dict[str, float]:
    """Mean seconds of each part of the learner's step, run one by one."""
    config, codec, watch = learner.config, learner.codec, Stopwatch(partial(synchronized_seconds, learner.device))
    n_items = len(batch.targets)
    n_decoded = min(config.decode_batch or n_items, n_items)
    targets = to_signed(batch.targets)
    for _ in range(n_timed):
        with watch.running("encode"), torch.no_grad():
            inputs = codec.generator_input(targets, to_signed(batch.references), batch.depths)
            target_latents = codec.encode(targets)
        with watch.running("UNet"):
            latents = learner.model(inputs, batch.log_mel, batch.rows, batch.has_audio).latents.float()
        with watch.running("decode"):
            images = codec.decode(latents[:n_decoded])
        mouths = batch.mouths[:n_decoded].float()
        losses = generator_losses(latents, target_latents, images, targets[:n_decoded], mouths, config.loss)
        with watch.running("backward"):
            learner.accelerator.backward(losses.total)
        with watch.running("update"):
            learner.accelerator.clip_grad_norm_(learner.model.parameters(), config.opti.max_grad_norm)
            learner.optimizer.step()
            learner.optimizer.zero_grad()
            if learner.average:
                learner.average.update(learner.plain_model, learner.step)
    return {part: seconds / n_timed for part, seconds in watch.seconds.items()}


def loader_rate(batches: TrainingBatches, config: GeneratorTrainingConfig) -> float:
    """Samples per second of one loading process that reads and decodes every image."""
    batches[0]  # log-mel spectra are kept
    started = time.perf_counter()
    for number in range(N_LOADED):
        batches[number]
    return N_LOADED * config.dataset.batch_size / (time.perf_counter() - started)


def make_clips(data_dir: Path) -> Path:
    """Clips of noise, which compresses worse than faces, with a mouth in the middle of the lower half."""
    rng = np.random.default_rng(0)
    for name in range(N_CLIPS):
        folder = data_dir / f"clip_{name}"
        for index in range(N_FRAMES):
            write_rgb(face_path(folder, index), rng.integers(0, 255, (256, 256, 3), np.uint8))
            write_gray(depth_path(folder, index), rng.integers(0, 255, (256, 256), np.uint8))
        boxes = np.tile(np.int32([0, 0, 256, 256]), (N_FRAMES, 1))
        landmarks = rng.uniform((100, 170), (160, 220), (N_FRAMES, 468, 2))
        coeffs, valid = np.zeros((N_FRAMES, N_COEFFS)), np.ones(N_FRAMES, bool)
        save_edit_arrays(folder, boxes, landmarks, coeffs, np.arange(N_FRAMES), valid)
        save_sound(folder, rng.uniform(-0.1, 0.1, N_FRAMES * 640))
    return data_dir


if __name__ == "__main__":
    cli.run(main)
