"""Discriminators for the adversarial and sync losses of generator training; not in the reference, off by default.

patches  patch discriminator (Isola et al. 2017, section 3.2.2) with the hinge loss (Lim and Ye 2017)
sync     contrastive image-sound network: picks each frame's sound among those of other frames of the same clip, so
         that neither identity nor voice helps; trained on real frames only, on the generator's 0.2 s of sound.
         Not the sync expert of stage 1 (models/lipsync/sync_expert.py), which sees expression coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from utils.training.optimization import frozen

CHANNELS = 64
N_GROUPS = 8
SYNC_CHANNELS = 128
SYNC_SCALE = 10.0  # inverse temperature of the cosine similarities


@dataclass(frozen=True)
class LowerFaces:
    """Lower halves of n decoded frames, and their sound.

    images: in [-1, 1]; sound: log-mel frames of the audio window; clips: number of each frame's clip in the batch.
    """

    images: Float[Tensor, "n 3 h w"]
    sound: Float[Tensor, "n m t"]
    clips: Int[Tensor, " n"]
    has_audio: Bool[Tensor, " n"]


class PatchDiscriminator(nn.Module):
    """One score per image patch, high for real images."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, CHANNELS, 2 * CHANNELS, 4 * CHANNELS)
        layers: list[nn.Module] = []
        for i, (n_in, n_out) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(n_in, n_out, 4, stride=2, padding=1)]
            layers += [nn.GroupNorm(N_GROUPS, n_out)] if i else []
            layers += [nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 a b"]:
        return self.layers(images)


class SyncDiscriminator(nn.Module):
    """Embeds lower faces and their sounds as unit vectors, close for matching pairs."""

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        width = SYNC_CHANNELS
        images: list[nn.Module] = []
        for n_in, n_out in ((3, width // 4), (width // 4, width // 2), (width // 2, width), (width, width)):
            images += [nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.GroupNorm(N_GROUPS, n_out), nn.GELU()]
        self.images = nn.Sequential(*images)
        self.sounds = nn.Sequential(
            nn.Conv1d(n_mels, width, 3, padding=1),
            nn.GELU(),
            nn.Conv1d(width, width, 3, stride=2, padding=1),
            nn.GELU(),
        )
        self.image_vector, self.sound_vector = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, faces: LowerFaces) -> Float[Tensor, ""]:
        """Cross-entropy of picking each frame's sound, and each sound's frame, among those of its clip."""
        image_vectors = F.normalize(self.image_vector(self.images(faces.images).mean(dim=(2, 3))), dim=1)
        sound_vectors = F.normalize(self.sound_vector(self.sounds(faces.sound).mean(dim=2)), dim=1)
        scores = SYNC_SCALE * image_vectors @ sound_vectors.T
        is_other_clip = faces.clips[:, None] != faces.clips
        scores = scores.float().masked_fill(is_other_clip, float("-inf"))
        own = torch.arange(len(scores), device=scores.device)
        losses = F.cross_entropy(scores, own, reduction="none") + F.cross_entropy(scores.T, own, reduction="none")
        return (losses * faces.has_audio).sum() / (2 * faces.has_audio.sum().clamp(min=1))


class Discriminators(nn.Module):
    """The discriminators that a training uses: ``forward`` gives their own losses, ``judge`` the generator's."""

    def __init__(self, n_mels: int, with_patches: bool, with_sync: bool, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.patches = PatchDiscriminator() if with_patches else None
            self.sync = SyncDiscriminator(n_mels) if with_sync else None

    def forward(self, real: LowerFaces, generated: LowerFaces) -> dict[str, Tensor]:
        """Losses of the discriminators; no gradient reaches the generated images."""
        losses = {}
        if self.patches is not None:
            real_scores, generated_scores = self.patches(torch.cat((real.images, generated.images.detach()))).chunk(2)
            losses["discriminator"] = F.relu(1 - real_scores).mean() + F.relu(1 + generated_scores).mean()
        if self.sync is not None:
            losses["sync_expert"] = self.sync(real)
        return losses

    def judge(self, generated: LowerFaces) -> dict[str, Tensor]:
        """Losses of the generator; no gradient reaches the discriminators' weights."""
        losses = {}
        with frozen(self):
            if self.patches is not None:
                losses["adversarial"] = -self.patches(generated.images).mean()
            if self.sync is not None:
                losses["sync"] = self.sync(generated)
        return losses
