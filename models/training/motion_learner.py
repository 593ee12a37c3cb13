"""Learner of audio2motion (stage 1): losses on windows, validation on held-out speakers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from models.face3d.face_model import FaceModel
from models.lipsync.sync_expert import SyncExpert, load_expert, sync_loss
from models.motion.audio2motion import Audio2Motion, RegressionAudio2Motion, build_audio2motion
from models.training.cut_clips import cut_clips
from models.training.lip_figures import by_group, figure_table, lip_figures
from models.training.motion_batches import (
    MotionBatch,
    collate,
    labelled,
    with_hubert,
    with_variants,
    with_whisper,
)
from models.training.motion_training_config import MotionTrainingConfig
from models.training.motion_validation import (
    error_figures,
    error_table,
    lip_errors,
    match_line,
    median_correlation,
    opening_direction,
    opening_matches,
    predict_clips,
    ridge_matches,
)
from utils.data.motion_dataset import MotionClip, load_motion_clips
from utils.data.motion_windows import WindowSampler
from utils.imaging.landmarks import INNER_LIPS, OUTER_LIPS
from utils.training.learner import Findings, NetworkLearner
from utils.training.motion_losses import (
    LandmarkLoss,
    LandmarkOffsets,
    LossConfig,
    cyclic_weight,
    laplacian_energy,
    magnitude,
    masked_mse,
    velocity_mse,
)
from utils.training.optimization import MovingAverage, batch_seed

if TYPE_CHECKING:
    from accelerate import Accelerator

_STATES_FOLDER = "states"  # in the training's folder


class MotionLearner(NetworkLearner[MotionBatch]):
    """Trains the network and its moving average, with the sync expert's loss if the config names one."""

    network: Audio2Motion
    face: FaceModel

    def __init__(self, config: MotionTrainingConfig, accelerator: Accelerator) -> None:
        self.config, self.accelerator = config, accelerator
        self.samples_per_step, self.clip_norm = config.data.batch_size, config.optimizer.clip_norm
        self.face = FaceModel.load(config.face_model)
        self.clips, self.validation = load_clips(config, self.face, accelerator)
        self.originals = [clip for clip in self.clips if not clip.is_copy]
        mirror = face_mirror(self.face)
        self.cuts = load_cuts(config, self.clips)
        training = [*self.clips, *self.cuts]
        self.sampler = WindowSampler(training, config.data.window_frames, config.augmentation, mirror)
        _, identity_basis, expression_basis = self.face.landmark_bases()
        self.offsets = LandmarkOffsets(identity_basis, expression_basis).to(self.device)
        lips = [*OUTER_LIPS, *INNER_LIPS]
        self.lip_offsets = LandmarkOffsets(identity_basis[lips], expression_basis[lips]).to(self.device)
        self.landmark_loss = LandmarkLoss(self.offsets).to(self.device)
        self.opening = opening_direction(expression_basis.numpy())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            audio_dim = self.clips[0].audio.shape[1] or None  # else that of the audio type
            network = build_audio2motion(config.network, audio_dim).to(self.device)
        if network.audio_projection is not None:
            states = np.concatenate([clip.audio for clip in self.originals])
            network.audio_projection.fit(torch.from_numpy(states).float())
        if isinstance(network, RegressionAudio2Motion):
            network.regression.set_mean(torch.from_numpy(self.mean_expression()))
        self.average = MovingAverage(network, config.optimizer.average_decay, ramps=False)
        self.prepare(network, torch.optim.Adam(network.parameters(), lr=config.optimizer.learning_rate))
        self.expert = None
        if config.sync_expert is not None:
            self.expert = load_expert(config.sync_expert, config.network, network.audio_dim, self.device)

    def describe(self) -> str:
        """Clips and speakers, and the correlation that a linear model reaches on the validation clips."""
        n_speakers, n_held_out = (len({clip.speaker for clip in group}) for group in (self.clips, self.validation))
        n_clips, n_copies = len(self.originals), len(self.clips) - len(self.originals)
        copies = f" and {n_copies} copies with other voices and rooms" if n_copies else ""
        cuts = f", {len(self.cuts)} cuts of them," if self.cuts else ""
        trained = f"{n_clips} clips{copies}{cuts} of {n_speakers} speakers to train on"
        text = f"{trained}, {len(self.validation)} of {n_held_out}"
        common = {clip.speaker for clip in self.clips} & {clip.speaker for clip in self.validation}
        note = f"; trained on too: {', '.join(sorted(common))}" if common else ""
        expert = f"sync expert {self.config.sync_expert}" if self.expert else "no sync expert"
        text = f"{text} to validate on{note}; {expert}"
        if not self.validation:
            return text
        matches = ridge_matches(self.originals, self.validation, self.opening)
        return f"{text}\n{match_line('linear baseline', matches)}"

    def mean_expression(self) -> Float[np.ndarray, " 64"]:
        """Mean over all valid training frames."""
        return np.concatenate([clip.expression[clip.valid] for clip in self.originals]).mean(axis=0)

    def batch(self, number: int) -> MotionBatch:
        rng = np.random.default_rng([self.config.seed, number])
        windows = [self.sampler.draw(rng) for _ in range(self.samples_per_step)]
        return collate(windows, self.config.augmentation, rng, self.device)

    def item_names(self, batch: MotionBatch) -> Sequence[str]:
        return batch.names

    def losses(self, batch: MotionBatch, number: int) -> dict[str, Tensor]:
        """Unweighted terms and their weighted total."""
        generator = torch.Generator().manual_seed(batch_seed(self.config.seed, number))
        terms = self._terms(batch, generator)
        return {"total": weighted_total(terms, self.config.loss, self.step), **terms}

    def _terms(self, batch: MotionBatch, generator: torch.Generator) -> dict[str, Tensor]:
        self.network.train()
        if isinstance(self.network, RegressionAudio2Motion):
            return self._regression_terms(batch)
        sizes, loss = self.config.network.sizes, self.config.loss
        shape = (len(batch.motion), sizes.latent, batch.motion.shape[1] // sizes.stride)
        noise = torch.randn(shape, generator=generator).to(self.device)
        result = self.model(batch.inputs, batch.motion, batch.mask, noise)
        terms = {
            "kl": result.kl,
            "expression": masked_mse(result.output, batch.motion, batch.mask),
            "landmarks": self.landmark_loss(result.output, batch.motion, batch.identity, batch.mask),
            "laplacian": laplacian_energy(result.output, batch.mask),
            "magnitude": magnitude(result.output, batch.mask),
        }
        if self.expert is not None and loss.sync:
            terms["sync"] = self._sync_loss(self.expert, result.output, batch, generator)
        if loss.prior_expression or loss.prior_landmarks or loss.prior_sync:
            likely = self.network.sample(batch.inputs, torch.zeros_like(noise))
            terms["prior_expression"] = masked_mse(likely, batch.motion, batch.mask)
            terms["prior_landmarks"] = self.landmark_loss(likely, batch.motion, batch.identity, batch.mask)
            if self.expert is not None and loss.prior_sync:
                terms["prior_sync"] = self._sync_loss(self.expert, likely, batch, generator)
        return terms

    def _regression_terms(self, batch: MotionBatch) -> dict[str, Tensor]:
        """Every member has the same targets."""
        n_members = self.config.network.regression.members
        error = (self.model(batch.inputs) - batch.motion[:, None]).flatten(0, 1)
        mask = batch.mask.repeat_interleave(n_members, dim=0)
        lip_error = self.lip_offsets(batch.identity.new_zeros(1, 1, batch.identity.shape[2]), error)
        still = torch.zeros_like(lip_error)
        return {
            "expression": masked_mse(error, torch.zeros_like(error), mask),
            "lips": masked_mse(lip_error, still, mask),
            "lip_velocity": velocity_mse(lip_error, mask),
        }

    def _sync_loss(
        self, expert: SyncExpert, motion: Float[Tensor, "b t 64"], batch: MotionBatch, generator: torch.Generator
    ) -> Tensor:
        """Sync loss of the predicted motion, with the identity of each window's first frame."""
        landmarks = self.offsets(batch.identity[:, :1] * expert.config.use_identity, motion)
        return sync_loss(expert, landmarks, batch.speech, batch.mask, self.config.sync_clips, generator)

    def rate(self, spent: float) -> float:  # noqa: ARG002  # depends on the step alone
        return self.config.optimizer.rate(self.step)

    def after_step(self) -> None:
        self.average.update(self.network, self.step)

    def validate(self) -> Findings | None:
        """Score: median correlation of the mouth's opening; None with keep_newest."""
        if not self.validation:
            return None
        predicted = predict_clips(cast(Audio2Motion, self.average.module), self.validation)
        matches = opening_matches(predicted, self.validation, self.opening)
        errors = lip_errors(predicted, self.validation, self.mean_expression(), self.face)
        openings = {f"opening_r/{name}": match.r for name, match in matches.items()}
        score = None if self.config.keep_newest else median_correlation(matches)
        figures = {clip.name: lip_figures(predicted[clip.name], clip, self.face) for clip in self.validation}
        tables = f"{error_table(errors)}\n{figure_table(by_group(figures, self.validation))}"
        text = f"{match_line('mouth opening', matches)}\n{tables}"
        return Findings(text, openings | error_figures(errors), score)

    def description(self) -> dict[str, Any]:
        return {"network": asdict(self.config.network), "audio channels": self.network.audio_dim}

    def best_weights(self) -> Mapping[str, Tensor]:
        return self.average.module.state_dict()

    def state(self) -> dict[str, Any]:
        return super().state() | {"average": self.average.module.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.average.module.load_state_dict(state["average"])


def face_mirror(face: FaceModel) -> Float[np.ndarray, "64 64"] | None:
    """Matrix that swaps left and right of an expression; None if the face model has none."""
    mirror: Tensor | None = face.get_buffer("mirror_exp")
    return None if mirror is None else mirror.numpy()


def load_clips(
    config: MotionTrainingConfig, face: FaceModel, accelerator: Accelerator
) -> tuple[list[MotionClip], list[MotionClip]]:
    """Training and validation clips, with the labels and features that the network takes."""
    training, validation = load_motion_clips(config.data_dir, config.data)
    if config.variants.count:
        training = with_variants(training, config.variants, config.seed)
    clips = [labelled(clip, config.network, face) for clip in (*training, *validation)]
    if config.network.audio_type == "hubert" and config.hubert_dir is not None:
        clips = with_hubert(clips, config.data_dir, config.hubert_dir, accelerator)
    if config.network.audio_type == "whisper":
        clips = with_whisper(clips, config.output_dir / _STATES_FOLDER)
    return clips[: len(training)], clips[len(training) :]


def load_cuts(config: MotionTrainingConfig, clips: Sequence[MotionClip]) -> list[MotionClip]:
    """Cuts of the training clips, long enough for windows at the highest speed."""
    n_frames = math.ceil((config.data.window_frames - 1) * (1 + config.augmentation.speed)) + 1
    return cut_clips(clips, config.cuts, n_frames, config.output_dir / _STATES_FOLDER, config.seed)


def weighted_total(terms: Mapping[str, Tensor], weights: LossConfig, step: int) -> Tensor:
    factors = {name: getattr(weights, name) for name in terms}
    factors["kl"] = cyclic_weight(step, weights.kl, weights.kl_period)
    return torch.stack([factors[name] * term for name, term in terms.items()]).sum()
