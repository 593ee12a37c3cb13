"""Fit of the model of audio-visual agreement on talking clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

from models.lipsync.av_agreement import ALL_SPEAKERS, CONTEXT, AvModel
from utils.metrics.ridge import context_windows, principal_components, solve_ridge

N_COMPONENTS = 64  # of the features; 96 and 160 are no better
PENALTY = 1.0  # per frame of data, on components of deviation 1; 0.3 and 3 are no better


@dataclass(frozen=True)
class SpeakingClip:
    """One clip: features [T, C] of its sound, curves [T, O] of its mouth, validity [T] of frames (face detected)."""

    name: str
    speaker: str
    features: np.ndarray
    curves: np.ndarray
    valid: np.ndarray


def fit_projection(clips: Sequence[SpeakingClip]) -> Float32[np.ndarray, "c p"]:
    """Whitened principal components of the clips' features."""
    features = np.concatenate([clip.features for clip in clips])
    return principal_components(features, min(N_COMPONENTS, features.shape[1])).astype(np.float32)


def fit_av_model(clips: Sequence[SpeakingClip], projection: Float32[np.ndarray, "c p"]) -> AvModel:
    """Fit on all clips, and once more without each speaker. Every clip's curves have mean 0 and deviation 1."""
    speakers = list(dict.fromkeys(clip.speaker for clip in clips))
    parts = {
        name: np.sum([_normal_equations(clip, projection) for clip in clips if clip.speaker == name], axis=0)
        for name in speakers
    }
    total = np.sum(list(parts.values()), axis=0)
    shape = (2 * CONTEXT + 1, projection.shape[1], clips[0].curves.shape[1])
    weights = {ALL_SPEAKERS: _solve(total, shape)}
    if len(speakers) > 1:
        weights |= {name: _solve(total - part, shape) for name, part in parts.items()}
    return AvModel(projection, weights, {clip.name: clip.speaker for clip in clips})


def _normal_equations(clip: SpeakingClip, projection: Float[np.ndarray, "c p"]) -> Float64[np.ndarray, "w1 wo"]:
    """XᵀX with Xᵀy as last columns and the number of frames in the last corner."""
    x = context_windows(clip.features @ projection, CONTEXT)[clip.valid]
    y = clip.curves[clip.valid] - clip.curves[clip.valid].mean(axis=0)
    y /= y.std(axis=0) + 1e-8
    found = np.zeros((x.shape[1] + 1, x.shape[1] + y.shape[1]))
    found[:-1, : x.shape[1]] = x.T @ x
    found[:-1, x.shape[1] :] = x.T @ y
    found[-1, -1] = len(x)
    return found


def _solve(equations: Float64[np.ndarray, "w1 wo"], shape: tuple[int, int, int]) -> Float32[np.ndarray, "k p o"]:
    n_taps, n_components, n_curves = shape
    n_inputs, n_frames = n_taps * n_components, equations[-1, -1]
    solved = solve_ridge(equations[:-1, :n_inputs], equations[:-1, n_inputs:], PENALTY * n_frames)
    return solved.reshape(n_components, n_taps, n_curves).swapaxes(0, 1).astype(np.float32)
