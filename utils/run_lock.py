"""One run at a time writes into a data folder, and cleans up after runs that were killed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.atomic import PARTIAL, remove
from utils.errors import BadInput


@contextmanager
def sole_run(folder: Path, *inner: str) -> Iterator[None]:
    """Make the folder and keep other runs out of it; what a killed run had begun there, or in ``inner``, is removed.

    Raises BadInput if another run is at work. Where the file system knows no locks, nothing is locked or removed.
    """
    with _locked(folder) as has_lock:
        if has_lock:
            for place in (folder, *(folder / name for name in inner)):
                for path in place.glob(f"{PARTIAL}*"):
                    remove(path)
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """The system lets go of the lock when the process ends, in whatever way; False where it knows no locks."""
    descriptor = _open(folder)
    try:
        while has_lock := _lock(descriptor, folder):
            if _is_still(descriptor, folder):
                break
            os.close(descriptor)  # the run that had the lock has removed its folder in the meantime
            descriptor = _open(folder)
        yield has_lock
    finally:
        os.close(descriptor)


def _open(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    return os.open(folder, os.O_RDONLY)


def _lock(descriptor: int, folder: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        advice = "wait for it, or choose another folder"
        raise BadInput("another run writes into this folder", folder, advice=advice) from error
    except OSError:
        return False
    return True


def _is_still(descriptor: int, folder: Path) -> bool:
    return folder.exists() and os.path.samestat(os.fstat(descriptor), folder.stat())
