"""Audio-visual agreement of mouth and sound by a linear model.

A ridge regression maps a window of log-mel bands to the opening of the inner lips. It is fitted on real clips and
predicts the opening from the sound alone; the correlation of prediction and tracked opening, and the lag at which it
is highest, measure sync. Beside the weights of all speakers the model keeps, for each speaker, the weights without
that speaker, so that no speaker is scored by weights fitted on their own clips.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64

from models.audio.audio_features import log_mel
from utils.core.errors import BadInput
from utils.core.types import FEATURE_RATE, MOTION_FPS
from utils.metrics.mouth_motion import LaggedCorrelation, best_lag, correlation
from utils.metrics.ridge import CONTEXT, context_windows, flat_rows, solve_ridge, window_view
from utils.weights.checkpoints import read_arrays, read_metadata, save_weights

N_BANDS = 20
PENALTY = 0.3  # per frame of data, on standardised features
DYNAMIC_RANGE = 3.0  # log10 of magnitude below the clip's loudest band that is kept: 60 dB
MAX_LAG = 9  # frames either way
MIN_FRAMES = 50  # of a score: 2 s
_BLOCK = 1024  # frames whose windows are held at once
ALL_SPEAKERS = ""  # key of the weights fitted on all speakers


@dataclass(frozen=True)
class SpeakingClip:
    """One clip: sound features [T, 20], opening [T] of the inner lips, validity [T] of frames (face detected)."""

    name: str
    speaker: str
    features: np.ndarray
    opening: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class AvModel:
    """weights float32 [S + 1, W]: by the speaker left out; clips: speaker of every clip of the fit."""

    weights: Mapping[str, np.ndarray]
    scale: np.ndarray
    clips: Mapping[str, str]

    @classmethod
    def load(cls, path: Path) -> AvModel:
        """Raises BadInput for another file."""
        arrays = read_arrays(path)
        try:
            metadata = read_metadata(path)
            speakers, clips = json.loads(metadata["speakers"]), json.loads(metadata["clips"])
            weights, scale = arrays["weights"], arrays["scale"]
        except (KeyError, ValueError, RecursionError) as error:
            advice = "make one with python -m scripts.mini_pack.av_model"
            raise BadInput(
                "not a model of audio-visual agreement", path, "weights and speakers", None, advice
            ) from error
        expected = (len(speakers) + 1, N_BANDS * (2 * CONTEXT + 1))
        if weights.shape != expected or scale.shape != expected[1:]:
            found = f"{weights.shape} and {scale.shape}"
            raise BadInput("model of audio-visual agreement of another shape", path, f"{expected}", found)
        return cls(dict(zip([ALL_SPEAKERS, *speakers], weights, strict=True)), scale, clips)

    def save(self, path: Path, notes: Mapping[str, str]) -> None:
        speakers = [speaker for speaker in self.weights if speaker != ALL_SPEAKERS]
        rows = np.stack([self.weights[speaker] for speaker in (ALL_SPEAKERS, *speakers)])
        tensors = {"weights": torch.from_numpy(rows).half(), "scale": torch.from_numpy(self.scale).float()}
        save_weights(path, tensors, {"speakers": json.dumps(speakers), "clips": json.dumps(self.clips), **notes})

    def speaker_of(self, *names: str) -> str:
        """Speaker of the first of these clips that is in the fit; ALL_SPEAKERS if none is."""
        return next((self.clips[name] for name in names if name in self.clips), ALL_SPEAKERS)

    def predict(self, features: Float[np.ndarray, "t 20"], without: str = ALL_SPEAKERS) -> Float64[np.ndarray, " t"]:
        """Opening predicted from a sound, about 0, in units of a speaker's standard deviation."""
        view, weights = window_view(features), self.weights[without].astype(np.float64)
        blocks = (view[start : start + _BLOCK] for start in range(0, len(view), _BLOCK))
        return np.concatenate([flat_rows(block) / self.scale @ weights for block in blocks])


def sound_features(wave: Float[np.ndarray, " n"], n_frames: int) -> Float32[np.ndarray, "t 20"]:
    """log10 mel bands of a 16 kHz wave per video frame, four of the 80 bands averaged; silence beyond the end."""
    steps = FEATURE_RATE // MOTION_FPS
    mel = log_mel(wave)
    mel = np.maximum(mel, mel.max() - DYNAMIC_RANGE)
    missing = max(0, n_frames * steps - len(mel))
    mel = np.pad(mel, ((0, missing), (0, 0)), constant_values=mel.min())[: n_frames * steps]
    return mel.reshape(n_frames, steps, N_BANDS, -1).mean(axis=(1, 3)).astype(np.float32)


def fit_av_model(clips: Sequence[SpeakingClip]) -> AvModel:
    """Fit on all clips, and once more without each speaker. Every clip's opening has mean 0 and deviation 1."""
    scale = np.concatenate([context_windows(clip.features)[clip.valid] for clip in clips]).std(axis=0) + 1e-8
    speakers = list(dict.fromkeys(clip.speaker for clip in clips))
    parts = {name: _normal_equations([c for c in clips if c.speaker == name], scale) for name in speakers}
    total = np.sum(list(parts.values()), axis=0)
    rows = {ALL_SPEAKERS: _solve(total)}
    if len(speakers) > 1:
        rows |= {name: _solve(total - part) for name, part in parts.items()}
    return AvModel(rows, scale.astype(np.float32), {clip.name: clip.speaker for clip in clips})


def _normal_equations(clips: Sequence[SpeakingClip], scale: np.ndarray) -> Float64[np.ndarray, "w1 w2"]:
    """XᵀX with Xᵀy as last column and the number of frames in the last corner; sums over clips."""
    found: Float64[np.ndarray, "w1 w2"] = np.zeros((len(scale) + 1, len(scale) + 1))
    for clip in clips:
        x = context_windows(clip.features)[clip.valid] / scale
        y = clip.opening[clip.valid] - clip.opening[clip.valid].mean()
        found[:-1, :-1] += x.T @ x
        found[:-1, -1] += x.T @ (y / (y.std() + 1e-8))
        found[-1, -1] += len(x)
    return found


def _solve(equations: Float64[np.ndarray, "w1 w2"]) -> Float32[np.ndarray, " w"]:
    return solve_ridge(equations[:-1, :-1], equations[:-1, -1], PENALTY * equations[-1, -1]).astype(np.float32)


@dataclass(frozen=True)
class Agreement:
    """best: the highest correlation within MAX_LAG; lag > 0: the lips come later than the sound. in_sync: at lag 0."""

    best: LaggedCorrelation
    in_sync: float


def agreement(
    opening: Float[np.ndarray, " t"], predicted: Float[np.ndarray, " u"], max_lag: int = MAX_LAG
) -> Agreement | None:
    """Compare the common frames; an unknown opening (NaN) is interpolated.

    None with fewer than MIN_FRAMES frames or known openings.
    """
    n = min(len(opening), len(predicted))
    known = np.flatnonzero(np.isfinite(opening[:n]))
    if len(known) < MIN_FRAMES:
        return None
    filled = np.interp(np.arange(n), known, opening[known])
    return Agreement(best_lag(filled, predicted[:n], max_lag), correlation(filled, predicted[:n]))


def rolled(predicted: Float[np.ndarray, " t"]) -> list[Float[np.ndarray, " t"]]:
    """A clip's prediction delayed cyclically by a quarter, half and three quarters of its length."""
    return [np.roll(predicted, len(predicted) * quarter // 4) for quarter in (1, 2, 3)]
