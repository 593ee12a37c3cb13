"""The one-line message."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.core.errors import BadInput, StageFailure


def test_full_message():
    error = BadInput("no face found", Path("a/clip.mp4"), "a face", "none in 5", "choose another clip")
    assert str(error) == "no face found (a/clip.mp4): expected a face, found none in 5; choose another clip"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "broken"),
        ({"path": "x"}, "broken (x)"),
        ({"expected": "a"}, "broken: expected a"),
        ({"found": "b"}, "broken: found b"),
        ({"advice": "c"}, "broken; c"),
        ({"path": "x", "found": "b", "advice": "c"}, "broken (x): found b; c"),
    ],
)
def test_parts_not_given_are_left_out(arguments, message):
    assert str(BadInput("broken", **arguments)) == message


def test_message_is_one_line():
    assert str(BadInput("broken", found="first\n\n  second\tthird")) == "broken: found first second third"


def test_the_two_kinds_are_apart():
    assert not issubclass(StageFailure, BadInput)
    assert not issubclass(BadInput, StageFailure | OSError | ValueError)
