"""Stage 1: speech to motion. Writes float32 [T, 64] expression coefficients at 25 Hz for stage 2.

python inference_audio2motion.py --drv_aud SPEECH.mp3 --result_dir results/a2m
"""

from __future__ import annotations

from models.pipeline.options import MotionOptions
from utils.core import cli
from utils.core.monitor import TerminalMonitor
from utils.core.options import parse_options


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(MotionOptions, "Predict a face's expression coefficients from speech.", arguments)
    from models.pipeline.motion_stage import make_motion

    make_motion(options, TerminalMonitor())


if __name__ == "__main__":
    cli.run(main)
