"""Small inputs of stage 3: a short clip of a real face, stage 2's result for it, tiny untrained networks."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import torch

import inference_edit_expression
from models.audio.whisper_encoder import EncoderDims, WhisperEncoder
from models.generation.generator import Generator
from utils.core.types import SAMPLE_RATE
from utils.media.video import VideoWriter
from utils.results import store

ROOT = Path(__file__).resolve().parents[2]
FACE_MODELS = (
    ROOT / "pretrained_models" / "mini" / "face_model.safetensors",
    ROOT / "tests" / "parity" / "fixtures" / "synthetic_bfm",
)
CLIP_NAME, SPEECH_NAME = "my clip (1) it's.mp4", "a speech.v2.wav"
N_CLIP, N_MOTION = 14, 20  # frames; the speech outlasts the clip
FACELESS = range(9, 14)
SPEECH_SECONDS = 0.75  # 19 frames, one less than the motion
IMAGE_SIZE = 64
LATENTS = {"in_channels": 12, "out_channels": 4}
VAE = {
    "block_out_channels": (8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "norm_num_groups": 4,
}
UNET = LATENTS | {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
}
WHISPER = EncoderDims(n_audio_state=12, n_audio_head=2, n_audio_layer=1, n_audio_ctx=50)


def fill_folder(folder: Path) -> None:
    """A clip with a moving face that is hidden at the end, a speech, stage 2's result and tiny networks."""
    with VideoWriter(folder / CLIP_NAME) as writer:
        for image in moving_face():
            writer.write(image)
    write_speech(folder / SPEECH_NAME)
    motion_path = folder / "a2m" / Path(SPEECH_NAME).with_suffix(".npy").name
    motion = np.random.default_rng(0).normal(0, 0.4, (N_MOTION, 64)).astype(np.float32)
    store.save_motion(motion_path, motion)
    face_model = next(path for path in FACE_MODELS if path.exists())
    inference_edit_expression.main(
        ["--infer_video_path", str(folder / CLIP_NAME), "--infer_exp_coeff_path", str(motion_path),
         "--infer_result_dir", str(folder / "edit"), "--bfm_folder", str(face_model)]
    )  # fmt: skip
    save_networks(folder)


def moving_face() -> list[np.ndarray]:
    from skimage.data import astronaut

    images = [astronaut()[0:240, 110 + round(4 * np.sin(i)) :][:, :240] for i in range(N_CLIP)]
    for i in FACELESS:
        images[i] = np.full_like(images[0], 90)
    return images


def write_speech(path: Path) -> None:
    time = np.arange(int(SPEECH_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    samples = (8000 * np.sin(2 * np.pi * 220 * time) * np.sin(2 * np.pi * 3 * time)).astype(np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.tobytes())


def save_networks(folder: Path) -> None:
    from diffusers import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoencoderKL(**VAE).save_pretrained(folder / "vae")
    Generator.create(UNET).save(folder / "unet")
    WhisperEncoder.create(WHISPER).save(folder / "whisper.pt")


def flags(folder: Path, result_dir: Path, **changes: object) -> list[str]:
    values = {
        "video_path": folder / CLIP_NAME,
        "audio_path": folder / SPEECH_NAME,
        "intermediate_dir": folder / "edit",
        "result_dir": result_dir,
        "unet_model_path": folder / "unet",
        "vae_model_path": folder / "vae",
        "whisper_model_path": folder / "whisper.pt",
        "img_size": IMAGE_SIZE,
        "batch_size": 4,
        "gpu_id": -1,
    } | changes
    return [text for name, value in values.items() for text in (f"--{name}", str(value))] + ["--enable_pose_driven"]


def result_of(folder: Path, result_dir: Path) -> Path:
    return store.talk_path(result_dir, folder / CLIP_NAME, folder / SPEECH_NAME)
