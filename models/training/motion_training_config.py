"""Config of the trainings of stage 1, audio2motion and its sync expert, and its checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from models.audio.audio_features import AUDIO_DIMS
from models.lipsync.sync_expert import SyncExpertSizes
from models.motion.audio2motion import Audio2MotionConfig
from models.training.cut_clips import CutConfig
from utils.core.config import Amount, Count, Decay, Factor, Positive, Seed, Whole
from utils.core.errors import BadInput
from utils.data.motion_dataset import MotionDataConfig
from utils.data.motion_windows import AugmentationConfig
from utils.data.sound_variants import VariantConfig
from utils.data.sync_pairs import PAIR_FRAMES
from utils.training.motion_losses import LossConfig
from utils.training.optimization import exponential_rate, staircase_rate
from utils.training.training_loop import Intervals


@dataclass(frozen=True)
class MotionOptimizerConfig:
    """Adam with exponential_rate; average_decay: decay of the moving average that is validated and exported."""

    learning_rate: Amount = 5e-4
    warmup_steps: Whole = 1000
    decay_steps: Count = 250_000
    decay_factor: Factor = 0.1
    clip_norm: Positive = 1.0
    average_decay: Decay = 0.0

    def rate(self, step: int) -> float:
        return exponential_rate(step, self.learning_rate, self.decay_factor, self.decay_steps, self.warmup_steps)


@dataclass(frozen=True)
class SyncConfig:
    """Training of the sync expert (--task sync): Adam with staircase_rate."""

    output_dir: Path = Path("./results/train_sync_expert")
    max_steps: Count = 40_000
    report_interval: Count = 100
    validation_interval: Count = 1000
    checkpoint_interval: Count = 1000
    batch_pairs: Count = 8192
    learning_rate: Amount = 1e-3
    decay_steps: Count = 5000
    decay_factor: Factor = 0.98
    min_rate: Amount = 5e-5
    weight_decay: Amount = 0.0
    use_identity: bool = True  # see SyncExpertConfig
    audio_components: Whole = 0  # the same
    sizes: SyncExpertSizes = field(default_factory=SyncExpertSizes)

    def rate(self, step: int) -> float:
        return staircase_rate(step, self.learning_rate, self.decay_factor, self.decay_steps, self.min_rate)

    @property
    def intervals(self) -> Intervals:
        return Intervals(self.max_steps, self.report_interval, self.validation_interval, self.checkpoint_interval)


@dataclass(frozen=True)
class MotionTrainingConfig:
    data_dir: Path
    face_model: Path
    output_dir: Path
    hubert_dir: Path | None = None  # for network.audio_type hubert
    sync_expert: Path | None = None  # file that --task sync wrote, for loss.sync
    sync_clips: Count = 8096  # clips of five frames that the expert judges per step, at most
    max_steps: Count = 400_000
    max_minutes: Positive | None = None  # stop earlier after this much time; the schedule does not follow
    seed: Seed = 0
    report_interval: Count = 100  # steps
    validation_interval: Count = 2000
    checkpoint_interval: Count = 2000
    keep_newest: bool = False  # the newest weights count as the best, whatever the validation says
    export_gain: Positive = 1.0  # the lips of an exported network open this much farther about the mean expression
    network: Audio2MotionConfig = field(default_factory=Audio2MotionConfig)
    data: MotionDataConfig = field(default_factory=MotionDataConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    variants: VariantConfig = field(default_factory=VariantConfig)
    cuts: CutConfig = field(default_factory=CutConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: MotionOptimizerConfig = field(default_factory=MotionOptimizerConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)

    @property
    def intervals(self) -> Intervals:
        report, validation, checkpoint = self.report_interval, self.validation_interval, self.checkpoint_interval
        return Intervals(self.max_steps, report, validation, checkpoint, self.max_minutes)


ENSEMBLE_LOSSES = ("lips", "lip_velocity")  # of regression ensembles alone; `expression` serves both kinds


def check_config(config: MotionTrainingConfig) -> None:
    """Raises BadInput for combinations that would fail later."""
    if config.data.window_frames % config.network.sizes.stride:
        raise BadInput(f"data.window_frames is no multiple of {config.network.sizes.stride}", expected="such as 100")
    if config.data.window_frames < PAIR_FRAMES:
        raise BadInput(
            "data.window_frames is too small", None, f"at least {PAIR_FRAMES}", str(config.data.window_frames)
        )
    is_ensemble = bool(config.network.regression.members)
    for name, weight in vars(config.loss).items():
        if name in ("kl_period", "expression") or not weight or (name in ENSEMBLE_LOSSES) == is_ensemble:
            continue
        kind = "a regression ensemble" if is_ensemble else "a flow-VAE (network.regression.members: 0)"
        raise BadInput(f"loss.{name} cannot be used", None, f"0 with {kind}", f"{weight:g}")
    if config.loss.prior_sync and config.sync_expert is None:
        raise BadInput("loss.prior_sync needs sync_expert", expected="an expert's file", found="null")
    if config.network.audio_type not in AUDIO_DIMS:
        raise BadInput("unknown network.audio_type", expected=" or ".join(AUDIO_DIMS), found=config.network.audio_type)
    if config.variants.count and config.network.audio_type != "whisper":
        expected, advice = "network.audio_type whisper", "set variants.count to 0"
        raise BadInput("variants cannot be used", None, expected, config.network.audio_type, advice)
    if config.cuts.interval and config.network.audio_type != "whisper":
        raise BadInput("cuts cannot be used", None, "network.audio_type whisper", config.network.audio_type)
    if config.network.audio_type == "hubert" and config.hubert_dir is None:
        advice = "set it to the folder of facebook/hubert-large-ls960-ft, or network.audio_type to mfcc"
        raise BadInput("hubert_dir is not set", expected="a HuBERT folder", found="nothing", advice=advice)
    if config.network.audio_type != "mfcc" and config.augmentation.noise_probability:
        expected, found = f"0 with {config.network.audio_type}", str(config.augmentation.noise_probability)
        advice = "its features are computed once per clip, so noise cannot be added to windows"
        raise BadInput("augmentation.noise_probability cannot be used", None, expected, found, advice)
