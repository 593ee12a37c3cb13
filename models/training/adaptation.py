"""Fine-tuning of the generator on one person's clip, kept only if it improves the PSNR of held-back frames.

Training takes the clip's first part, validation its end. The audio encoder is frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from models.audio.whisper_encoder import WhisperEncoder
from models.layers.model_config import read_model_config
from models.training.generator_training_learner import GeneratorLearner
from models.training.generator_training_setup import (
    GeneratorOptimizerConfig,
    GeneratorTrainingConfig,
    gradient_dtype,
    sound_sources,
)
from models.training.generator_training_validation import Validation
from utils.core.errors import BadInput
from utils.data.augment import NO_AUGMENTATION, Augmentation
from utils.data.clips import Clip, open_clip
from utils.data.dataset import MIN_FRAMES, DatasetConfig, TrainingBatches
from utils.data.segments import SegmentSource
from utils.data.sound_states import StateSource
from utils.training.learner import Findings
from utils.training.losses import LossWeights
from utils.training.training_loop import BEST_NAME, Intervals, TrainingLoop
from utils.weights.checkpoints import read_weights, weights_file
from utils.weights.packs import Pack

CHECK_INTERVAL = 50  # steps between validations on the held-back frames
PATIENCE = 100  # steps without a better PSNR after which the training stops
N_CHECKED = 32  # held-back frames that are validated on
VALIDATION_SEED = 1_000_003
TRAINING_FOLDER = "training"  # in the work folder: checkpoints and log


@dataclass(frozen=True)
class AdaptationSettings:
    """``held_back``: share of the frames with a face, at the clip's end."""

    steps: int = 300
    batch_size: int = 8
    lr: float = 5e-4
    held_back: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class AdaptationResult:
    """Lower-half PSNR in dB of the held-back frames: before, with the best weights, and of the reference frames."""

    psnr_before: float
    psnr_after: float
    psnr_reference: float
    best_step: int
    sheet: np.ndarray


class Adaptation(GeneratorLearner):
    """Fine-tuning on one clip; resumes from last.pt in a folder below ``work_dir``."""

    def __init__(
        self, pack: Pack, clip_dir: Path, work_dir: Path, settings: AdaptationSettings, device: torch.device
    ) -> None:
        """clip_dir: a clip of preprocess_dataset.py. Raises BadInput if it is too short to hold frames back."""
        from accelerate import Accelerator

        dtype = gradient_dtype(device)
        precision = "bf16" if dtype == torch.bfloat16 else "no"
        accelerator = Accelerator(mixed_precision=precision, cpu=device.type == "cpu")
        config = adaptation_config(pack, clip_dir.parent, work_dir / TRAINING_FOLDER, settings)
        clip = open_clip(clip_dir, in_memory=True)

        def data(encoder: WhisperEncoder | None) -> tuple[TrainingBatches, TrainingBatches]:
            return build_batches(config, clip, sound_sources(encoder, random_offset=False), settings.held_back)

        super().__init__(config, accelerator, data)
        self.best: dict[str, Tensor] = {}
        self.psnr_before = -np.inf
        self._report: Callable[[int, float], None] = lambda *_: None

    def run(self, report: Callable[[int, float], None]) -> AdaptationResult:
        """Train to the end; ``report`` gets step and PSNR of every validation."""
        self._report = report
        directory, n_steps = self.config.checkpoint_dir, self.config.opti.max_steps
        intervals = Intervals(n_steps, CHECK_INTERVAL, CHECK_INTERVAL, CHECK_INTERVAL, patience=PATIENCE)
        loop = TrainingLoop(self, directory, intervals, lambda _: None, tensorboard=False)
        loop.run()
        self.best = read_weights(directory / BEST_NAME)["network"]
        self._learned().load_state_dict(self.best)
        final = self._look()
        return AdaptationResult(self.psnr_before, loop.best, final.reference_psnr, loop.best_step, final.sheet)

    def _learned(self) -> nn.ModuleDict:
        """The trained networks of ``best_model``."""
        model = self.best_model
        parts: dict[str, nn.Module] = {"unet": model.generator.unet}
        return nn.ModuleDict(parts if model.refiner is None else parts | {"refiner": model.refiner})

    def _look(self) -> Validation:
        """Validation on the held-back frames."""
        assert self.validation is not None
        return self.look(self.validation, 1)

    def validate(self) -> Findings:
        """The score is the PSNR of the held-back frames."""
        psnr = self._look().psnr
        if self.step == 0:
            self.psnr_before = psnr
        self._report(self.step, psnr)
        return Findings(f"{psnr:.2f} dB on held-back frames", score=psnr)

    def best_weights(self) -> dict[str, Tensor]:
        return self._learned().state_dict()

    def write_networks(self, directory: Path) -> None:
        """Nothing: only the best weights at the end are exported."""

    def state(self) -> dict[str, Any]:
        return super().state() | {"psnr_before": self.psnr_before}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.psnr_before = state["psnr_before"]


