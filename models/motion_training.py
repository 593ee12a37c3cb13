"""Between clips and the audio2motion network: training batches, labels and the validation by the mouth's opening."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from models.audio2motion import Audio2Motion, Audio2MotionConfig, MotionInputs
from models.audio_features import (
    MFCC_RATE,
    MFCC_SCALE,
    SpeechFeatures,
    fit_length,
    mfcc,
    pad_to_multiple,
    pitch_contour,
    resample,
    speech_features,
)
from models.face_model import FaceModel
from models.hubert import HubertEncoder, n_states, weights_path
from utils.checkpoints import sha256
from utils.cli import progress
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
from utils.store import load_array, save_array

MAX_LAG = 4  # motion frames either way
_DIGEST_LENGTH = 12  # hexadecimal digits that tell one HuBERT's states from another's


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


def with_hubert(
    clips: Sequence[MotionClip], data_dir: Path, hubert_dir: Path, device: torch.device
) -> list[MotionClip]:
    """Add the states of HuBERT's last layer, in half precision: 0.4 GB per hour of speech for the large one.

    They are computed once and kept as <clip>/hubert-<weights>.npy. Raises BadInput for an unusable HuBERT folder, and
    for kept states that are not those of the clip's sound.
    """
    digest = sha256(weights_path(hubert_dir))[:_DIGEST_LENGTH]
    paths = {clip.name: data_dir / clip.name / f"hubert-{digest}.npy" for clip in clips}
    unheard = [clip for clip in clips if not paths[clip.name].is_file()]
    if unheard:
        hubert = HubertEncoder.load(hubert_dir, device)
        for clip in progress(unheard, len(unheard), "HuBERT"):
            save_array(paths[clip.name], hubert.encode(clip.wave).astype(np.float16))
    return [
        replace(clip, audio=load_array(paths[clip.name], (n_states(len(clip.wave)), None), "f", "delete it"))
        for clip in clips
    ]


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


def window_features(window: MotionWindow) -> Float[np.ndarray, "s c"]:
    """The window's states if it has them, else its MFCC as speech_features gives them, the margins cut off."""
    if window.audio.size:
        return window.audio.astype(np.float32)
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
        features = clip_features(clip, network.config)
        motion = network.predict(features, temperature=0.0, mouth_amp=clip.mouth_amp)
        matches[clip.name] = _match(opening_of(motion, direction), clip, direction)
    return matches


def clip_features(clip: MotionClip, config: Audio2MotionConfig) -> SpeechFeatures:
    """speech_features of a whole clip, from its states if it has them."""
    if not clip.audio.size:
        return speech_features(clip.wave, config.audio_type, config.use_pitch)
    audio = pad_to_multiple(clip.audio.astype(np.float32))
    f0 = pitch_contour(clip.wave) if config.use_pitch else np.zeros(0, np.float32)
    return SpeechFeatures(audio, fit_length(f0, len(audio)))


def ridge_matches(
    training: Sequence[MotionClip], clips: Sequence[MotionClip], direction: Float[np.ndarray, " e"]
) -> dict[str, LaggedCorrelation]:
    """What a linear model on MFCC reaches: the network should not be worse."""
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
