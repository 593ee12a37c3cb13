"""Files and folders that appear whole or not at all: written under a temporary name, then renamed."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.errors import BadInput

PARTIAL = ".partial-"  # begins the names of files and folders that are being written


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary file name beside ``path``; rename it on success, else leave the disk as it was."""
    with folders_above(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=PARTIAL, suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(directory: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``directory``; swap it in on success, else leave the disk as it was."""
    with folders_above(directory):
        temporary = Path(tempfile.mkdtemp(dir=directory.parent, prefix=PARTIAL))
        new = temporary / "new"
        try:
            new.mkdir()
            yield new
            swap_in(new, directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def swap_in(new: Path, directory: Path) -> None:
    """Rename the folder ``new`` to ``directory``; what was there stays as "old" beside ``new``, or comes back if that
    fails."""
    old = new.with_name("old")
    if directory.exists():
        shutil.rmtree(old, ignore_errors=True)
        directory.rename(old)
    try:
        new.rename(directory)
    finally:
        if old.exists() and not directory.exists():
            old.rename(directory)


@contextmanager
def folders_above(path: Path) -> Iterator[None]:
    """Make the folders that ``path`` stands in; remove those that were new if the block fails."""
    missing = list(itertools.takewhile(lambda folder: not folder.exists(), path.parents))
    path.parent.mkdir(parents=True, exist_ok=True)
    succeeded = False
    try:
        yield
        succeeded = True
    finally:
        for folder in () if succeeded else missing:
            with suppress(OSError):  # another run put something in it
                folder.rmdir()


def require_writable(directory: Path) -> None:
    """Say early that nothing can be written into a folder, or that it cannot be made. Changes nothing."""
    try:
        nearest = next(folder for folder in (directory, *directory.parents) if folder.exists())
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        advice = "choose another folder"
        raise BadInput("result folder cannot be written", directory, "a writable folder", reason, advice) from error
