"""Stage 2: put a new expression on the face of a clip and render its depth.

python inference_edit_expression.py --infer_video_path CLIP --infer_exp_coeff_path results/a2m/SPEECH.npy \
    --infer_result_dir results/edit_expression
"""

from __future__ import annotations

from models.pipeline.options import ClipOptions, EditOptions
from utils.core import cli
from utils.core.monitor import TerminalMonitor
from utils.core.options import CommandParser, add_flags, given_fields


def parse(arguments: list[str] | None) -> EditOptions | ClipOptions:
    """ClipOptions with --list-speakers, else EditOptions."""
    parser = CommandParser(description="Put a new expression on the face of a clip and render its depth.")
    add_flags(parser, EditOptions, not_required=("motion_path",))
    parser.add_argument("--list-speakers", "--list_speakers", action="store_true", help=LIST_SPEAKERS_HELP)
    flags = vars(parser.parse_args(arguments))
    if flags["list_speakers"]:
        return ClipOptions(**given_fields(ClipOptions, flags))
    if "infer_exp_coeff_path" not in flags:
        parser.error("the following arguments are required: --infer_exp_coeff_path")
    return EditOptions(**given_fields(EditOptions, flags))


LIST_SPEAKERS_HELP = "list the persons in the clip's first minute, write a picture with their numbers, and stop"


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    from models.pipeline.edit_stage import edit_clip, show_speakers

    if isinstance(options, EditOptions):
        edit_clip(options, TerminalMonitor())
    else:
        show_speakers(options, TerminalMonitor())


if __name__ == "__main__":
    cli.run(main)
