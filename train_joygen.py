"""Train the generator (stage 3) on clips that preprocess_dataset.py has prepared.

    accelerate launch --config_file config/accelerate_config.yaml train_joygen.py [--config FILE] [key=value ...]

Default config: the official size (config/joygen.yaml); config/joygen_mini.yaml is the mini pack's.
An interrupted training resumes from <checkpoint_dir>/last.pt by the same command and ends with the same weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from utils.core.cli import run
from utils.core.options import Options, option, parse_options
from utils.files.atomic import require_writable

if TYPE_CHECKING:
    from models.training.generator_training_learner import GeneratorLearner
    from models.training.generator_training_setup import GeneratorTrainingConfig
    from utils.data.dataset import Batch
    from utils.training.training_loop import TrainingLoop


def main(arguments: list[str] | None = None) -> None:
    config = parse_config(arguments)
    from models.training.generator_training_learner import GeneratorLearner
    from models.training.generator_training_setup import build_accelerator

    require_writable(config.checkpoint_dir)
    learner = GeneratorLearner(config, build_accelerator(config))
    loop = build_loop(learner)
    loop.run()
    final = config.checkpoint_dir / "final"
    if learner.accelerator.is_main_process:
        learner.export(final)
    loop.say(f"wrote {final} after {learner.step} steps, {loop.seconds / 60:.1f} min")
    learner.accelerator.end_training()


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(Options):
    """A config with changes."""

    config: Path = option(Path("config/joygen.yaml"), help="config file")
    overrides: tuple[str, ...] = option(
        (), positional=True, metavar="key=value", help="config values, such as opti.max_steps=20"
    )


def parse_config(arguments: list[str] | None) -> GeneratorTrainingConfig:
    options = parse_options(TrainingOptions, "Train the generator (stage 3).", arguments)
    from models.training.generator_training_setup import GeneratorTrainingConfig
    from utils.core.config import load_config

    return load_config(GeneratorTrainingConfig, options.config, options.overrides)


def build_loop(learner: GeneratorLearner) -> TrainingLoop[Batch]:
    from utils.training.training_loop import TrainingLoop

    config, say = learner.config, partial(print, flush=True)
    return TrainingLoop(learner, config.checkpoint_dir, config.intervals, say, config.tensorboard)


if __name__ == "__main__":
    run(main)
