"""Tiny synthetic training data and networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from models.generation.latent_codec import build_vae
from utils.files.image_files import write_gray, write_rgb
from utils.imaging.landmarks import OUTER_LIPS
from utils.results.store import depth_path, face_path
from utils.training.training_log import LOG_NAME
from utils.weights.checkpoints import save_weights

SIZE = 32  # pixels, what the tiny networks work at
VAE_CONFIG = {
    "block_out_channels": [8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "mid_block_add_attention": False,
    "scaling_factor": 0.5,
}
UNET_CONFIG = {
    "in_channels": 12,
    "out_channels": 4,
    "block_out_channels": [16, 16],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
}


def write_clip(data_dir: Path, name: str, n_frames: int = 12, has_audio: bool = True) -> Path:
    """A mouth that opens and closes on a coloured ground; frame 3 has no face."""
    folder = data_dir / name
    rng = np.random.default_rng(list(name.encode()))
    ground = rng.integers(60, 200, 3, dtype=np.uint8)
    landmarks = np.tile(rng.uniform(60, 200, (468, 2)).astype(np.float32), (n_frames, 1, 1))
    angles = np.linspace(np.pi, -np.pi, len(OUTER_LIPS), endpoint=False)
    rows, columns = np.mgrid[:256, :256]
    for i in range(n_frames):
        opening = 15 + 12 * np.sin(i)
        landmarks[i, OUTER_LIPS, 0] = 128 + 40 * np.cos(angles)
        landmarks[i, OUTER_LIPS, 1] = 190 - (opening + 8) * np.sin(angles)
        mouth = ((columns - 128) / 30) ** 2 + ((rows - 190) / opening) ** 2 < 1
        face = np.where(mouth[..., None], np.uint8([30, 0, 0]), ground)
        write_rgb(face_path(folder, i), face)
        write_gray(depth_path(folder, i), np.where(mouth, 120, 220).astype(np.uint8))
    boxes = np.tile(np.int32([10, 20, 10 + 512, 20 + 128]), (n_frames, 1))
    np.save(folder / "boxes.npy", boxes)
    np.save(folder / "landmarks.npy", landmarks * np.float32([2, 0.5]))
    np.save(folder / "valid.npy", np.arange(n_frames) != 3)
    if has_audio:
        np.save(folder / "audio.npy", rng.integers(-3000, 3000, n_frames * 640, dtype=np.int16))
    return folder


def write_networks(folder: Path) -> None:
    """folder/vae, a diffusers folder with random weights, and folder/unet.json."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = build_vae(VAE_CONFIG)
    (folder / "vae").mkdir(parents=True)
    (folder / "vae" / "config.json").write_text(json.dumps(VAE_CONFIG))
    save_weights(folder / "vae" / "diffusion_pytorch_model.safetensors", vae.state_dict())
    (folder / "unet.json").write_text(json.dumps(UNET_CONFIG))


def write_config(folder: Path) -> Path:
    """The config of a tiny training on folder/data with the networks of ``write_networks``."""
    config = {
        "vae_path": str(folder / "vae"),
        "unet_config_file": str(folder / "unet.json"),
        "audio_encoder": {"n_audio_state": 16, "n_audio_head": 2, "n_audio_layer": 1, "n_audio_ctx": 20},
        "train_audio_encoder": True,
        "checkpoint_dir": str(folder / "run"),
        "dataset": {
            "root_dir": str(folder / "data"),
            "img_size": SIZE,
            "batch_size": 4,
            "frames_per_clip": 2,
            "in_memory": True,
        },
        "opti": {"max_steps": 4, "lr": 1e-3, "min_lr": 1e-4, "use_ema": True},
        "console_log_interval": 1,
        "checkpoint_save_interval": 100,
        "checkpoint_validation_interval": 100,
        "mixed_precision": "no",
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def read_log(directory: Path) -> list[dict[str, Any]]:
    """All reports of a training, in order."""
    lines = (directory / LOG_NAME).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
