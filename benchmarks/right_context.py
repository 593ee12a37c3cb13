"""How many milliseconds of sound after a frame its lips need: a motion network run as in streaming.

    python -m benchmarks.right_context DATA_DIR --clips menendez vr4 --audio2motion pretrained_models/mini/audio2motion

For every block of frames, the encoder's window and the network's input end a given time after the block; only the
block's motion is kept. So a frame has that much sound after it, or up to one block more. The last row has all sound,
and windows with sound on both sides, as in stage 1. DATA_DIR is a folder of preprocess_dataset.py; the figures are
those of models/training/lip_figures.py, means over the clips, of the network alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from models.audio.recent_speech import recent_states
from models.audio.speech_encoder import SpeechEncoder
from models.face3d.face_model import FaceModel
from models.motion.audio2motion import Audio2Motion, MotionInputs
from models.motion.audio2motion_checkpoint import load_audio2motion
from models.training.lip_figures import LipFigures, figure_table, lip_figures, mean_figures
from models.training.motion_validation import predict_clips
from utils.core import cli
from utils.core.config import Count, Whole
from utils.core.errors import BadInput
from utils.core.options import Options, option, parse_options
from utils.core.types import MOTION_FPS, SAMPLES_PER_FRAME
from utils.data.motion_dataset import STEPS_PER_FRAME, MotionClip, MotionDataConfig, load_motion_clips

FRAME_MS = 1000 // MOTION_FPS
INPUT_FRAMES = 52  # of the network before the end of the sound; a multiple of 4
_BLOCKS_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class ContextOptions(Options):
    """Clips, network and lengths of sound after a frame."""

    data_dir: Path = option(positional=True, help="folder of prepared clips")
    clips: tuple[str, ...] = option(help="clips to measure")
    audio2motion: Path = option(Path("pretrained_models/mini/audio2motion"), help="motion network")
    face_model: Path = option(Path("pretrained_models/mini/face_model.safetensors"), help="face model")
    lag_table: Path = option(Path("config/audio2motion_mini_lags.yaml"), help="frames by which lips are late")
    contexts: tuple[Whole, ...] = option((120, 240, 480), help="milliseconds of sound after a frame")
    block: Count = option(2, help="frames that share a window of sound")


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(ContextOptions, "Measure the right context that the lips need.", arguments)
    network, face = load_audio2motion(options.audio2motion), FaceModel.load(options.face_model)
    if network.config.audio_type != "whisper":
        raise BadInput("not a network on Whisper states", options.audio2motion, "audio_type whisper")
    data = MotionDataConfig(validation_clips=options.clips, lag_table=options.lag_table)
    clips = load_motion_clips(options.data_dir, data)[1]
    encoder, rows = SpeechEncoder.load(), {}
    for context in options.contexts:
        streamed = {clip.name: stream(clip, network, encoder, context // FRAME_MS, options.block) for clip in clips}
        rows[f"{context} ms"] = figures_of(streamed, clips, face)
    whole = [replace(clip, audio=encoder.encode(clip.wave)) for clip in clips]
    rows["all"] = figures_of(predict_clips(network, whole), clips, face)
    print(figure_table(rows))


def figures_of(predicted: dict[str, np.ndarray], clips: list[MotionClip], face: FaceModel) -> LipFigures:
    return mean_figures([lip_figures(predicted[clip.name], clip, face) for clip in clips])


@torch.no_grad()
def stream(
    clip: MotionClip, network: Audio2Motion, encoder: SpeechEncoder, context: int, block: int
) -> Float[np.ndarray, "t 64"]:
    """The motion of a clip, moved by its lag; each block from the sound until ``context`` frames after it."""
    n_frames = -(-len(clip.wave) // SAMPLES_PER_FRAME)
    ends = [STEPS_PER_FRAME * (stop + context) for stop in range(block, n_frames + block, block)]
    states = list(recent_states(encoder, clip.wave, ends, STEPS_PER_FRAME * INPUT_FRAMES))
    motion = []
    for first in range(0, len(states), _BLOCKS_AT_ONCE):
        audio = torch.from_numpy(np.stack(states[first : first + _BLOCKS_AT_ONCE]))
        n_latent = INPUT_FRAMES // network.config.sizes.stride
        noise = torch.zeros(len(audio), network.config.sizes.latent, n_latent)
        made = network.sample(MotionInputs(audio), noise)
        motion.append(made[:, INPUT_FRAMES - context - block : INPUT_FRAMES - context].flatten(0, 1).numpy())
    joined = np.concatenate(motion)
    return joined[np.clip(np.arange(clip.n_frames) - round(clip.lag), 0, n_frames - 1)]


if __name__ == "__main__":
    cli.run(main)
