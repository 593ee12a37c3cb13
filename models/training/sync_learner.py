"""Learner of the sync expert: pairs of motion and sound, validation on held-out speakers, export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from models.face3d.face_model import FaceModel
from models.lipsync.sync_expert import EXPERT_NAME, SyncExpert, SyncExpertConfig, save_expert
from models.training.motion_batches import clip_features
from models.training.motion_learner import load_clips
from models.training.motion_training_config import MotionTrainingConfig
from models.training.sync_validation import THRESHOLD, Embedded, curve_text, judge, judgement_table, pool
from utils.core.types import FEATURE_RATE, SAMPLE_RATE
from utils.data.motion_dataset import MotionClip
from utils.data.sync_pairs import PairSampler, SyncClip, SyncPairs, sync_clip
from utils.training.learner import Findings, NetworkLearner
from utils.training.motion_losses import LandmarkOffsets
from utils.training.training_loop import BEST_NAME, writing
from utils.weights.checkpoints import load_strict, read_weights

if TYPE_CHECKING:
    from accelerate import Accelerator

_CHUNK = 1024  # pairs per pass in validation


class SyncLearner(NetworkLearner[SyncPairs]):
    """Trains the expert on pairs from the motion network's training clips."""

    network: SyncExpert

    def __init__(self, config: MotionTrainingConfig, accelerator: Accelerator) -> None:
        """Raises BadInput if the training clips have a single speaker."""
        self.config, self.accelerator = config, accelerator
        self.samples_per_step = config.sync.batch_pairs
        face = FaceModel.load(config.face_model)
        self.clips, self.validation = (
            [sync_clip(clip, self._features(clip)) for clip in group] for group in load_clips(config, face, accelerator)
        )
        self.sampler = PairSampler(self.clips)
        _, identity_basis, expression_basis = face.landmark_bases()
        self.offsets = LandmarkOffsets(identity_basis, expression_basis).to(self.device)
        audio_dim = self.clips[0].audio.shape[1]
        inputs = (config.network.audio_type, audio_dim, config.sync.use_identity, config.sync.audio_components)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            expert = SyncExpert(SyncExpertConfig(*inputs, config.sync.sizes))
        if expert.audio_projection is not None:
            features = np.concatenate([clip.audio for clip in self.clips]).astype(np.float32)
            expert.audio_projection.fit(torch.from_numpy(features))
        expert.to(self.device)
        adam = torch.optim.Adam(
            expert.parameters(), lr=config.sync.learning_rate, weight_decay=config.sync.weight_decay
        )
        self.prepare(expert, adam)

    def _features(self, clip: MotionClip) -> Float[np.ndarray, "a c"]:
        """The motion network's audio features of the whole clip."""
        if clip.audio.size:
            return clip.audio
        return clip_features(clip, self.config.network).audio[: len(clip.wave) * FEATURE_RATE // SAMPLE_RATE]

    def describe(self) -> str:
        n_speakers = len({clip.speaker for clip in self.sampler.clips})
        return (
            f"sync expert: {len(self.sampler.clips)} clips of {n_speakers} speakers to train on, "
            f"{len(self.validation)} to validate on"
        )

    def batch(self, number: int) -> SyncPairs:
        return self.sampler.draw(self.samples_per_step, np.random.default_rng([self.config.seed, number]))

    def item_names(self, batch: SyncPairs) -> Sequence[str]:
        return sorted({name for pair in batch.clips for name in pair})

    def landmarks(
        self, expression: Float[np.ndarray, "p t 64"], identity: Float[np.ndarray, "p t 80"]
    ) -> Float[Tensor, "p t 1404"]:
        known = torch.from_numpy(identity).to(self.device) * self.config.sync.use_identity
        return self.offsets(known, torch.from_numpy(expression).to(self.device))

    def losses(self, batch: SyncPairs, number: int) -> dict[str, Tensor]:  # noqa: ARG002
        self.network.train()
        labels = torch.from_numpy(batch.labels).to(self.device)
        audio = torch.from_numpy(batch.audio).to(self.device)
        found = self.model(self.landmarks(batch.expression, batch.identity), audio)
        loss = F.binary_cross_entropy(found, labels)
        is_right = ((found > THRESHOLD) == (labels > 0)).float()
        rates = [is_right[labels == label].mean() for label in (0, 1)]
        return {"total": loss, "balanced_accuracy": torch.stack(rates).mean().detach()}

    def rate(self, spent: float) -> float:  # noqa: ARG002  # depends on the step alone
        return self.config.sync.rate(self.step)

    @torch.no_grad()
    def validate(self) -> Findings | None:
        """Score: share of comparisons in which the right sound beats one that is shifted by 2 to 10 frames."""
        self.network.eval()
        clips = [clip for clip in self.validation if clip.starts.any()]
        if not clips:
            return None
        embedded = [self._embed(clip) for clip in clips]
        found = {}
        for index, clip in enumerate(clips):
            strangers = [e.audio for other, e in zip(clips, embedded, strict=True) if other.speaker != clip.speaker]
            found[clip.name] = judge(embedded[index], strangers)
        pooled = pool(list(found.values()))
        curve = f"mean cosine by offset in frames, + is sound later: {curve_text(pooled.curve)}"
        score = (pooled.wins["near"] + pooled.wins["far"]) / 2
        figures = {f"{kind}/{name}": value for name, one in found.items() for kind, value in one.wins.items()}
        figures |= {f"{kind}/all": value for kind, value in pooled.wins.items()}
        figures |= {f"balanced_accuracy/{name}": one.balanced for name, one in found.items()}
        figures |= {"balanced_accuracy/all": pooled.balanced}
        figures |= {f"cosine/{offset:+d}": value for offset, value in pooled.curve.items()}
        return Findings(f"{curve}\n{judgement_table(found, pooled)}", figures, score)

    def _embed(self, clip: SyncClip) -> Embedded:
        starts = np.flatnonzero(clip.starts)
        motions, sounds = [], []
        for first in range(0, len(starts), _CHUNK):
            some = starts[first : first + _CHUNK]
            motions.append(self.network.embed_motion(self.landmarks(*clip.motion(some))))
            sounds.append(self.network.embed_audio(torch.from_numpy(clip.sound(some)).to(self.device)))
        return Embedded(starts, torch.cat(motions).cpu().numpy(), torch.cat(sounds).cpu().numpy())

    def description(self) -> dict[str, Any]:
        return {"sync expert": asdict(self.network.config)}

    def best_weights(self) -> Mapping[str, Tensor]:
        return self.network.state_dict()

    def export(self, directory: Path) -> Path:
        """Write the best expert of the training's folder; raises BadInput if there is none."""
        path = self.config.sync.output_dir / BEST_NAME
        expert = SyncExpert(self.network.config)
        load_strict(expert, read_weights(path)["network"], path)
        with writing(directory / EXPERT_NAME):
            save_expert(directory / EXPERT_NAME, expert)
        return directory / EXPERT_NAME
