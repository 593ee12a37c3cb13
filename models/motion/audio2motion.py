"""Speech features to expression coefficients: conditioning encoders around the flow-VAE.

Two variants exist in published checkpoints. The pitch variant takes audio, pitch, blinks and amplitudes of
mouth and eyes; the plain variant takes audio only. Architecture: Real3DPortrait (arXiv 2401.08503), whose
state-dict names are kept so that its checkpoints load strictly. Not in Real3DPortrait: a fixed projection of Whisper
states (audio_type whisper) to few whitened components, and a regression ensemble in place of the flow-VAE.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from models.audio.audio_features import AUDIO_DIMS, SpeechFeatures, coarse_pitch
from models.motion.components import PrincipalComponents
from models.motion.flow import FlowVAE, FlowVAESizes, Reconstruction, motion_blocks
from models.motion.regression import RegressionEnsemble, RegressionSizes
from utils.core.config import Decay, Size
from utils.core.types import FEATURE_RATE, MOTION_FPS, N_EXP
from utils.files.disk_arrays import release

DEFAULT_AMPLITUDE = 0.4  # default of mouth and eyes
STEPS_PER_FRAME = FEATURE_RATE // MOTION_FPS
_PITCH_EMBEDDINGS = 300


@dataclass(frozen=True)
class Audio2MotionConfig:
    """Variant and sizes; the published checkpoint is the pitch variant on HuBERT states with a mouth amplitude."""

    audio_type: str = "hubert"  # mfcc | hubert | whisper
    use_pitch: bool = True
    use_mouth_amp_embed: bool = True  # pitch variant only
    use_eye_amp_embed: bool = False  # pitch variant only
    cond_channels: Size = 128  # 64 in the published plain variant
    audio_components: Size = 64  # of audio_type whisper: principal components of the states that the network reads
    audio_dropout: Decay = 0.0  # share of the features or components that training blanks
    sizes: FlowVAESizes = field(default_factory=FlowVAESizes)
    regression: RegressionSizes = field(default_factory=RegressionSizes)  # with members: plain, without a flow-VAE


@dataclass(frozen=True)
class MotionInputs:
    """A batch of conditions at 50 Hz; T is a multiple of 8.

    audio [B, T, C]; f0 [B, T] Hz, 0 = unvoiced; blink [B, T, 1], 0 or 1; mouth_amp, eye_amp [B, 1].
    The plain variant reads audio only. Left out: no pitch, no blink, amplitudes 0.4.
    """

    audio: Tensor
    f0: Tensor | None = None
    blink: Tensor | None = None
    mouth_amp: Tensor | None = None
    eye_amp: Tensor | None = None


class Audio2Motion(nn.Module, ABC):
    """Base of all variants; build one with build_audio2motion or load_audio2motion."""

    def __init__(self, config: Audio2MotionConfig, audio_dim: int) -> None:
        super().__init__()
        self.config = config
        self.audio_dim = audio_dim  # channels of the input features
        self.audio_projection: PrincipalComponents | None = None
        if config.audio_type == "whisper":
            self.audio_projection = PrincipalComponents(audio_dim, config.audio_components)
        self.n_components = audio_dim if self.audio_projection is None else config.audio_components

    @abstractmethod
    def sample(self, inputs: MotionInputs, noise: Float[Tensor, "b z s"]) -> Float[Tensor, "b t 64"]:
        """Inference path: motion of the whole length, from noise that is already times the temperature."""

    def components(self, audio: Float[Tensor, "b t c"]) -> Float[Tensor, "b t d"]:
        """Projected features, in training with dropout."""
        if self.audio_projection is not None:
            audio = self.audio_projection(audio)
        return functional.dropout(audio, self.config.audio_dropout, self.training)

    @torch.no_grad()
    def predict(
        self,
        features: SpeechFeatures,
        seed: int = 0,
        temperature: float = 0.2,
        mouth_amp: float = 0.45,
        eye_amp: float = 1.0,
    ) -> Float[np.ndarray, "t 64"]:
        """Expression coefficients of one clip, float32 [T50 / 2, 64] at 25 Hz, without blinks.

        The noise is drawn on the CPU whatever the device: the same seed gives the same noise everywhere.
        Temperature 0 gives the most likely motion and ignores the seed.
        """
        n_latent_steps = len(features.audio) // STEPS_PER_FRAME // self.config.sizes.stride
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(1, self.config.sizes.latent, n_latent_steps, generator=generator) * temperature
        motion = []
        for block in motion_blocks(n_latent_steps, self.config.sizes):
            made = self._predict_block(features, noise, block.read, mouth_amp, eye_amp)
            first = (block.kept.start - block.read.start) * self.config.sizes.stride
            motion.append(made[first : first + len(block.kept) * self.config.sizes.stride])
            release(features.audio)
        return np.concatenate(motion)

    def _predict_block(
        self, features: SpeechFeatures, noise: Float[Tensor, "1 z s"], read: range, mouth_amp: float, eye_amp: float
    ) -> Float[np.ndarray, "t 64"]:
        """The motion of the latent steps ``read``."""
        device = next(self.parameters()).device
        n_steps = STEPS_PER_FRAME * self.config.sizes.stride
        steps = slice(read.start * n_steps, read.stop * n_steps)
        inputs = MotionInputs(
            torch.from_numpy(features.audio[steps])[None].to(device),
            f0=torch.from_numpy(features.f0[steps])[None].to(device),
            mouth_amp=torch.full((1, 1), mouth_amp, device=device),
            eye_amp=torch.full((1, 1), eye_amp, device=device),
        )
        made = self.sample(inputs, noise[:, :, read.start : read.stop].to(device))
        return made[0].float().cpu().numpy()


class FlowAudio2Motion(Audio2Motion):
    """Conditional flow-VAE: the two published variants."""

    def __init__(self, config: Audio2MotionConfig, audio_dim: int) -> None:
        super().__init__(config, audio_dim)
        self.mel_encoder = _conv_encoder(self.n_components, config.cond_channels)
        self.blink_embed = nn.Embedding(2, config.cond_channels)
        self.vae = FlowVAE(N_EXP, config.cond_channels, config.sizes)

    @abstractmethod
    def condition(self, inputs: MotionInputs) -> Float[Tensor, "b g t"]:
        """Encode the conditions at 25 Hz."""

    def forward(
        self,
        inputs: MotionInputs,
        motion: Float[Tensor, "b t 64"],
        mask: Float[Tensor, "b t"],
        noise: Float[Tensor, "b z s"],
    ) -> Reconstruction:
        """Training path: reconstruct the motion through the posterior; the output is [B, T, 64], masked."""
        result = self.vae(motion.transpose(1, 2), mask[:, None], self.condition(inputs), noise)
        return replace(result, output=result.output.transpose(1, 2))

    def sample(self, inputs: MotionInputs, noise: Float[Tensor, "b z s"]) -> Float[Tensor, "b t 64"]:
        """Decode prior noise."""
        return self.vae.sample(self.condition(inputs), noise).transpose(1, 2)


class RegressionAudio2Motion(Audio2Motion):
    """Audio only, halved to 25 Hz by averaging pairs of steps; the mean of an ensemble, without chance."""

    def __init__(self, config: Audio2MotionConfig, audio_dim: int) -> None:
        super().__init__(config, audio_dim)
        self.regression = RegressionEnsemble(self.n_components, N_EXP, config.regression)

    def forward(self, inputs: MotionInputs) -> Float[Tensor, "b m t 64"]:
        """Training path: the motion of every member."""
        return self.regression(self.components(_paired_mean(inputs.audio)).transpose(1, 2))

    def sample(self, inputs: MotionInputs, noise: Float[Tensor, "b z s"]) -> Float[Tensor, "b t 64"]:  # noqa: ARG002
        """The members' mean; the noise is not used."""
        return self(inputs).mean(dim=1)


