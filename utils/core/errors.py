"""Errors that end a command with one line: bad input (exit code 2) and failure (exit code 1); cancellation."""

from __future__ import annotations

import errno
import os
import re
import unicodedata
from pathlib import Path

_NOT_PRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories: control characters, bytes that are no UTF-8, line ends
_MEMORY_WORDS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "insufficient memory",
    "status_alloc_failed",
    "can't start new thread",
)


class BadInput(Exception):
    """Unusable input (exit code 2).

    The message reads ``<what> (<file>): expected <expected>, found <found>; <advice>``;
    parts that were not given are left out. It is one line for any file name. ``found`` is kept as an attribute.
    """

    def __init__(
        self,
        what: str,
        path: Path | str | None = None,
        expected: str | None = None,
        found: str | None = None,
        advice: str | None = None,
    ) -> None:
        self.found = found
        message = _one_line(what) if path is None else f"{_one_line(what)} ({printable(path)})"
        details = [f"expected {_one_line(expected)}"] if expected else []
        details += [f"found {_one_line(found)}"] if found else []
        if details:
            message += ": " + ", ".join(details)
        if advice:
            message += f"; {_one_line(advice)}"
        super().__init__(message)


class StageFailure(Exception):
    """Work that could not be finished although the input is usable (exit code 1)."""


class Cancelled(Exception):
    """The calling program has cancelled a run; finished parts are kept."""


def printable(text: Path | str) -> str:
    """A path or message as one printable line: control characters and bytes that are no UTF-8 are escaped."""
    text = str(text)
    return "".join(_escaped(char) if unicodedata.category(char) in _NOT_PRINTABLE else char for char in text)


def _escaped(char: str) -> str:
    if unicodedata.category(char) == "Cs":  # how Python holds a byte that is no UTF-8
        return "".join(f"\\x{byte:02x}" for byte in os.fsencode(char)) if 0xDC80 <= ord(char) <= 0xDCFF else "?"
    return char.encode("unicode_escape").decode("ascii")


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error reports exhausted memory, in the wording of Python, PyTorch, CUDA or OpenCV."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    is_library = isinstance(error, RuntimeError) or type(error).__module__ == "cv2"
    return is_library and any(words in str(error).lower() for words in _MEMORY_WORDS)


def wanted_memory(error: BaseException) -> str | None:
    """Requested amount, such as "7.45 GiB"; None if the message does not state it."""
    found = re.search(r"allocate (\d[\d.]*) ?([KMGTP]i?B|bytes)", str(error))
    if found is None:
        return None
    number, unit = found.groups()
    return f"{int(number) / 2**30:.2f} GiB" if unit == "bytes" and number.isdigit() else f"{number} {unit}"
