"""Fetching one official file from one of its sources, and checking it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from scripts.downloads.archives import extract, is_archive, list_members, locate_file
from scripts.downloads.failures import SourceFailure, full_disk_named, require_room
from scripts.downloads.transfer import N_ATTEMPTS, TIMEOUT, download
from utils.core.errors import BadInput
from utils.files.atomic import atomic_path
from utils.weights.official_files import Copy, Drive, DriveFolder, Hub, OfficialFile, Source, Url

REPOSITORY_DIR = Path(__file__).resolve().parents[2]
DRIVE_PREFIX = "drive-"
_SHA256_DIGITS = 64
_QUOTA_SIGNS = ("too many users", "quota")  # in Google's own sentences


def fetch(source: Source, file: OfficialFile, workspace: Path, target: Path) -> Path:
    """A complete copy of ``file`` below ``workspace``, not yet checked. Raises SourceFailure or DiskFull.

    ``target`` is where the file belongs; advice for the user names it.
    """
    path, what_then = workspace / file.path, f"put it at {target}"
    match source:
        case Url(url):
            download(url, path)
        case Hub():
            _fetch_from_hub(source, path)
        case Drive(file_id, packed):
            return _unpacked(fetch_from_drive(file_id, workspace, what_then), file.path, path, packed)
        case DriveFolder(folder_id):
            file_id = _find_in_drive_folder(folder_id, file.path)
            return _unpacked(fetch_from_drive(file_id, workspace, what_then), file.path, path, must_be_packed=False)
        case Copy(name):
            if not target.parent.is_dir():
                raise SourceFailure(f"{name} serves only beside the weights")
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY_DIR / name, path)
        case _:
            raise SourceFailure("to be fetched by hand")
    return path


def _fetch_from_hub(source: Hub, path: Path) -> None:
    # huggingface_hub's own download starts again after an interruption, so it only tells address, size and hash.
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    url = hf_hub_url(source.repository, source.filename)
    try:
        stated = get_hf_file_metadata(url, timeout=TIMEOUT, token=False)
    except (HTTPError, OSError) as error:
        is_silent = not isinstance(error, HfHubHTTPError)
        raise SourceFailure(f"the hub says: {_first_line(error)} ({url})", is_silent) from error
    download(url, path)
    if stated.size is not None and path.stat().st_size != stated.size:
        found = path.stat().st_size
        path.unlink()
        raise SourceFailure(f"the hub states {stated.size} bytes, the file has {found}")
    if stated.etag and len(stated.etag) == _SHA256_DIGITS and (wrong := _other_hash(path, stated.etag)):
        path.unlink()
        raise SourceFailure(f"{wrong}, as the hub states it")


# Raised by gdown on pages of Google's that it does not expect.
_UNEXPECTED_PAGE = (LookupError, ValueError, TypeError, AttributeError, AssertionError)


def fetch_from_drive(file_id: str, workspace: Path, what_then: str) -> Path:
    """A file of Google Drive; ``what_then``: what to do with it if the user has to get it in a browser."""
    import gdown
    from gdown.exceptions import DownloadError
    from tqdm import tqdm

    path = workspace / f"{DRIVE_PREFIX}{file_id}"
    if path.is_file():  # fetched for another file
        return path
    workspace.mkdir(parents=True, exist_ok=True)
    page = Drive(file_id).page
    bar = tqdm(desc=path.name, unit="B", unit_scale=True, leave=False, disable=not sys.stderr.isatty())

    def report(n_bytes: int, total: int | None) -> None:
        if total is not None and bar.total is None:
            require_room(path, total - n_bytes)
            bar.total = total
        bar.update(n_bytes - bar.n)

    options: dict[str, Any] = {"quiet": True, "resume": True, "retries": N_ATTEMPTS - 1, "timeout": TIMEOUT}
    try:
        with full_disk_named(path), bar:
            gdown.download(id=file_id, output=str(path), progress=report, **options)
    except (DownloadError, OSError, *_UNEXPECTED_PAGE) as error:
        raise SourceFailure(_drive_reason(error, page, what_then), _is_silent(error)) from error
    return path


def _find_in_drive_folder(folder_id: str, wanted: PurePosixPath) -> str:
    import gdown
    from gdown.exceptions import DownloadError

    page = DriveFolder(folder_id).page
    try:
        listed = gdown.download_folder(id=folder_id, skip_download=True, quiet=True, timeout=TIMEOUT)
    except (DownloadError, OSError, *_UNEXPECTED_PAGE) as error:
        raise SourceFailure(f"Google Drive does not show {page}: {_first_line(error)}", _is_silent(error)) from error
    file_ids = {PurePosixPath(entry.path): entry.id for entry in listed if not isinstance(entry, str)}
    found = locate_file(file_ids, wanted)
    if found is None:
        raise SourceFailure(f"{page} holds no {wanted.name}")
    return str(file_ids[found])


def _is_silent(error: Exception) -> bool:
    """Whether the network failed, not Google: gdown passes on errors of requests, which are OSErrors."""
    return isinstance(error, OSError) or isinstance(error.__cause__, OSError)


def _drive_reason(error: Exception, page: str, what_then: str) -> str:
    by_hand = f"get the file by hand from {page} and {what_then}"
    if any(sign in str(error).lower() for sign in _QUOTA_SIGNS):
        return f"Google Drive's quota for this file is used up, try again tomorrow or {by_hand}"
    return f"Google Drive does not give it: {_first_line(error)}; try again or {by_hand}"


def _unpacked(container: Path, wanted: PurePosixPath, path: Path, must_be_packed: bool) -> Path:
    """The wanted file out of ``container`` if that is an archive that holds it, else the container itself."""
    if is_archive(container):
        try:
            member = locate_file(list_members(container), wanted)
            if member is not None:
                extract(container, {member: path})
                return path
        except SourceFailure:
            container.unlink()  # so that the next run fetches it anew
            raise
    if must_be_packed:
        raise SourceFailure(f"the file on Google Drive is no archive that holds {wanted.name}")
    return container


def fault(path: Path, file: OfficialFile) -> str | None:
    """Reason why a path is not the intact ``file``; None if no fault is found."""
    from utils.weights.checkpoints import require_real_file

    try:
        require_real_file(path)
    except BadInput as error:
        return error.found or str(error)
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"{size} bytes instead of {file.size}"
    return _other_hash(path, file.sha256) if file.sha256 else None


def _other_hash(path: Path, expected: str) -> str | None:
    from utils.files.digests import sha256

    found = sha256(path)
    return None if found.startswith(expected.lower()) else f"sha256 {found} instead of {expected}"


def place(path: Path, target: Path) -> None:
    """Move a checked file to its place, atomically."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.stat().st_dev == target.parent.stat().st_dev:
        path.replace(target)
        return
    with atomic_path(target) as temporary, full_disk_named(temporary, path.stat().st_size):
        shutil.copyfile(path, temporary)
    path.unlink()


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
