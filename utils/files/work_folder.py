"""Results that are made part by part: what a killed run has finished is found again by the next one.

clip#speech.mp4          the result, whole or absent
clip#speech.mp4.parts/   while it is made, and after an interruption: finished parts, and the key of what they belong to
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.core.errors import BadInput
from utils.files.atomic import PARTIAL, atomic_path, folders_above, remove
from utils.files.run_lock import sole_run

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
