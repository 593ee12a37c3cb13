"""Networks that learn beside the generator and tell it what an L1 loss cannot: whether a lower face looks real, and
whether it fits the sound. Both are beyond the reference and off by default.

real    a patch discriminator (Isola et al. 2017, section 3.2.2) with the hinge loss (Lim and Ye 2017)
sync    a small expert that finds the sound of each frame among those of other frames of the same clip, so that neither
        face nor voice can help; it learns from real frames only and hears what the generator hears, 0.2 s
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from utils.training.training import frozen

CHANNELS = 64
N_GROUPS = 8
SYNC_CHANNELS = 128
SYNC_SCALE = 10.0  # inverse temperature of the cosine similarities


@dataclass(frozen=True)
class LowerFaces:
    """Lower halves of n decoded frames, and what is heard at them.

    images: in [-1, 1]; sound: log-mel frames of the audio window; clips: number of each frame's clip in the batch.
    """

    images: Float[Tensor, "n 3 h w"]
    sound: Float[Tensor, "n m t"]
    clips: Int[Tensor, " n"]
    has_audio: Bool[Tensor, " n"]


class PatchDiscriminator(nn.Module):
    """Images to one score per patch, high for real ones."""

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


class SyncExpert(nn.Module):
    """Lower faces and sounds as unit vectors, close where they belong together."""

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
        """Cross-entropy of finding each frame's sound, and each sound's frame, among those of its clip."""
        seen = F.normalize(self.image_vector(self.images(faces.images).mean(dim=(2, 3))), dim=1)
        heard = F.normalize(self.sound_vector(self.sounds(faces.sound).mean(dim=2)), dim=1)
        scores = SYNC_SCALE * seen @ heard.T
        is_other_clip = faces.clips[:, None] != faces.clips
        scores = scores.float().masked_fill(is_other_clip, float("-inf"))
        own = torch.arange(len(scores), device=scores.device)
        losses = F.cross_entropy(scores, own, reduction="none") + F.cross_entropy(scores.T, own, reduction="none")
        return (losses * faces.has_audio).sum() / (2 * faces.has_audio.sum().clamp(min=1))


class Critics(nn.Module):
    """The critics that a training asks for; ``forward`` is what they learn from, ``judge`` what they teach."""

    def __init__(self, n_mels: int, with_patches: bool, with_sync: bool, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.patches = PatchDiscriminator() if with_patches else None
            self.sync = SyncExpert(n_mels) if with_sync else None

    def forward(self, real: LowerFaces, drawn: LowerFaces) -> dict[str, Tensor]:
        """Their own losses."""
        losses = {}
        if self.patches is not None:
            real_scores, drawn_scores = self.patches(torch.cat((real.images, drawn.images.detach()))).chunk(2)
            losses["discriminator"] = F.relu(1 - real_scores).mean() + F.relu(1 + drawn_scores).mean()
        if self.sync is not None:
            losses["sync_expert"] = self.sync(real)
        return losses

    def judge(self, drawn: LowerFaces) -> dict[str, Tensor]:
        """Losses of the generator; the critics' own weights get no gradient."""
        losses = {}
        with frozen(self):
            if self.patches is not None:
                losses["adversarial"] = -self.patches(drawn.images).mean()
            if self.sync is not None:
                losses["sync"] = self.sync(drawn)
        return losses
