"""Train the generator (stage 3) on what preprocess_dataset.py wrote.

    accelerate launch --config_file config/accelerate_config.yaml train_joygen.py [--config FILE] [key=value ...]

Without --config the official size is trained (config/joygen.yaml); config/joygen_mini.yaml is the embedded pack.
Stopped at any moment, the same command continues from <checkpoint_dir>/last.pt and ends with the same weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from models.joint_setup import JoyGenConfig, build_accelerator
from models.joint_trainer import Trainer
from utils.atomic import require_writable
from utils.cli import run
from utils.config import load_config


def main(arguments: list[str] | None = None) -> None:
    config = parse_config(arguments)
    require_writable(config.checkpoint_dir)
    trainer = build_trainer(config)
    trainer.resume()
    trainer.train()


def parse_config(arguments: list[str] | None) -> JoyGenConfig:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("config/joygen.yaml"))
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as opti.max_steps=20")
    options = parser.parse_intermixed_args(arguments)
    return load_config(JoyGenConfig, options.config, options.overrides)


def build_trainer(config: JoyGenConfig) -> Trainer:
    accelerator = build_accelerator(config)

    def say(text: str) -> None:
        if accelerator.is_main_process:
            print(text, flush=True)

    return Trainer(config, accelerator, say)


if __name__ == "__main__":
    run(main)
