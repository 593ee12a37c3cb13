"""Folders of one run at a time: locks, and the parts of an unfinished result, which a later run resumes from.

clip#speech.mp4          the result, whole or absent
clip#speech.mp4.parts/   while it is made, and after an interruption: finished parts, and the key of what they belong to
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
    """Where the parts of a result stand while it is made."""
    return result.with_name(result.name + _SUFFIX)


@contextmanager
def work_folder(result: Path, key: str, afresh: bool = False, inner: Sequence[str] = ()) -> Iterator[Path]:
    """The folder for parts of ``result``, for this run alone; parts from before are in it if their key is the same.

    Removed if the block ends well, or if nothing was finished in it or its input was bad. Else it stays, and a note on
    the error says so. ``afresh``: parts from before are not used. ``inner``: folders in it that parts are written to.
    Raises BadInput if another run is at work in it, or if what stands in its place is not of such a run.
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
                error.add_note(f"finished parts are kept in {folder}, and the same command goes on from there")
            else:
                with suppress(OSError):
                    _remove(folder)
            raise
        _remove(folder)


def drop_parts(result: Path, *keys: str) -> None:
    """Remove the parts of a finished result, which are there if the run that made it was killed at its very end.

    Parts with other keys stay, and those of a run that is at work.
    """
    folder = parts_folder(result)
    if folder.is_dir() and not folder.is_symlink() and any(_belongs_to(folder, known) for known in (*keys, _NO_KEY)):
        with suppress(BadInput, OSError), sole_run(folder):
            _remove(folder)


def clear_folder(folder: Path) -> None:
    """Remove all that is in it. Whoever is killed meanwhile leaves parts that are nobody's, and are known as such."""
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
    """Nothing of the user's is emptied or removed: no link, and no folder whose files have no key beside them."""
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