def adaptation_config(
    pack: Pack, data_dir: Path, work_dir: Path, settings: AdaptationSettings
) -> GeneratorTrainingConfig:
    """The mini pack's config with weaker augmentation, since one clip has one person, light and camera."""
    return GeneratorTrainingConfig(
        vae_path=pack.vae,
        unet_config_file=pack.unet / "config.json",
        unet_resume_file=weights_file(pack.unet),
        refiner_resume_dir=pack.refiner,
        whisper_model_path=pack.whisper,
        checkpoint_dir=work_dir,
        dataset=DatasetConfig(
            root_dir=data_dir,
            img_size=pack.image_size,
            fine_size=read_model_config(pack.refiner / "config.json").get("size") if pack.refiner else None,
            reference="composed" if pack.refiner else "other",
            batch_size=settings.batch_size,
            frames_per_clip=settings.batch_size,
            augment=Augmentation(
                (0.9, 1.0), color_jitter=0.05, grayscale=0.0, flip=0.0, depth=0.9, depth_shift=0.01, same_frame=0.4
            ),
        ),
        opti=GeneratorOptimizerConfig(
            max_steps=settings.steps, lr=settings.lr, min_lr=0.1 * settings.lr, warmup_steps=10, use_ema=True,
            ema_decay=0.95,
        ),
        loss=LossWeights(latent=1.0, pixel=2.0, gradient=1.0, mouth=2.0),
        vae_precision="auto",
        trained_blocks="auto",
        seed=settings.seed,
        export_half=True,
    )  # fmt: skip


def build_batches(
    config: GeneratorTrainingConfig, clip: Clip, sources: tuple[SegmentSource, StateSource | None], held_back: float
) -> tuple[TrainingBatches, TrainingBatches]:
    """Batches of the clip's first part, and of frames of its end."""
    first, last = split_valid(clip.valid, held_back)
    (sound, states), data, n_steps = sources, config.dataset, config.opti.max_steps
    training = TrainingBatches([replace(clip, valid=first)], data, sound, n_steps, config.seed, states)
    plain = replace(data, augment=NO_AUGMENTATION)
    n_checks = max(1, N_CHECKED // data.batch_size)
    return training, TrainingBatches([replace(clip, valid=last)], plain, sound, n_checks, VALIDATION_SEED, states)


def split_valid(valid: Bool[np.ndarray, " n"], share: float) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Training frames and the held-back share at the end; raises BadInput if either has too few."""
    usable = np.flatnonzero(valid)
    n_last = max(MIN_FRAMES, round(share * len(usable)))
    if len(usable) - n_last < MIN_FRAMES:
        expected = f"{MIN_FRAMES + n_last} frames with a face"
        raise BadInput("clip too short to adapt to", None, expected, str(len(usable)), "adapt to a longer clip")
    first = valid.copy()
    first[usable[-n_last] :] = False
    return first, valid & ~first
