"""Copies of clips whose sound stops, for the training of streaming: near its end, sound on the right is missing.

sound   ---------------|              the encoder's window and the network's input end here
lips    ------------oo                frames with too little sound after them (o) have no loss
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from models.audio.recent_speech import recent_states
from models.audio.speech_encoder import SpeechEncoder
from utils.core.cli import progress
from utils.core.config import Amount, Positive
from utils.core.types import MOTION_FPS, SAMPLES_PER_FRAME
from utils.data.motion_dataset import STEPS_PER_FRAME, MotionClip, clip_generator
from utils.data.motion_windows import cut_window
from utils.files.arrays import load_array, save_array
from utils.results.training_clip import whisper_path


@dataclass(frozen=True)
class CutConfig:
    """Where clips and their copies are cut off, and how often the cuts are drawn; off by default."""

    interval: Amount = 0.0  # seconds between the cuts of a clip; 0: none
    weight: Positive = 0.3  # sampling weight of their frames
    least_context: Amount = 0.08  # seconds of sound after a frame, below which it has no loss


def cut_clips(
    clips: Sequence[MotionClip], config: CutConfig, n_frames: int, cache_dir: Path, seed: int
) -> list[MotionClip]:
    """All cuts of the clips, each of ``n_frames`` frames that end with its sound.

    Their states are stored in ``cache_dir``, those of a clip in one file.
    """
    if not config.interval:
        return []
    encoder = SpeechEncoder.load()
    cuts = []
    for clip in progress(clips, len(clips), "cuts"):
        ends = _ends(clip, config.interval, clip_generator(clip, seed))
        states = _states(clip, ends, STEPS_PER_FRAME * n_frames, encoder, cache_dir)
        cuts += [_cut(clip, end, some, config) for end, some in zip(ends, states, strict=True)]
    return cuts


def _ends(clip: MotionClip, interval: float, rng: np.random.Generator) -> list[int]:
    """Frames of the sound at which it is cut off, from a random first one on."""
    n_frames, step = len(clip.wave) // SAMPLES_PER_FRAME, interval * MOTION_FPS
    return np.arange(rng.uniform(0.5, 1.5) * step, n_frames, step).astype(int).tolist()


def _states(
    clip: MotionClip, ends: Sequence[int], n_steps: int, encoder: SpeechEncoder, cache_dir: Path
) -> Float[np.ndarray, "n s c"]:
    """The last steps before each end in half precision, from the file of an earlier call if there is one."""
    digest = hashlib.sha256(clip.wave.tobytes() + np.array([n_steps, *ends]).tobytes()).hexdigest()
    path = whisper_path(cache_dir, digest)
    if not path.is_file():
        steps = [STEPS_PER_FRAME * end for end in ends]
        found = [states.astype(np.float16) for states in recent_states(encoder, clip.wave, steps, n_steps)]
        save_array(path, np.concatenate([np.zeros((0, encoder.n_channels), np.float16), *found]))
    stored = load_array(path, (len(ends) * n_steps, encoder.n_channels), "f", "delete it")
    return stored.reshape(len(ends), n_steps, encoder.n_channels)


def _cut(clip: MotionClip, end: int, states: Float[np.ndarray, "s c"], config: CutConfig) -> MotionClip:
    """The frames of a clip whose sound is the steps before frame ``end``."""
    n_frames = len(states) // STEPS_PER_FRAME
    start = end - n_frames + clip.lag
    window = cut_window(clip, start, n_frames)
    valid = (window.mask > 0) & (start + np.arange(n_frames) >= 0)
    valid[n_frames - round(config.least_context * MOTION_FPS) :] = False
    sound = clip.wave[max(0, end - n_frames) * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME]
    return replace(
        clip,
        wave=sound,
        expression=window.expression,
        identity=window.identity,
        valid=valid,
        lag=0.0,
        weight=config.weight * clip.weight,
        audio=states,
        is_copy=True,
        is_cut=True,
    )
