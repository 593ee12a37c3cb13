"""Train audio2motion (stage 1), or the sync expert of its loss, on clips that preprocess_dataset.py has tracked.

    accelerate launch --config_file config/accelerate_config.yaml train_audio2motion.py [key=value ...]
    python train_audio2motion.py --config config/audio2motion_mini.yaml --export pretrained_models/mini/audio2motion
    python train_audio2motion.py --config config/audio2motion_mini.yaml --task sync

An interrupted training resumes from <output_dir>/last.pt by the same command and ends with the same weights. --export
writes the checkpoint with the best score on held-out speakers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from utils.core import cli
from utils.core.errors import BadInput
from utils.core.options import option, parse_options
from utils.files.atomic import require_writable

if TYPE_CHECKING:
    from accelerate import Accelerator

    from models.training.motion_training_config import MotionTrainingConfig


say = partial(print, flush=True)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(cli.DeviceOptions):
    """A config with changes, and which of the two networks is trained."""

    config: Path = option(Path("config/audio2motion.yaml"), help="config file")
    task: Literal["motion", "sync"] = option("motion", help="motion: the network (default); sync: its sync expert")
    export: Path | None = option(None, help="folder for the best checkpoint (motion: fp16) and its config")
    overrides: tuple[str, ...] = option(
        (), positional=True, metavar="key=value", help="config values, such as max_steps=100"
    )


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(TrainingOptions, "Train audio2motion (stage 1), or its loss's sync expert.", arguments)
    from models.training.motion_training_config import MotionTrainingConfig, check_config
    from utils.core.config import load_config
    from utils.training.learner import float32_accelerator

    config = load_config(MotionTrainingConfig, options.config, options.overrides)
    check_config(config)
    for directory in (config.sync.output_dir if options.task == "sync" else config.output_dir, options.export):
        if directory is not None:
            require_writable(directory)

    accelerator = float32_accelerator(options.gpu_id)
    if config.max_minutes is not None and accelerator.num_processes > 1:
        raise BadInput("max_minutes is for one process", expected="null", advice="set max_steps instead")
    train = train_sync_expert if options.task == "sync" else train_motion
    train(config, options.export, accelerator)
    accelerator.end_training()


def train_motion(config: MotionTrainingConfig, export_dir: Path | None, accelerator: Accelerator) -> None:
    from models.training.motion_export import export
    from models.training.motion_learner import MotionLearner
    from utils.training.training_loop import TrainingLoop

    learner = MotionLearner(config, accelerator)
    TrainingLoop(learner, config.output_dir, config.intervals, say).run()
    if export_dir is not None and accelerator.is_main_process:
        say(f"exported {export(config, export_dir, learner.originals, learner.face)}")


def train_sync_expert(config: MotionTrainingConfig, export_dir: Path | None, accelerator: Accelerator) -> None:
    """Writes the expert into sync.output_dir and, if given, into ``export_dir``."""
    from models.training.sync_learner import SyncLearner
    from utils.training.training_loop import TrainingLoop

    learner = SyncLearner(config, accelerator)
    TrainingLoop(learner, config.sync.output_dir, config.sync.intervals, say).run()
    for directory in (config.sync.output_dir, export_dir):
        if directory is not None and accelerator.is_main_process:
            say(f"exported {learner.export(directory)}")


if __name__ == "__main__":
    cli.run(main)
