"""Between clips and the audio2motion network: training batches, labels and the validation by the mouth's opening."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from models.audio2motion import Audio2Motion, Audio2MotionConfig, MotionInputs
from models.audio_features import MFCC_RATE, MFCC_SCALE, fit_length, mfcc, pitch_contour, resample, speech_features
from models.face_model import FaceModel
from utils.landmarks import LOWER_INNER_LIP, UPPER_INNER_LIP
from utils.metrics import LaggedCorrelation, best_lag
from utils.motion_dataset import (
    MARGIN_FRAMES,
    STEPS_PER_FRAME,
    AugmentationConfig,
    MotionClip,
    MotionWindow,
    blink_labels,
    mask_features,
    mouth_amplitude,
)
from utils.motion_losses import LANDMARK_SCALE
from utils.ridge import ridge_predictions

MAX_LAG = 4  # motion frames either way


@dataclass(frozen=True)
class MotionBatch:
    """Windows stacked: conditions, motion [B, T, 64], identity [B, T, 80], mask [B, T]."""

    inputs: MotionInputs
    motion: Tensor
    identity: Tensor
    mask: Tensor


def labelled(clip: MotionClip, config: Audio2MotionConfig, face: FaceModel) -> MotionClip:
    """Add what the pitch variant is told of a clip; the plain one needs none of it.

    Eye amplitudes have no label in the reference; a network that takes them is trained at the default.
    """
    if not config.use_pitch:
        return clip
    mean, *bases = face.landmark_bases()
    offsets = torch.zeros(clip.n_frames, *mean.shape)
    for basis, coefficients in zip(bases, (clip.identity, clip.expression), strict=True):
        offsets += torch.einsum("ti,lci->tlc", torch.from_numpy(coefficients[:, : basis.shape[2]]), basis)
    return replace(
        clip,
        f0=fit_length(pitch_contour(clip.wave), STEPS_PER_FRAME * clip.n_frames),
        blink=blink_labels((mean + offsets).numpy()),
        mouth_amp=mouth_amplitude(LANDMARK_SCALE * offsets[torch.from_numpy(clip.valid)].numpy()),
    )


def collate(
    windows: Sequence[MotionWindow], augmentation: AugmentationConfig, rng: np.random.Generator, device: torch.device
) -> MotionBatch:
    """Features and motion of some windows as one batch."""

    def stack(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(arrays)).to(device)

    inputs = MotionInputs(
        audio=stack([mask_features(window_features(window), augmentation, rng) for window in windows]),
        f0=stack([window.f0 for window in windows]),
        blink=stack([window.blink[:, None] for window in windows]),
        mouth_amp=stack([np.full(1, window.mouth_amp, np.float32) for window in windows]),
    )
    return MotionBatch(
        inputs,
        motion=stack([window.expression for window in windows]),
        identity=stack([window.identity for window in windows]),
        mask=stack([window.mask for window in windows]),
    )


def window_features(window: MotionWindow) -> Float[np.ndarray, "s 13"]:
    """The MFCC of a window as speech_features gives them for a clip, the margins cut off."""
    steps = mfcc(resample(window.wave, window.rate, MFCC_RATE)) * np.float32(MFCC_SCALE)
    first = MARGIN_FRAMES * STEPS_PER_FRAME
    return steps[first : first + STEPS_PER_FRAME * len(window.mask)]


def opening_direction(expression_basis: Float[np.ndarray, "468 3 e"]) -> Float[np.ndarray, " e"]:
    """Vertical distance of the inner lips' middles per expression coefficient, on the unposed mean face."""
    return expression_basis[UPPER_INNER_LIP, 1] - expression_basis[LOWER_INNER_LIP, 1]


def opening_of(expression: Float[np.ndarray, "t 64"], direction: Float[np.ndarray, " e"]) -> Float[np.ndarray, " t"]:
    return expression[:, : len(direction)] @ direction


def opening_matches(
    network: Audio2Motion, clips: Sequence[MotionClip], direction: Float[np.ndarray, " e"]
) -> dict[str, LaggedCorrelation]:
    """How well the most likely motion (temperature 0) opens the mouth when the clip's speaker does, per clip."""
    network.eval()
    matches = {}
    for clip in clips:
        features = speech_features(clip.wave, network.config.audio_type, network.config.use_pitch)
        motion = network.predict(features, temperature=0.0, mouth_amp=clip.mouth_amp)
        matches[clip.name] = _match(opening_of(motion, direction), clip, direction)
    return matches


def ridge_matches(
    training: Sequence[MotionClip], clips: Sequence[MotionClip], direction: Float[np.ndarray, " e"]
) -> dict[str, LaggedCorrelation]:
    """What a linear model on the same features reaches: the network should not be worse."""
    openings = [opening_of(clip.expression, direction) for clip in training]
    train_features, clip_features = ([_frame_features(clip) for clip in group] for group in (training, clips))
    predictions = ridge_predictions(train_features, openings, clip_features)
    return {clip.name: _match(curve, clip, direction) for clip, curve in zip(clips, predictions, strict=True)}


def median_correlation(matches: Mapping[str, LaggedCorrelation]) -> float:
    return float(np.median([match.r for match in matches.values()]))


def _match(
    predicted: Float[np.ndarray, " t"], clip: MotionClip, direction: Float[np.ndarray, " e"]
) -> LaggedCorrelation:
    """A positive lag says that the lips come later than predicted."""
    return best_lag(opening_of(clip.expression, direction), predicted, MAX_LAG)


def _frame_features(clip: MotionClip) -> Float[np.ndarray, "t c"]:
    """MFCC of one clip, both steps of every motion frame side by side."""
    steps = speech_features(clip.wave, "mfcc", with_pitch=False).audio
    return fit_length(steps, STEPS_PER_FRAME * clip.n_frames).reshape(clip.n_frames, -1)
