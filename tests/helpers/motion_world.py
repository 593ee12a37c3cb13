"""Small synthetic training data of stage 1: the mouth opens with the loudness of the sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.numpy import save_file

import train_audio2motion

N_FRAMES = 120
SMALL = {"hidden": 16, "latent": 4, "n_encoder_layers": 1, "n_decoder_layers": 2, "flow_hidden": 8, "n_flow_layers": 1}
EVERYTHING = {
    "gain_db": 6,
    "noise_probability": 0.5,
    "speed": 0.1,
    "channel": 0.1,
    "time_masks": 1,
    "mirror_probability": 0.5,
}
CLIPS = ("a", "b", "c", "unheard")


def write_world(folder: Path) -> Path:
    """Four clips whose first expression coefficient opens the mouth as loudly as the sound is; a face model."""
    rng = np.random.default_rng(0)
    for name in CLIPS:
        loudness = np.clip(np.convolve(rng.normal(size=N_FRAMES), np.ones(5), mode="same"), 0, None) / 5
        coeffs = np.zeros((N_FRAMES, 257), np.float32)
        coeffs[:, 80] = loudness
        wave = rng.normal(0, 3000, N_FRAMES * 640) * loudness.repeat(640)
        clip = folder / "data" / name
        clip.mkdir(parents=True)
        np.save(clip / "coeffs.npy", coeffs)
        np.save(clip / "valid.npy", np.ones(N_FRAMES, bool))
        np.save(clip / "audio.npy", wave.clip(-32768, 32767).astype(np.int16))
    save_face_model(folder / "face_model.safetensors")
    return folder


def save_face_model(path: Path) -> None:
    rng = np.random.default_rng(0)
    expression = rng.normal(0, 0.01, (1404, 64)).astype(np.float32)
    expression[14 * 3 + 1, 0] = -0.3  # the lower lip goes down with the first coefficient
    arrays = {
        "meanshape": rng.normal(size=1404).astype(np.float32),
        "idBase": np.zeros((1404, 80), np.float32),
        "exBase": expression,
        "tri": np.array([[0, 1, 2]], np.int32),
        "landmark_index": np.arange(468, dtype=np.int32),
        "alignment_points": rng.normal(size=(5, 3)).astype(np.float32),
        "mirror_exp": np.eye(64, dtype=np.float32),
    }
    save_file(arrays, path)


def write_config(world: Path, output: str = "out", **changes: object) -> Path:
    config = {
        "data_dir": str(world / "data"),
        "face_model": str(world / "face_model.safetensors"),
        "output_dir": str(world / output),
        "max_steps": 4,
        "report_interval": 2,
        "validation_interval": 4,
        "checkpoint_interval": 2,
        "network": {"audio_type": "mfcc", "use_pitch": False, "cond_channels": 16, "sizes": SMALL},
        "data": {"validation_clips": ["unheard"], "window_frames": 32, "batch_size": 4, "center_expression": True},
        "augmentation": EVERYTHING,
        "optimizer": {"warmup_steps": 2},
        "sync": {
            "output_dir": str(world / f"{output}_sync"),
            "max_steps": 4,
            "report_interval": 2,
            "validation_interval": 4,
            "checkpoint_interval": 2,
            "batch_pairs": 40,
            "sizes": {"hidden": 8, "embedding": 16, "n_layers": 2},
        },
    }
    path = world / f"{output}.yaml"
    path.write_text(yaml.safe_dump(config | changes))
    return path


def train(config: Path, *arguments: str) -> None:
    train_audio2motion.main(["--config", str(config), "--gpu_id", "-1", *arguments])


def weights_of(world: Path, output: str = "out", name: str = "last.pt") -> dict[str, torch.Tensor]:
    return torch.load(world / output / name, weights_only=True)["network"]
