"""Who of several people is meant: the flag --speaker, and --list-speakers of stage 2."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

WORDS = ("auto", "largest", "left", "right")
SYNTAX = "auto, largest, left, right, a number from 0 on, or X,Y"
ADVICE = "stage 2's --list-speakers shows everybody with their numbers"


@dataclass(frozen=True)
class Speaker:
    """``word``: one of WORDS, or "" where ``index`` (from the left, 0 first) or ``point`` (a pixel) is given."""

    word: str = "auto"
    index: int | None = None
    point: tuple[int, int] | None = None

    @property
    def text(self) -> str:
        """As the flag says it."""
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
    """``purpose``: what the flag decides, "whose ..."."""
    parser.add_argument(
        "--speaker",
        type=parse_speaker,
        metavar="WHO",
        help=f"{purpose}: {SYNTAX} (a pixel on the face). Numbers count from the left; "
        "auto (default): whose mouth moves with the clip's own speech, if it has some, else the most prominent person",
    )


def add_speaker_arguments(parser: argparse.ArgumentParser) -> None:
    add_speaker_argument(parser, "whose mouth is changed")
    parser.add_argument(
        "--list-speakers",
        "--list_speakers",
        action="store_true",
        help="only show who is there: one line for each and a picture with their numbers",
    )
