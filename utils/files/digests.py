"""SHA-256 of files and folders.

Digests of large files are remembered with the file's size, inode and time of change, so that weights and clips of
gigabytes are read once; JOYGEN_CACHE chooses where.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from utils.core.errors import BadInput
from utils.files.atomic import atomic_path

LARGE = 16 * 1024 * 1024  # bytes; smaller files are not cached
_SETTLED = 2.0  # seconds; a file changed more recently may change again within the same time stamp
_MOST_ENTRIES = 200


def path_digest(path: Path) -> str:
    """Digest of a file, or of the names and contents of all files in a folder."""
    if not path.is_dir():
        return file_digest(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listing = [(file.relative_to(path).as_posix(), file_digest(file)) for file in files]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, from the cache if it is large and has not changed."""
    status = path.stat()
    if status.st_size < LARGE:
        return sha256(path)
    name, state = str(path.resolve()), [status.st_size, status.st_ino, status.st_mtime_ns]
    known = _read_cache()
    if known.get(name, {}).get("state") == state:
        return str(known[name]["sha256"])
    digest = sha256(path)
    if time.time() - status.st_mtime > _SETTLED:
        others = {other: entry for other, entry in _read_cache().items() if other != name}
        _write_cache(others | {name: {"state": state, "sha256": digest}})
    return digest


def require_unchanged(path: Path, digest: str) -> None:
    """Raise BadInput unless a file still has this SHA-256; a result may mix two versions of it otherwise."""
    if not path.is_file() or file_digest(path) != digest:
        advice = "run the command again when it stays as it is"
        raise BadInput("file has changed while it was used", path, "the same content all the time", "another", advice)


def sha256(path: Path) -> str:
    """SHA-256 of a file, always read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cache_path() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111  # no home is no error here
    return Path(os.environ.get("JOYGEN_CACHE") or Path(base) / "joygen") / "digests.json"


def _read_cache() -> dict[str, dict[str, object]]:
    try:
        content = json.loads(_cache_path().read_text(encoding="utf-8"))
        return {name: entry for name, entry in content.items() if isinstance(entry.get("sha256"), str)}
    except (OSError, ValueError, AttributeError, RecursionError):  # none yet, or not ours
        return {}


def _write_cache(entries: dict[str, dict[str, object]]) -> None:
    """Keep the latest entries; a folder that cannot be written is no reason to stop."""
    with suppress(OSError), atomic_path(_cache_path()) as temporary:
        temporary.write_text(json.dumps(dict(list(entries.items())[-_MOST_ENTRIES:])), encoding="utf-8")
