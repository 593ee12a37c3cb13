"""Sync expert, a network that scores lip sync: two convolutional towers and a cosine.

Inputs are five frames of 468 landmarks (cm from the mean face) and ten 50-Hz steps of speech features. The towers
end in a ReLU, so the cosine lies in [0, 1] and serves as a probability. Sizes: Real3DPortrait
(arXiv 2401.08503), audio_lm3d_syncnet.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models.motion.audio2motion import Audio2MotionConfig
from models.motion.components import PrincipalComponents
from utils.core.config import Layers, Size
from utils.core.errors import BadInput
from utils.core.types import N_LANDMARKS
from utils.data.sync_pairs import PAIR_FRAMES, PAIR_STEPS
from utils.weights.checkpoints import load_strict, read_metadata, read_weights, save_weights

LANDMARK_DIM = 3 * N_LANDMARKS
EXPERT_NAME = "sync_expert.safetensors"


@dataclass(frozen=True)
class SyncExpertSizes:
    """Widths grow from ``hidden`` to four times that; every width has one plain and n_layers - 1 residual layers."""

    hidden: Size = 128
    embedding: Size = 1024
    n_layers: Layers = 3


@dataclass(frozen=True)
class SyncExpertConfig:
    """Inputs and sizes of an expert, stored beside its weights.

    use_identity: landmarks of the speaker's own face, as in the reference; false: of the mean face, so that voices
    cannot be matched to faces. audio_components: principal components of the features that are read; 0: the features.
    """

    audio_type: str
    audio_dim: int
    use_identity: bool = True
    audio_components: int = 0
    sizes: SyncExpertSizes = field(default_factory=SyncExpertSizes)


class _Layer(nn.Module):
    """Convolution over time, batch normalisation, ReLU; with a shortcut where input and output have one shape."""

    def __init__(self, n_in: int, n_out: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(n_in, n_out, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm1d(n_out)
        self.is_residual = n_in == n_out and stride == 1 and padding == kernel // 2 and kernel > 1

    def forward(self, x: Float[Tensor, "b c t"]) -> Float[Tensor, "b d s"]:
        y = self.norm(self.conv(x))
        return F.relu(y + x if self.is_residual else y)


def _tower(n_in: int, n_steps: int, sizes: SyncExpertSizes) -> nn.Sequential:
    """[B, n_in, n_steps] to [B, embedding, 1]: time is halved down to three steps, which one kernel covers."""
    layers: list[nn.Module] = [_Layer(n_in, sizes.hidden)]
    width = sizes.hidden
    for factor in (1, 2, 4):
        halves = factor > 1 and n_steps > 3
        layers.append(_Layer(width, factor * sizes.hidden, stride=2 if halves else 1))
        width, n_steps = factor * sizes.hidden, -(-n_steps // 2) if halves else n_steps
        layers += [_Layer(width, width) for _ in range(sizes.n_layers - 1)]
    layers += [_Layer(width, width, kernel=n_steps, padding=0), _Layer(width, sizes.embedding, kernel=1, padding=0)]
    return nn.Sequential(*layers)


class SyncExpert(nn.Module):
    def __init__(self, config: SyncExpertConfig) -> None:
        super().__init__()
        self.config = config
        self.motion_tower = _tower(LANDMARK_DIM, PAIR_FRAMES, config.sizes)
        self.audio_projection: PrincipalComponents | None = None
        if config.audio_components:
            self.audio_projection = PrincipalComponents(config.audio_dim, config.audio_components)
        self.audio_tower = _tower(config.audio_components or config.audio_dim, PAIR_STEPS, config.sizes)

    def embed_motion(self, landmarks: Float[Tensor, "p 5 1404"]) -> Float[Tensor, "p e"]:
        """Unit vectors; see LandmarkOffsets for the landmarks."""
        return F.normalize(self.motion_tower(landmarks.transpose(1, 2)).flatten(1), dim=1)

    def embed_audio(self, audio: Float[Tensor, "p 10 c"]) -> Float[Tensor, "p e"]:
        if self.audio_projection is not None:
            audio = self.audio_projection(audio)
        return F.normalize(self.audio_tower(audio.transpose(1, 2)).flatten(1), dim=1)

    def forward(self, landmarks: Float[Tensor, "p 5 1404"], audio: Float[Tensor, "p 10 c"]) -> Float[Tensor, " p"]:
        """Probability that landmarks and sound are in sync."""
        return (self.embed_motion(landmarks) * self.embed_audio(audio)).sum(dim=1).clamp(0, 1)


def sync_loss(
    expert: SyncExpert,
    landmarks: Float[Tensor, "b t 1404"],
    audio: Float[Tensor, "b s c"],
    mask: Float[Tensor, "b t"],
    n_clips: int,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Mean -log probability over up to ``n_clips`` clips of five valid frames, sampled without replacement."""
    is_valid = mask.unfold(1, PAIR_FRAMES, 1).amin(dim=2) > 0
    windows, starts = is_valid.nonzero(as_tuple=True)
    if len(windows) == 0:
        return 0 * landmarks.sum()
    chosen = torch.randperm(len(windows), generator=generator)[:n_clips].to(windows.device)
    windows, starts = windows[chosen, None], starts[chosen, None]
    frames = starts + torch.arange(PAIR_FRAMES, device=starts.device)
    steps = (PAIR_STEPS // PAIR_FRAMES) * starts + torch.arange(PAIR_STEPS, device=starts.device)
    found = expert(landmarks[windows, frames], audio[windows, steps])
    return F.binary_cross_entropy(found, torch.ones_like(found))


def save_expert(path: Path, expert: SyncExpert) -> None:
    save_weights(path, expert.state_dict(), {"config": json.dumps(asdict(expert.config))})


def load_expert(path: Path, network: Audio2MotionConfig, audio_dim: int, device: torch.device) -> SyncExpert:
    """Open a frozen expert. Raises BadInput if its features are not those of the motion network."""
    try:
        values = json.loads(read_metadata(path)["config"])
        config = SyncExpertConfig(**values | {"sizes": SyncExpertSizes(**values["sizes"])})
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        advice = "train one with train_audio2motion.py --task sync"
        raise BadInput("not a sync expert", path, "a config in its metadata", "none", advice) from error
    if (config.audio_type, config.audio_dim) != (network.audio_type, audio_dim):
        expected, found = f"{network.audio_type}, {audio_dim} channels", f"{config.audio_type}, {config.audio_dim}"
        raise BadInput("sync expert for other features", path, expected, found, "train one on these features")
    expert = SyncExpert(config)
    load_strict(expert, read_weights(path), path)
    return expert.to(device).eval().requires_grad_(False)
