"""The flags --speaker and, of stage 2, --list-speakers."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

WORDS = ("auto", "largest", "left", "right")
SYNTAX = "auto, largest, left, right, a number from 0 on, or X,Y"
ADVICE = "stage 2's --list-speakers shows all people with their numbers"


@dataclass(frozen=True)
class Speaker:
    """``word``: one of WORDS, or "" where ``index`` (from the left, 0 first) or ``point`` (a pixel) is given."""

    word: str = "auto"
    index: int | None = None
    point: tuple[int, int] | None = None

    @property
    def text(self) -> str:
        """The flag's value."""
        if self.point is not None:
            return f"{self.point[0]},{self.point[1]}"
        return self.word if self.index is None else str(self.index)


def parse_speaker(text: str) -> Speaker:
    """Raises argparse's own error for anything else than SYNTAX."""
    if text in WORDS:
        return Speaker(text)
    if re.fullmatch(r"[0-9]{1,6}", text):
        return Speaker("", index=int(text))
    if match := re.fullmatch(r"([0-9]{1,6}),([0-9]{1,6})", text):
        return Speaker("", point=(int(match[1]), int(match[2])))
    raise argparse.ArgumentTypeError(f"expected {SYNTAX}, found {text!r}")


def add_speaker_argument(parser: argparse.ArgumentParser, purpose: str) -> None:
    """``purpose``: beginning of the help text."""
    parser.add_argument(
        "--speaker",
        type=parse_speaker,
        metavar="WHO",
        help=f"{purpose}: {SYNTAX} (a pixel on the face). Numbers count from the left; "
        "auto (default): the person whose mouth moves with the clip's own speech, else the most prominent person",
    )


def add_speaker_arguments(parser: argparse.ArgumentParser) -> None:
    add_speaker_argument(parser, "person whose mouth is edited")
    parser.add_argument(
        "--list-speakers",
        "--list_speakers",
        action="store_true",
        help="list the people of the clip and stop: one line for each, and a picture with their numbers",
    )
