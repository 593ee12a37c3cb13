"""Download of one address into one file; an interrupted download is resumed."""

from __future__ import annotations

import http.client
import re
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.request import Request, urlopen

from scripts.downloads.failures import SourceFailure, full_disk_named, require_room

PART_SUFFIX = ".part"
TAG_SUFFIX = ".tag"  # beside a part: which version of the remote file it belongs to
N_ATTEMPTS = 4  # in a row that bring nothing new
WAIT = 1.0  # s, before the second attempt; doubles
TIMEOUT = 30.0  # s without a byte
BLOCK = 1 << 20
_BUSY = (408, 429, 500, 502, 503, 504)
_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)


class Interrupted(Exception):
    """A temporary failure of the connection; ``is_silent``: it could not be opened."""

    def __init__(self, reason: str, is_silent: bool = False) -> None:
        super().__init__(reason)
        self.is_silent = is_silent


def download(url: str, path: Path) -> None:
    """Fetch ``url`` into ``path`` through ``path``.part.

    A connection that breaks is opened again for the rest, also in a later run. Raises SourceFailure when the server
    refuses or stays silent, DiskFull when there is no room.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART_SUFFIX)
    n_failed = 0
    while True:
        n_before = _size(part)
        try:
            _receive(url, part)
            break
        except Interrupted as error:
            n_failed = 1 if _size(part) > n_before else n_failed + 1
            if n_failed == N_ATTEMPTS:
                raise SourceFailure(f"{error} ({url})", error.is_silent) from error
            time.sleep(WAIT * 2 ** (n_failed - 1))
    part.replace(path)
    _tag_path(part).unlink(missing_ok=True)


def _receive(url: str, part: Path) -> None:
    """Fetch the rest of ``part``; raises Interrupted if the connection breaks before its end."""
    start = _size(part)
    request = Request(url, headers={"User-Agent": "joygen-download", "Accept-Encoding": "identity"})
    tag = _tag_path(part).read_text() if start and _tag_path(part).is_file() else ""
    if start:
        request.add_header("Range", f"bytes={start}-")
        if tag:
            request.add_header("If-Range", tag)
    try:
        response = urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{start}":
            return  # an earlier run had everything but the new name
        _refused(error, url, part)
    except _NETWORK_ERRORS as error:
        raise Interrupted(_reason(error), is_silent=True) from error
    with response:
        total = _continue_or_restart(response, part, start)
        have = _size(part)
        if total is not None:
            require_room(part, total - have)
        _append(response, part, have, total)


def _refused(error: urllib.error.HTTPError, url: str, part: Path) -> None:
    error.close()
    if error.code == 416:  # the part does not belong to this file
        part.unlink(missing_ok=True)
        raise Interrupted("the server's file has changed") from error
    if error.code in _BUSY:
        raise Interrupted(f"the server answers {error.code} {error.reason}") from error
    raise SourceFailure(f"the server answers {error.code} {error.reason} ({url})") from error


def _continue_or_restart(response: http.client.HTTPResponse, part: Path, start: int) -> int | None:
    """Empty the part unless the server sends the rest of it; the whole file's size if the server says it."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if response.status == 206 and found and int(found[1]) == start:
        return int(found[2])
    if response.status == 206:
        part.unlink(missing_ok=True)
        raise Interrupted("the server sends another range than asked for")
    part.write_bytes(b"")
    tag = response.headers.get("ETag") or ""
    tag = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
    _tag_path(part).write_text(tag)
    length = response.headers.get("Content-Length")
    return int(length) if length is not None else None


def _append(response: http.client.HTTPResponse, part: Path, have: int, total: int | None) -> None:
    from tqdm import tqdm

    name = part.name.removesuffix(PART_SUFFIX)
    bar = tqdm(
        desc=name, total=total, initial=have, unit="B", unit_scale=True, leave=False, disable=not sys.stderr.isatty()
    )
    # Closing the file writes what is buffered, so a full disk may show up there.
    with full_disk_named(part, None if total is None else total - have), bar, part.open("ab") as file:
        while True:
            try:
                block = response.read1(BLOCK)  # the received bytes, so that an interruption loses little
            except _NETWORK_ERRORS as error:
                raise Interrupted(_reason(error)) from error
            if not block:
                break
            file.write(block)
            have += len(block)
            bar.update(len(block))
    if total is not None and have != total:
        raise Interrupted(f"the connection closed after {have} of {total} bytes")


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "the server is silent"
    return f"no connection: {getattr(cause, 'strerror', None) or cause or type(cause).__name__}"


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _tag_path(part: Path) -> Path:
    return part.with_name(part.name + TAG_SUFFIX)
