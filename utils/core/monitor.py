"""What a run reports while it works, and how it is cancelled: one object that every stage is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from utils.core import cli
from utils.core.errors import Cancelled, printable

T = TypeVar("T")


class Monitor(Protocol):
    def say(self, line: str) -> None:
        """Report one line of text; control characters in it, as in names of files, are escaped."""
        ...

    def track(self, items: Iterable[T], total: int | None, step: str) -> Iterator[T]:
        """Yield the items and report how many of ``total`` (None: unknown) a step has consumed."""
        ...


class TerminalMonitor:
    """Lines on stdout, progress bars on stderr if that is a terminal."""

    def say(self, line: str) -> None:
        print(printable(line), flush=True)

    def track(self, items: Iterable[T], total: int | None, step: str) -> Iterator[T]:
        return cli.progress(items, total, step)


class CallbackMonitor:
    """Progress for programs.

    on_progress(step, n_done, total): called for every item of a step. is_cancelled: asked before every item and line;
    if true, Cancelled is raised there and the run leaves what Ctrl-C leaves. lines: everything that was said.
    """

    def __init__(
        self,
        on_progress: Callable[[str, int, int | None], None] | None = None,
        is_cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self._on_progress, self._is_cancelled = on_progress, is_cancelled
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self._check()
        self.lines.append(printable(line))

    def track(self, items: Iterable[T], total: int | None, step: str) -> Iterator[T]:
        for n_done, item in enumerate(items, 1):
            self._check()
            if self._on_progress is not None:
                self._on_progress(step, n_done, total)
            yield item

    def _check(self) -> None:
        if self._is_cancelled is not None and self._is_cancelled():
            raise Cancelled("cancelled")
