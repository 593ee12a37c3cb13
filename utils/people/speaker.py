"""Which of several persons in a clip is the speaker: the values of --speaker."""

from __future__ import annotations

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

    def __str__(self) -> str:
        """The value of the flag."""
        if self.point is not None:
            return f"{self.point[0]},{self.point[1]}"
        return self.word if self.index is None else str(self.index)


def parse_speaker(text: str) -> Speaker:
    """Raises ValueError for anything but SYNTAX."""
    if text in WORDS:
        return Speaker(text)
    if re.fullmatch(r"[0-9]{1,6}", text):
        return Speaker("", index=int(text))
    if match := re.fullmatch(r"([0-9]{1,6}),([0-9]{1,6})", text):
        return Speaker("", point=(int(match[1]), int(match[2])))
    raise ValueError(f"expected {SYNTAX}, found {text!r}")
