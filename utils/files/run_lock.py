"""One run at a time writes into a folder, and cleans up after runs that were killed; what is read is not replaced."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from utils.core.errors import BadInput
from utils.files.atomic import PARTIAL, remove


@contextmanager
def sole_run(folder: Path, *inner: str) -> Iterator[None]:
    """Make the folder and keep other runs out of it; what a killed run had begun there, or in ``inner``, is removed.

    Raises BadInput if another run is at work. Where the file system knows no locks, nothing is locked or removed.
    """
    with _locked(folder, fcntl.LOCK_EX, make=True) as has_lock:
        if has_lock:
            for place in (folder, *(folder / name for name in inner)):
                for path in place.glob(f"{PARTIAL}*"):
                    remove(path)
        yield


@contextmanager
def reading(folder: Path) -> Iterator[Path]:
    """Keep runs away that would replace the folder, which is given back, if it is there; others may read it too.

    Raises BadInput if one is about to replace it.
    """
    with _locked(folder, fcntl.LOCK_SH) if folder.is_dir() else nullcontext():
        yield folder


@contextmanager
def replacing(folder: Path) -> Iterator[None]:
    """Keep runs away that would read or replace the folder, if it is there. Raises BadInput if one does already."""
    with _locked(folder, fcntl.LOCK_EX) if folder.is_dir() else nullcontext():
        yield


@contextmanager
def _locked(folder: Path, kind: int, make: bool = False) -> Iterator[bool]:
    """The system lets go of the lock when the process ends, in whatever way; False where it knows no locks."""
    while True:
        descriptor = _open(folder, make)
        try:
            has_lock = _lock(descriptor, folder, kind)
            if not has_lock or _is_still(descriptor, folder):
                yield has_lock
                return
        finally:
            os.close(descriptor)  # without a yield: the run that had the lock has removed or replaced its folder


def _open(folder: Path, make: bool) -> int:
    if make:
        folder.mkdir(parents=True, exist_ok=True)
    return os.open(folder, os.O_RDONLY)


def _lock(descriptor: int, folder: Path, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        advice = "wait for it, or choose another folder"
        raise BadInput("another run uses this folder", folder, advice=advice) from error
    except OSError:
        return False
    return True


def _is_still(descriptor: int, folder: Path) -> bool:
    return folder.exists() and os.path.samestat(os.fstat(descriptor), folder.stat())
