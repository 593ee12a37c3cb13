"""The flags of frame rate and length, and the rate that they name."""

from __future__ import annotations

import argparse
from fractions import Fraction

from utils.core.errors import BadInput
from utils.core.types import MOTION_FPS, VideoInfo
from utils.media.timeline import LENGTHS

SOURCE = "source"


def add_rate_argument(parser: argparse.ArgumentParser, default: str | None, help_text: str) -> None:
    parser.add_argument("--fps", metavar=f"{{{MOTION_FPS},{SOURCE}}}", default=default, help=help_text)


def add_length_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--length",
        choices=LENGTHS,
        default=LENGTHS[0],
        help="where the speech outlasts the clip: show it backwards and forwards (pingpong, default) or again (loop), "
        "hold its last frame, or cut the speech; silence: the whole clip, silent after the speech",
    )


def resolve_rate(text: str, video: VideoInfo) -> Fraction:
    """What --fps names: 25, or the clip's own rate. Raises BadInput for anything else."""
    if text == SOURCE:
        return video.fps
    try:
        is_default = Fraction(text) == MOTION_FPS
    except (ValueError, ZeroDivisionError):
        is_default = False
    if not is_default:
        advice = f"choose one of both; {SOURCE} keeps the clip's own rate"
        raise BadInput("frame rate not possible", None, f"--fps {MOTION_FPS} or --fps {SOURCE}", text, advice)
    return Fraction(MOTION_FPS)


def rate_text(fps: Fraction | float) -> str:
    """A rate for messages: 25, 29.97."""
    return f"{float(fps):.6g}"
