"""Atomic writing of files and folders: a temporary name, then a rename.

A symbolic link in the place of a result is replaced, and its target stays as it is. Links in the folders above are
followed.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.core.errors import BadInput

PARTIAL = ".partial-"  # begins the names of files and folders that are being written


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary file name beside ``path``; rename it on success, else leave the disk as it was."""
    with folders_above(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=PARTIAL, suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            with naming(path, temporary):
                yield temporary
                temporary.chmod(0o644)
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Name ``path`` in an OSError that names no file (a full disk) or the temporary one."""
    try:
        yield
    except OSError as error:
        if error.filename is None or error.filename == str(temporary):
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def atomic_dir(directory: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``directory``; swap it in on success, else leave the disk as it was."""
    with folders_above(directory):
        temporary = Path(tempfile.mkdtemp(dir=directory.parent, prefix=PARTIAL))
        new = temporary / "new"
        try:
            with naming(directory):
                new.mkdir()
                yield new
            swap_in(new, directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def swap_in(new: Path, directory: Path) -> None:
    """Rename the folder ``new`` to ``directory``; the former folder stays as "old" beside ``new``, or is restored on
    failure."""
    old = new.with_name("old")
    if is_there(directory):
        remove(old)
        directory.rename(old)
    try:
        new.rename(directory)
    finally:
        if is_there(old) and not is_there(directory):
            old.rename(directory)


def is_there(path: Path) -> bool:
    """Whether a file, folder or link exists, broken links included."""
    return path.is_symlink() or path.exists()


def remove(path: Path) -> None:
    """Remove a file, a link (not its target) or a folder with its contents, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def folders_above(path: Path) -> Iterator[None]:
    """Make the parent folders of ``path``; remove the new ones if the block fails."""
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
    """Raise BadInput for a folder that cannot be written or made. Changes nothing."""
    advice = "choose another folder"
    try:
        nearest = next(folder for folder in (directory, *directory.parents) if is_there(folder))
        if not nearest.exists():
            raise BadInput("result folder cannot be made", directory, "a folder", "a link that leads nowhere", advice)
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # the folder is no mistake
            error.filename = str(directory)
            raise
        reason = error.strerror or str(error)
        raise BadInput("result folder cannot be written", directory, "a writable folder", reason, advice) from error
