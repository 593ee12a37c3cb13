"""Option dataclasses and their command lines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.core.cli import run
from utils.core.config import Amount, Count
from utils.core.errors import BadInput
from utils.core.options import Options, keyed_values, option, parse_options, true_or_false, words_of


@dataclass(frozen=True, kw_only=True)
class Settings(Options):
    path: Path = option(flag="in_file", help="file", keyed=False)
    size: Count = option(3, help="size")
    amount: Amount | None = option(None, help="amount")
    mode: Literal["a", "b"] = option("a", help="mode")
    quick: bool = option(False, help="be quick", aliases=("--fast",), keyed=False)
    exact: bool = option(False, help="True or False", parse=true_or_false)


def test_flags_become_fields():
    made = parse_options(
        Settings, "", ["--in_file", "a", "--size", "4", "--amount=0.5", "--mode", "b", "--fast", "--exact", "True"]
    )
    assert made == Settings(path=Path("a"), size=4, amount=0.5, mode="b", quick=True, exact=True)
    assert parse_options(Settings, "", ["--in_file", "a"]) == Settings(path=Path("a"))


@dataclass(frozen=True, kw_only=True)
class Job(Options):
    path: Path = option(positional=True, metavar="PATH", help="file")
    numbers: tuple[Count, ...] | None = option(None, help="numbers")
    parts: tuple[Literal["a", "b"], ...] = option((), help="parts")
    changes: tuple[str, ...] = option((), positional=True, metavar="key=value", help="changes")


@pytest.mark.parametrize(
    ("words", "job"),
    [
        (["f"], Job(path=Path("f"))),
        (["f", "x=1", "y=2"], Job(path=Path("f"), changes=("x=1", "y=2"))),
        (["f", "x=1", "--numbers", "1", "2", "--parts"], Job(path=Path("f"), numbers=(1, 2), changes=("x=1",))),
        (
            ["--parts=a", "f", "x=1", "--numbers=3", "y=2"],
            Job(path=Path("f"), numbers=(3,), parts=("a",), changes=("x=1", "y=2")),
        ),
    ],
)
def test_positional_and_repeated_values(words, job):
    assert parse_options(Job, "", words) == job


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: PATH"),
        (
            ["f", "x=1", "--numbers", "1", "--parts=a", "y=2", "--partts=a"],
            "unknown flag '--partts=a'; did you mean --parts?",
        ),
        (["f", "--numbers"], "argument --numbers: expected at least one argument"),
        (["f", "--parts", "a", "c"], "argument --parts: invalid choice: 'c'"),
        (["f", "--numbers", "1", "0"], "--numbers: expected a whole number at least 1, found 0"),
    ],
)
def test_wrong_command_lines_are_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        run(lambda _: parse_options(Job, "", words))
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert error.startswith(f"error: {message}") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, "--size: expected a whole number at least 1, found 0"),
        ({"size": True}, "--size: expected a whole number at least 1, found True"),
        ({"size": 1.5}, "--size: expected a whole number at least 1, found 1.5"),
        ({"amount": float("nan")}, "--amount: expected a number at least 0, found nan"),
        ({"amount": float("inf")}, "--amount: expected a number at least 0, found inf"),
        ({"mode": "c"}, "--mode: expected one of a, b, found c"),
    ],
)
def test_values_out_of_bounds_are_refused_with_one_text(values, message, capsys):
    with pytest.raises(BadInput) as error:
        Settings(path=Path("a"), **values)
    assert str(error.value) == message
    ((name, value),) = values.items()
    with pytest.raises((BadInput, SystemExit)) as error:
        parse_options(Settings, "", ["--in_file=a", f"--{name}={value}"])
    if isinstance(error.value, SystemExit):  # no number at all, or no choice of argparse's
        assert error.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"size": "4"}, 4),
        ({"size": np.int64(4)}, 4),
        ({"amount": np.float32(0.1)}, 0.1),
        ({"amount": 1}, 1.0),
        ({"path": "a b"}, Path("a b")),
        ({"quick": "False"}, False),
        ({"quick": 1}, True),
        ({"exact": np.bool_(True)}, True),
    ],
)
def test_values_of_other_types_become_what_the_command_line_makes_of_them(values, expected):
    ((name, _),) = values.items()
    value = getattr(Settings(**({"path": Path("a")} | values)), name)
    assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"path": 3}, "--in_file: expected a path, found 3"),
        ({"path": None}, "--in_file: expected a path, found None"),
        ({"quick": None}, "--quick: expected True or False, found None"),
        ({"quick": "maybe"}, "--quick: expected True or False, found 'maybe'"),
        ({"size": None}, "--size: expected a whole number at least 1, found None"),
    ],
)
def test_values_that_no_text_gives_are_refused(values, message):
    with pytest.raises(BadInput) as error:
        Settings(**({"path": Path("a")} | values))
    assert str(error.value) == message


@given(
    st.builds(
        Settings,
        path=st.sampled_from([Path("-dash"), Path("a b"), Path("it's")]),
        size=st.integers(1, 9),
        amount=st.none() | st.floats(0, 1e9),
        mode=st.sampled_from(["a", "b"]),
        quick=st.booleans(),
        exact=st.booleans(),
    )
)
def test_words_of_options_give_the_same_options(settings):
    assert parse_options(Settings, "", words_of(settings)) == settings


def test_files_and_marked_fields_are_not_in_the_key():
    assert keyed_values(Settings(path=Path("a"))) == {"size": 3, "amount": None, "mode": "a", "exact": False}


@pytest.mark.parametrize(
    ("text", "value"), [("True", True), ("yes", True), ("1", True), ("FALSE", False), ("0", False)]
)
def test_booleans_of_the_reference(text, value):
    assert true_or_false(text) is value


def test_other_words_are_no_booleans():
    with pytest.raises(ValueError, match="maybe"):
        true_or_false("maybe")
