"""A folder with small inputs of all three stages, and a runner of the stages in this process."""

from __future__ import annotations

import hashlib
import importlib
import shutil
import signal
from pathlib import Path

import torch

from models.motion.audio2motion import Audio2MotionConfig, build_audio2motion
from models.motion.flow import FlowVAESizes
from tests.helpers import talking_clip
from utils.core import cli
from utils.weights.checkpoints import save_checkpoint

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("inference_audio2motion", "inference_edit_expression", "inference_joygen")
FACE_MODEL = ROOT / "pretrained_models" / "mini" / "face_model.safetensors"
NETWORK = FlowVAESizes(hidden=16, latent=4, n_encoder_layers=1, n_decoder_layers=1, flow_hidden=8, n_flow_layers=1)
MOTION_NAME = Path(talking_clip.SPEECH_NAME).with_suffix(".npy").name
EDIT = f"edit/{Path(talking_clip.CLIP_NAME).stem}/{Path(MOTION_NAME).stem}"


def fill_world(folder: Path) -> Path:
    """A clip, a speech, stage 2's result for them, and tiny networks."""
    talking_clip.fill_folder(folder)
    shutil.copy(FACE_MODEL, folder / "face_model.safetensors")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_audio2motion(Audio2MotionConfig("mfcc", False, True, False, cond_channels=12, sizes=NETWORK))
    save_checkpoint(folder / "a2m.ckpt", {"state_dict": {"model": network.state_dict()}})
    return folder


def run_stage(stage: str, arguments: list[str]) -> int:
    """The exit code of a stage, run in this process as a command is."""
    from diffusers.utils import logging

    handler, verbosity = signal.getsignal(signal.SIGTERM), logging.get_verbosity()
    logging.set_verbosity_error()  # as in the scripts' own processes
    main = importlib.import_module(stage).main
    try:
        cli.run(lambda _: main(arguments))
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        signal.signal(signal.SIGTERM, handler)
        logging.set_verbosity(verbosity)
    return 0


def small_networks(world: Path) -> dict[str, object]:
    """The flags, by name, of the pipeline on the small networks of fill_world."""
    return {
        "a2m_ckpt": world / "a2m.ckpt",
        "bfm_folder": world / "face_model.safetensors",
        "unet_model_path": world / "unet",
        "vae_model_path": world / "vae",
        "whisper_model_path": world / "whisper.pt",
        "img_size": talking_clip.IMAGE_SIZE,
    }


def arguments_of(stage: str, world: Path, changes: dict[str, object]) -> list[str]:
    values: dict[str, object] = {
        "inference_audio2motion": {
            "drv_aud": world / talking_clip.SPEECH_NAME,
            "a2m_ckpt": world / "a2m.ckpt",
            "result_dir": world / "results",
            "gpu_id": -1,
        },
        "inference_edit_expression": {
            "infer_video_path": world / talking_clip.CLIP_NAME,
            "infer_exp_coeff_path": world / "a2m" / MOTION_NAME,
            "infer_result_dir": world / "results",
            "bfm_folder": world / "face_model.safetensors",
        },
        "inference_joygen": {
            "video_path": world / talking_clip.CLIP_NAME,
            "audio_path": world / talking_clip.SPEECH_NAME,
            "intermediate_dir": world / "edit",
            "result_dir": world / "results",
            "unet_model_path": world / "unet",
            "vae_model_path": world / "vae",
            "whisper_model_path": world / "whisper.pt",
            "img_size": talking_clip.IMAGE_SIZE,
            "gpu_id": -1,
        },
    }[stage]
    switches = ["--enable_pose_driven"] if stage == "inference_joygen" else []
    return [f"--{name}={value}" for name, value in (values | changes).items()] + switches


def contents(directory: Path) -> dict[str, str]:
    """Every file and folder with the digest of its content."""
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in directory.rglob("*")
    }
