"""The former model of audio-visual agreement, from log-mel bands to the opening: for comparison with older figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from models.audio.audio_features import log_mel
from models.lipsync.av_agreement import ALL_SPEAKERS, AvModel, not_a_model, read_speakers
from utils.core.errors import BadInput
from utils.core.types import FEATURE_RATE, MOTION_FPS
from utils.weights.checkpoints import read_arrays

N_BANDS = 20
CONTEXT = 8  # frames either way
DYNAMIC_RANGE = 3.0  # log10 of magnitude below the clip's loudest band that is kept: 60 dB


def load_log_mel_model(path: Path) -> AvModel:
    """A model on log_mel_features with one curve, the opening. Raises BadInput for another file."""
    arrays = read_arrays(path)
    speakers, clips = read_speakers(path)
    try:
        weights, scale = arrays["weights"], arrays["scale"]
    except KeyError as error:
        raise not_a_model(path) from error
    expected = (len(speakers) + 1, N_BANDS * (2 * CONTEXT + 1))
    if weights.shape != expected or scale.shape != expected[1:]:
        found = f"{weights.shape} and {scale.shape}"
        raise BadInput("model of audio-visual agreement of another shape", path, f"{expected}", found)
    taps = (weights / scale).reshape(-1, N_BANDS, 2 * CONTEXT + 1).swapaxes(1, 2)[..., None]
    return AvModel(np.eye(N_BANDS, dtype=np.float32), dict(zip([ALL_SPEAKERS, *speakers], taps, strict=True)), clips)


def log_mel_features(wave: Float[np.ndarray, " n"], n_frames: int) -> Float32[np.ndarray, "t 20"]:
    """log10 mel bands of a 16 kHz wave per video frame, four of the 80 bands averaged; silence beyond the end."""
    steps = FEATURE_RATE // MOTION_FPS
    mel = log_mel(wave)
    mel = np.maximum(mel, mel.max() - DYNAMIC_RANGE)
    missing = max(0, n_frames * steps - len(mel))
    mel = np.pad(mel, ((0, missing), (0, 0)), constant_values=mel.min())[: n_frames * steps]
    return mel.reshape(n_frames, steps, N_BANDS, -1).mean(axis=(1, 3)).astype(np.float32)
