"""Stage 3: give a clip the mouth that stage 2 rendered and the speech it says.

python -u inference_joygen.py --audio_path SPEECH --video_path CLIP --intermediate_dir results/edit_expression \
    --enable_pose_driven --result_dir results/talk
"""

from __future__ import annotations

from models.pipeline.options import TalkOptions
from utils.core import cli
from utils.core.monitor import TerminalMonitor
from utils.core.options import parse_options


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(TalkOptions, "Generate the mouth of a clip for a speech.", arguments)
    from models.pipeline.talk_stage import draw_talk

    draw_talk(options, TerminalMonitor())


if __name__ == "__main__":
    cli.run(main)