class PlainAudio2Motion(FlowAudio2Motion):
    """Audio only, halved to 25 Hz by averaging pairs of steps. Its blink embedding is stored but never read."""

    def condition(self, inputs: MotionInputs) -> Float[Tensor, "b g t"]:
        return self.mel_encoder(self.components(_paired_mean(inputs.audio)).transpose(1, 2))


class PitchAudio2Motion(FlowAudio2Motion):
    """Audio, pitch, blinks and amplitudes, halved to 25 Hz by taking every other step (pitch before it is binned)."""

    def __init__(self, config: Audio2MotionConfig, audio_dim: int) -> None:
        super().__init__(config, audio_dim)
        channels = config.cond_channels
        self.pitch_embed = nn.Embedding(_PITCH_EMBEDDINGS, channels)
        self.pitch_encoder = _conv_encoder(channels, channels)
        if config.use_mouth_amp_embed:
            self.mouth_amp_embed = nn.Parameter(torch.randn(channels))
        if config.use_eye_amp_embed:
            self.eye_amp_embed = nn.Parameter(torch.randn(channels))
        n_conditions = 3 + config.use_mouth_amp_embed + config.use_eye_amp_embed
        self.cond_proj = nn.Linear(n_conditions * channels, channels)

    def condition(self, inputs: MotionInputs) -> Float[Tensor, "b g t"]:
        audio = inputs.audio[:, ::STEPS_PER_FRAME]
        parts = [
            self.mel_encoder(self.components(audio).transpose(1, 2)).transpose(1, 2),
            self._pitch(inputs.f0, audio),
            self._blink(inputs.blink, audio),
        ]
        if self.config.use_mouth_amp_embed:
            parts.append(_amplitude(inputs.mouth_amp, self.mouth_amp_embed, audio))
        if self.config.use_eye_amp_embed:
            parts.append(_amplitude(inputs.eye_amp, self.eye_amp_embed, audio))
        return self.cond_proj(torch.cat(parts, dim=-1)).transpose(1, 2)

    def _pitch(self, f0: Tensor | None, audio: Float[Tensor, "b t c"]) -> Float[Tensor, "b t g"]:
        halved = audio.new_zeros(audio.shape[:2]) if f0 is None else f0[:, ::STEPS_PER_FRAME]
        embedded = self.pitch_embed(coarse_pitch(halved))
        return self.pitch_encoder(embedded.transpose(1, 2)).transpose(1, 2)

    def _blink(self, blink: Int[Tensor, "b t50 1"] | None, audio: Float[Tensor, "b t c"]) -> Float[Tensor, "b t g"]:
        halved = audio.new_zeros(audio.shape[:2]) if blink is None else blink[:, ::STEPS_PER_FRAME, 0]
        return self.blink_embed(halved.long())


def _paired_mean(audio: Float[Tensor, "b t c"]) -> Float[Tensor, "b s c"]:
    return audio.unflatten(1, (-1, STEPS_PER_FRAME)).mean(dim=2)


def _amplitude(
    amplitude: Float[Tensor, "b 1"] | None, direction: Float[Tensor, " g"], audio: Float[Tensor, "b t c"]
) -> Float[Tensor, "b t g"]:
    if amplitude is None:
        amplitude = audio.new_full((len(audio), 1), DEFAULT_AMPLITUDE)
    return (amplitude * direction)[:, None].expand(-1, audio.shape[1], -1)


def _conv_encoder(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(in_channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm1d(channels),
        nn.GELU(),
        nn.Conv1d(channels, channels, 3, padding=1, bias=False),
    )


def build_audio2motion(config: Audio2MotionConfig, audio_dim: int | None = None) -> Audio2Motion:
    """A network with fresh weights; audio_dim follows from the audio type unless given."""
    audio_dim = audio_dim or AUDIO_DIMS[config.audio_type]
    if config.regression.members:
        return RegressionAudio2Motion(config, audio_dim)
    return PitchAudio2Motion(config, audio_dim) if config.use_pitch else PlainAudio2Motion(config, audio_dim)
