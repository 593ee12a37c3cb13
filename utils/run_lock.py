"""One run at a time writes into a data folder, and cleans up after runs that were killed."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.errors import BadInput
from utils.store import PARTIAL


@contextmanager
def sole_run(folder: Path, *inner: str) -> Iterator[None]:
    """Make the folder and keep other runs out of it; what a killed run had begun there, or in ``inner``, is removed.

    Raises BadInput if another run is at work. Where the file system knows no locks, nothing is locked or removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # no locks here
            _lock(descriptor, folder)
            for place in (folder, *(folder / name for name in inner)):
                for path in place.glob(f"{PARTIAL}*"):
                    _remove(path)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        advice = "wait for it, or choose another folder"
        raise BadInput("another run writes into this folder", folder, advice=advice) from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
