"""How audio2motion learns: its losses on windows, its validation on unheard speakers, and its export."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import Float
from torch import Tensor, nn

from models.face3d.closed_mouth import LipGaps
from models.face3d.face_model import FaceModel
from models.lipsync.sync_expert import SyncExpert, load_expert, sync_loss
from models.motion.audio2motion import Audio2Motion, build_audio2motion
from models.training.motion_batches import MotionBatch, collate, labelled, with_hubert, with_normalised, with_variants
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
from utils.core.config import to_dict
from utils.core.errors import BadInput
from utils.core.processes import Processes
from utils.core.types import N_EXP
from utils.data.motion_dataset import MotionClip, load_motion_clips
from utils.data.motion_windows import WindowSampler
from utils.files.atomic import atomic_path
from utils.training.learner import Findings, NetworkLearner
from utils.training.motion_losses import (
    LandmarkLoss,
    LandmarkOffsets,
    LossConfig,
    cyclic_weight,
    laplacian_energy,
    magnitude,
    masked_mse,
)
from utils.training.optimization import batch_seed, writing
from utils.training.training_loop import BEST_NAME
from utils.weights.checkpoints import half_precision, read_weights, save_weights


class MotionLearner(NetworkLearner[MotionBatch]):
    """The flow-VAE and its running average, the clips, and the sync expert if there is one."""

    network: Audio2Motion
    face: FaceModel

    def __init__(self, config: MotionTrainingConfig, device: torch.device, processes: Processes | None = None) -> None:
        self.config, self.device, self.processes = config, device, processes or Processes()
        self.samples_per_step, self.clip_norm = config.data.batch_size, config.optimizer.clip_norm
        self.face = FaceModel.load(config.face_model)
        self.clips, self.validation = load_clips(config, self.face, device, self.processes)
        self.originals = [clip for clip in self.clips if not clip.is_copy]
        mirror = face_mirror(self.face)
        self.sampler = WindowSampler(self.clips, config.data.window_frames, config.augmentation, mirror)
        _, identity_basis, expression_basis = self.face.landmark_bases()
        self.offsets = LandmarkOffsets(identity_basis, expression_basis).to(device)
        self.landmark_loss = LandmarkLoss(self.offsets).to(device)
        self.opening = opening_direction(expression_basis.numpy())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            audio_dim = self.clips[0].audio.shape[1] or None  # else that of the audio type
            self.network = build_audio2motion(config.network, audio_dim).to(device)
        self.average = copy.deepcopy(self.network).eval()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.optimizer.learning_rate)
        self.expert = None
        if config.sync_expert is not None:
            self.expert = load_expert(config.sync_expert, config.network, self.network.audio_dim, device)

    def describe(self) -> str:
        """What is learned from, and what a linear model reaches on the clips to validate on."""
        n_speakers, n_held_out = (len({clip.speaker for clip in group}) for group in (self.clips, self.validation))
        n_clips, n_copies = len(self.originals), len(self.clips) - len(self.originals)
        copies = f" and {n_copies} copies with other voices and rooms" if n_copies else ""
        trained = f"{n_clips} clips{copies} of {n_speakers} speakers to train on"
        text = f"{trained}, {len(self.validation)} of {n_held_out}"
        heard = {clip.speaker for clip in self.clips} & {clip.speaker for clip in self.validation}
        note = f"; trained on too: {', '.join(sorted(heard))}" if heard else ""
        expert = f"sync expert {self.config.sync_expert}" if self.expert else "no sync expert"
        text = f"{text} to validate on{note}; {expert}"
        if not self.validation:
            return text
        matches = ridge_matches(self.originals, self.validation, self.opening)
        return f"{text}\n{match_line('linear baseline', matches)}"

    def mean_expression(self) -> Float[np.ndarray, " 64"]:
        """Of all usable frames that are trained on."""
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
        sizes, loss = self.network.vae.sizes, self.config.loss
        shape = (len(batch.motion), sizes.latent, batch.motion.shape[1] // sizes.stride)
        noise = torch.randn(shape, generator=generator).to(self.device)
        result = self.network(batch.inputs, batch.motion, batch.mask, noise)
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

    def _sync_loss(
        self, expert: SyncExpert, motion: Float[Tensor, "b t 64"], batch: MotionBatch, generator: torch.Generator
    ) -> Tensor:
        """In the predicted motion, with the identity of each window's first frame."""
        landmarks = self.offsets(batch.identity[:, :1] * expert.config.use_identity, motion)
        return sync_loss(expert, landmarks, batch.speech, batch.mask, self.config.sync_clips, generator)

    def rate(self, spent: float) -> float:  # noqa: ARG002  # the steps alone count
        return self.config.optimizer.rate(self.step)

    def after_step(self) -> None:
        follow(self.average, self.network, self.config.optimizer.average_decay)

    def validate(self) -> Findings | None:
        """The score is the median correlation of the mouth's opening, or none where the newest weights are kept."""
        if not self.validation:
            return None
        predicted = predict_clips(self.average, self.validation)
        matches = opening_matches(predicted, self.validation, self.opening)
        errors = lip_errors(predicted, self.validation, self.mean_expression(), self.face)
        openings = {f"opening_r/{name}": match.r for name, match in matches.items()}
        score = None if self.config.keep_newest else median_correlation(matches)
        text = f"{match_line('mouth opening', matches)}\n{error_table(errors)}"
        return Findings(text, openings | error_figures(errors), score)

    def description(self) -> dict[str, Any]:
        return {"network": asdict(self.config.network), "audio channels": self.network.audio_dim}

    def best_weights(self) -> Mapping[str, Tensor]:
        return self.average.state_dict()

    def state(self) -> dict[str, Any]:
        return super().state() | {"average": self.average.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.average.load_state_dict(state["average"])


def face_mirror(face: FaceModel) -> Float[np.ndarray, "64 64"] | None:
    """Left and right of an expression swapped, where the face model knows how."""
    mirror: Tensor | None = face.get_buffer("mirror_exp")
    return None if mirror is None else mirror.numpy()


def load_clips(
    config: MotionTrainingConfig, face: FaceModel, device: torch.device, processes: Processes | None = None
) -> tuple[list[MotionClip], list[MotionClip]]:
    """Clips to train on and to validate on, with the labels and the HuBERT states that the network takes."""
    training, validation = load_motion_clips(config.data_dir, config.data)
    if config.variants.count:
        training = with_variants(training, config.variants, config.seed)
    clips = [labelled(clip, config.network, face) for clip in (*training, *validation)]
    if config.network.audio_type == "hubert" and config.hubert_dir is not None:
        clips = with_hubert(clips, config.data_dir, config.hubert_dir, device, processes)
    if config.network.audio_type == "mfcc_norm":
        clips = with_normalised(clips)
    return clips[: len(training)], clips[len(training) :]


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights and statistics towards the trained ones."""
    for slow, fast in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if slow.is_floating_point():
            slow.lerp_(fast, 1 - decay)
        else:
            slow.copy_(fast)


def weighted_total(terms: Mapping[str, Tensor], weights: LossConfig, step: int) -> Tensor:
    factors = {name: getattr(weights, name) for name in terms}
    factors["kl"] = cyclic_weight(step, weights.kl, weights.kl_period)
    return torch.stack([factors[name] * term for name, term in terms.items()]).sum()


def amplified(
    network: Mapping[str, Tensor],
    gain: float,
    mean_expression: Float[np.ndarray, " 64"],
    directions: Float[np.ndarray, "64 r"],
) -> dict[str, Tensor]:
    """The same network whose lips open ``gain`` times as far about the mean expression; its last layer is changed.

    What sound does not tell is averaged out in training, which leaves the mouth too still. Only the orthonormal
    ``directions``, in which lips open and shut, are amplified: the others follow speech so little that it would
    mostly add errors.
    """
    spread = torch.from_numpy(directions).double()
    change = torch.eye(N_EXP, dtype=torch.float64) + (gain - 1) * spread @ spread.T
    mean = torch.from_numpy(mean_expression).double()
    weight, bias = (network[f"vae.decoder.out_proj.{name}"].double().cpu() for name in ("weight", "bias"))
    scaled = dict(network)
    scaled["vae.decoder.out_proj.weight"] = torch.einsum("oi,ict->oct", change, weight).float()
    scaled["vae.decoder.out_proj.bias"] = (change @ (bias - mean) + mean).float()
    return scaled


def export(
    config: MotionTrainingConfig, directory: Path, mean_expression: Float[np.ndarray, " 64"], face: FaceModel
) -> Path:
    """Write the best checkpoint as half-precision tensors under the official names, with the config it needs.

    ``config.export_gain`` makes its lips open farther. Raises BadInput if the folder holds another checkpoint: a folder
    stands for its newest.
    """
    best = read_weights(config.output_dir / BEST_NAME)
    path = directory / f"model_ckpt_steps_{best['step']}.safetensors"
    for other in directory.glob("model_ckpt_steps_*"):
        if other != path:
            raise BadInput(
                "folder holds another checkpoint", other, path.name, other.name, "delete it and export again"
            )
    metadata = {"steps": str(best["step"])}
    if np.isfinite(best["score"]):
        metadata["validation_correlation"] = f"{best['score']:.3f}"
    with writing(path):
        louder = amplified(best["network"], config.export_gain, mean_expression, LipGaps.of(face).directions())
        save_weights(path, half_precision(louder), metadata)
    variant = {name: value for name, value in to_dict(config.network).items() if name not in ("cond_channels", "sizes")}
    with writing(directory / "config.yaml"), atomic_path(directory / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(variant, sort_keys=False))
    return path
