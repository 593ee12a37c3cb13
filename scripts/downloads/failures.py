"""Errors of downloads, checks of disk space, sizes as text."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.core.errors import StageFailure

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class SourceFailure(Exception):
    """One source does not give one file; the next source or the next file may still work.

    ``is_silent``: its server could not be reached at all.
    """

    def __init__(self, reason: str, is_silent: bool = False) -> None:
        super().__init__(reason)
        self.is_silent = is_silent


class DiskFull(StageFailure):
    """The disk is full; the run ends."""

    def __init__(self, path: Path, n_bytes: int | None) -> None:
        free = size_text(shutil.disk_usage(path.parent).free)
        needed = f"needs {size_text(n_bytes)} more, " if n_bytes is not None else ""
        super().__init__(f"no room for {path.name} ({path.parent}): {needed}{free} free; what is there is kept")


@contextmanager
def full_disk_named(path: Path, n_bytes: int | None = None) -> Iterator[None]:
    """Turn errors of a full disk, quota or size limit into DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(path, n_bytes) from error
        raise


def require_room(path: Path, n_bytes: int) -> None:
    """Raise DiskFull if ``n_bytes`` more do not fit beside ``path``."""
    if n_bytes > shutil.disk_usage(path.parent).free:
        raise DiskFull(path, n_bytes)


def size_text(n_bytes: int) -> str:
    """As in 994 B, 44.9 kB, 1.3 GB."""
    value, unit = float(n_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
