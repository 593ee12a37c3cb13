"""Labels, audio features and training batches of audio2motion."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from models.audio.audio_features import (
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
from models.audio.hubert import HubertEncoder, n_states, weights_path
from models.audio.speech_encoder import SpeechEncoder
from models.face3d.face_model import FaceModel
from models.motion.audio2motion import Audio2MotionConfig, MotionInputs
from utils.core.cli import progress
from utils.data.motion_dataset import (
    STEPS_PER_FRAME,
    MotionClip,
    blink_labels,
    clip_generator,
    eye_amplitude,
    mouth_amplitude,
)
from utils.data.motion_windows import MARGIN_FRAMES, AugmentationConfig, MotionWindow, mask_features
from utils.data.sound_variants import VariantConfig, variants
from utils.files.arrays import load_array, save_array
from utils.files.digests import sha256
from utils.results.training_clip import hubert_path, whisper_path

if TYPE_CHECKING:
    from accelerate import Accelerator

_DIGEST_LENGTH = 12  # hexadecimal digits of the weights' digest in the names of HuBERT states


@dataclass(frozen=True)
class MotionBatch:
    """Windows stacked: conditions, motion [B, T, 64], identity [B, T, 80], mask [B, T]; speech [B, 2 T, C] is the
    conditions' audio before any of it was masked."""

    inputs: MotionInputs
    motion: Tensor
    identity: Tensor
    mask: Tensor
    speech: Tensor
    names: tuple[str, ...]


def labelled(clip: MotionClip, config: Audio2MotionConfig, face: FaceModel) -> MotionClip:
    """Add pitch, blinks and amplitudes, the inputs of the pitch variant; the plain variant has none of them."""
    if not config.use_pitch:
        return clip
    mean, *bases = face.landmark_bases()
    landmarks = mean.repeat(clip.n_frames, 1, 1)
    for basis, coefficients in zip(bases, (clip.identity, clip.expression), strict=True):
        landmarks += torch.einsum("ti,lci->tlc", torch.from_numpy(coefficients[:, : basis.shape[2]]), basis)
    return replace(
        clip,
        f0=fit_length(pitch_contour(clip.wave), STEPS_PER_FRAME * clip.n_frames),
        blink=blink_labels(landmarks.numpy()),
        mouth_amp=mouth_amplitude(landmarks.numpy()[clip.valid]),
        eye_amp=eye_amplitude(landmarks.numpy()[clip.valid]),
    )


def with_whisper(clips: Sequence[MotionClip], cache_dir: Path) -> list[MotionClip]:
    """Add the states of whole clips that audio_type whisper reads, in half precision: 0.3 GB per hour of speech.

    They are stored in ``cache_dir``, each under the digest of its sound.
    """
    encoder = SpeechEncoder.load()
    found = []
    for clip in progress(clips, len(clips), "states"):
        path = whisper_path(cache_dir, hashlib.sha256(clip.wave.tobytes()).hexdigest()[:_DIGEST_LENGTH])
        if not path.is_file():
            save_array(path, encoder.encode(clip.wave).astype(np.float16))
        found.append(replace(clip, audio=load_array(path, (None, encoder.n_channels), "f", "delete it")))
    return found


def with_variants(clips: Sequence[MotionClip], settings: VariantConfig, seed: int) -> list[MotionClip]:
    """The clips and their augmented copies, which depend on the seed and the clip's name alone."""
    shown = progress(clips, len(clips), "other voices and rooms")
    copies = [variants(clip, settings, clip_generator(clip, seed)) for clip in shown]
    return [*clips, *(copy for of_clip in copies for copy in of_clip)]


def with_hubert(
    clips: Sequence[MotionClip],
    data_dir: Path,
    hubert_dir: Path,
    accelerator: Accelerator,
) -> list[MotionClip]:
    """Add the states of HuBERT's last layer, in half precision: 0.4 GB per hour of speech for the large one.

    They are computed once, each clip by one process, and stored as <clip>/hubert-<weights>.npy. Raises BadInput
    for an unusable HuBERT folder, and for stored states that do not fit the clip's sound.
    """
    digest = sha256(weights_path(hubert_dir))[:_DIGEST_LENGTH]
    paths = {clip.name: hubert_path(data_dir / clip.name, digest) for clip in clips}
    own = clips[accelerator.process_index :: accelerator.num_processes]
    missing = [clip for clip in own if not paths[clip.name].is_file()]
    if missing:
        hubert = HubertEncoder.load(hubert_dir, accelerator.device)
        for clip in progress(missing, len(missing), "HuBERT"):
            save_array(paths[clip.name], hubert.encode(clip.wave).astype(np.float16))
    accelerator.wait_for_everyone()
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

    speech = [window_features(window) for window in windows]
    inputs = MotionInputs(
        audio=stack([mask_features(features, augmentation, rng) for features in speech]),
        f0=stack([window.f0 for window in windows]),
        blink=stack([window.blink[:, None] for window in windows]),
        mouth_amp=stack([np.full(1, window.mouth_amp, np.float32) for window in windows]),
        eye_amp=stack([np.full(1, window.eye_amp, np.float32) for window in windows]),
    )
    return MotionBatch(
        inputs,
        motion=stack([window.expression for window in windows]),
        identity=stack([window.identity for window in windows]),
        mask=stack([window.mask for window in windows]),
        speech=stack(speech),
        names=tuple(window.name for window in windows),
    )


def window_features(window: MotionWindow) -> Float[np.ndarray, "s c"]:
    """The window's states if it has them, else its MFCC, scaled as in speech_features, without the margins."""
    if window.audio.size:
        return window.audio.astype(np.float32)
    steps = mfcc(resample(window.wave, window.rate, MFCC_RATE)) * np.float32(MFCC_SCALE)
    first = MARGIN_FRAMES * STEPS_PER_FRAME
    return steps[first : first + STEPS_PER_FRAME * len(window.mask)]


def clip_features(clip: MotionClip, config: Audio2MotionConfig) -> SpeechFeatures:
    """speech_features of a whole clip, from its states if it has them."""
    if not clip.audio.size:
        return speech_features(clip.wave, config.audio_type, config.use_pitch)
    audio = pad_to_multiple(clip.audio.astype(np.float32))
    f0 = pitch_contour(clip.wave) if config.use_pitch else np.zeros(0, np.float32)
    return SpeechFeatures(audio, fit_length(f0, len(audio)))
