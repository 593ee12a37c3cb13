"""The two ways a command can end badly, each with one readable line."""

from __future__ import annotations

from pathlib import Path


class BadInput(Exception):
    """Something the user gave cannot be used (exit code 2).

    The message reads ``<what> (<file>): expected <expected>, found <found>; <advice>``;
    parts that were not given are left out. ``found`` stays readable by itself.
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
        message = f"{what} ({path})" if path is not None else what
        details = [f"expected {expected}"] if expected else []
        details += [f"found {found}"] if found else []
        if details:
            message += ": " + ", ".join(details)
        if advice:
            message += f"; {advice}"
        super().__init__(" ".join(message.split()))


class StageFailure(Exception):
    """The input was fine but the work could not be finished (exit code 1)."""
