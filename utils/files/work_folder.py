"""Folders of one run at a time: locks, and the parts of an unfinished result, which a later run resumes from.

clip#speech.mp4          the result, whole or absent
clip#speech.mp4.parts/   during a run and after an interruption: finished parts, and the key of their result
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from utils.core.errors import BadInput
from utils.files.atomic import PARTIAL, atomic_path, folders_above, remove

KEY_NAME = "key.txt"
_NO_KEY = ""  # of parts that are being removed
_SUFFIX = ".parts"


def parts_folder(result: Path) -> Path:
    """Folder of the parts of an unfinished result."""
    return result.with_name(result.name + _SUFFIX)


@contextmanager
def work_folder(result: Path, key: str, afresh: bool = False, inner: Sequence[str] = ()) -> Iterator[Path]:
    """Lock and yield the folder for parts of ``result``; parts of an earlier run with the same key are in it.

    Removed if the block succeeds, finishes no part, or raises BadInput. Else it stays, and a note on the error says so.
    ``afresh``: drop earlier parts. ``inner``: folders in it that parts are written to.
    Raises BadInput if another run uses it, or if files of another origin stand in its place.
    """
    folder = parts_folder(result)
    _require_own(folder)
    with folders_above(folder), sole_run(folder, *inner):
        if afresh or not _belongs_to(folder, key):
            clear_folder(folder)
        try:
            with atomic_path(folder / KEY_NAME) as temporary:
                temporary.write_text(f"{key}\n", encoding="ascii")
            yield folder
        except BadInput:
            with suppress(OSError):
                _remove(folder)
            raise
        except BaseException as error:
            if any(path.name != KEY_NAME for path in folder.iterdir()):
                error.add_note(f"finished parts are kept in {folder}; the same command resumes from them")
            else:
                with suppress(OSError):
                    _remove(folder)
            raise
        _remove(folder)


def drop_parts(result: Path, *keys: str) -> None:
    """Remove the parts of a finished result, left by a run that was killed at its very end.

    Parts with other keys and of a running process stay.
    """
    folder = parts_folder(result)
    if folder.is_dir() and not folder.is_symlink() and any(_belongs_to(folder, known) for known in (*keys, _NO_KEY)):
        with suppress(BadInput, OSError), sole_run(folder):
            _remove(folder)


def clear_folder(folder: Path) -> None:
    """Remove a folder's contents. A run killed meanwhile leaves parts without a key, which the next one drops."""
    key_path = folder / KEY_NAME
    if key_path.is_file() and not key_path.is_symlink():
        os.truncate(key_path, 0)  # to _NO_KEY, which needs no space on the disk
    for path in folder.iterdir():
        if path != key_path:
            remove(path)
    remove(key_path)


def _remove(folder: Path) -> None:
    clear_folder(folder)
    folder.rmdir()


def _require_own(folder: Path) -> None:
    """Raise BadInput for a link or a folder without a key: files of the user are never removed."""
    is_foreign = folder.is_symlink() or (
        folder.is_dir()
        and not (folder / KEY_NAME).is_file()
        and any(not path.name.startswith(PARTIAL) for path in folder.iterdir())
    )
    if is_foreign:
        found = "a link" if folder.is_symlink() else "files of another origin"
        advice = "move it, or choose another result folder"
        raise BadInput("parts of the result cannot be kept", folder, "no such folder, or one of ours", found, advice)


def _belongs_to(folder: Path, key: str) -> bool:
    try:
        return (folder / KEY_NAME).read_text(encoding="ascii").strip() == key
    except (OSError, ValueError):
        return False


@contextmanager
def sole_run(folder: Path, *inner: str) -> Iterator[None]:
    """Make and lock a folder; unfinished files of a killed run in it and in ``inner`` are removed.

    Raises BadInput if another run holds it. On a file system without locks nothing is locked or removed.
    """
    with _locked(folder, fcntl.LOCK_EX, make=True) as has_lock:
        if has_lock:
            for place in (folder, *(folder / name for name in inner)):
                for path in place.glob(f"{PARTIAL}*"):
                    remove(path)
        yield


@contextmanager
def reading(folder: Path) -> Iterator[Path]:
    """Yield the folder under a shared lock, if it exists: other runs may read it, none may replace it.

    Raises BadInput if a run is replacing it.
    """
    with _locked(folder, fcntl.LOCK_SH) if folder.is_dir() else nullcontext():
        yield folder


@contextmanager
def replacing(folder: Path) -> Iterator[None]:
    """Lock the folder, if it exists, against readers and writers. Raises BadInput if another run holds it."""
    with _locked(folder, fcntl.LOCK_EX) if folder.is_dir() else nullcontext():
        yield


@contextmanager
def _locked(folder: Path, kind: int, make: bool = False) -> Iterator[bool]:
    """Hold a lock on the folder itself, which ends with the process; yields False on a file system without locks."""
    while True:
        descriptor = _open(folder, make)
        try:
            has_lock = _lock(descriptor, folder, kind)
            if not has_lock or _is_still(descriptor, folder):
                yield has_lock
                return
        finally:
            os.close(descriptor)  # try again if the folder was removed or replaced while waiting for the lock


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
