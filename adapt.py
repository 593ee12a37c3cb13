"""Fine-tune the generator on one person's clip, and keep what generates held-back frames best.

python adapt.py --video_path CLIP --result_dir results/adapted

Writes <result_dir>/<clip>/unet, which stage 3 takes as --unet_model_path, and the refiner beside it; held-back frames
are never generated worse by them.
"""

from __future__ import annotations

from models.pipeline.options import AdaptOptions
from utils.core import cli
from utils.core.monitor import TerminalMonitor
from utils.core.options import parse_options


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(AdaptOptions, "Fine-tune the generator on one person's clip.", arguments)
    from models.pipeline.adapt_stage import adapt_person

    adapt_person(options, TerminalMonitor())


if __name__ == "__main__":
    cli.run(main)
