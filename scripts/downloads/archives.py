"""Extraction of named files from an untrusted archive; no name in it decides where a file is written."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from scripts.downloads.failures import SourceFailure, full_disk_named, require_room

_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)
_ENCRYPTED = 0x1  # flag of a zip member
_BLOCK = 1 << 20


def is_archive(path: Path) -> bool:
    return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)


def list_members(path: Path) -> list[PurePosixPath]:
    """Names of the plain files; links, devices and names that lead out of the archive are left out."""
    with _damage_named(path):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = [info.filename for info in archive.infolist() if _is_plain(info)]
        else:
            with tarfile.open(path) as archive:
                names = [member.name for member in archive if member.isreg()]
    members = [PurePosixPath(name) for name in names]
    return [member for member in members if not member.is_absolute() and ".." not in member.parts]


def extract(path: Path, targets: Mapping[PurePosixPath, Path]) -> None:
    """Write the named members to the given paths. Raises SourceFailure for a damaged archive."""
    with _damage_named(path):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    target = targets.get(PurePosixPath(info.filename))
                    if target is not None and _is_plain(info):
                        if info.flag_bits & _ENCRYPTED:
                            raise SourceFailure(f"{path.name} asks for a password")
                        with archive.open(info) as packed:
                            _write(packed, target, info.file_size)
        else:
            with tarfile.open(path) as archive:
                for member in archive:
                    target = targets.get(PurePosixPath(member.name))
                    content = archive.extractfile(member) if target is not None and member.isreg() else None
                    if content is not None and target is not None:
                        with content:
                            _write(content, target, member.size)
                while archive.fileobj is not None and archive.fileobj.read(_BLOCK):
                    pass  # the checksum of what was compressed stands at the end


def locate_tree(
    members: Iterable[PurePosixPath], wanted: Iterable[PurePosixPath]
) -> dict[PurePosixPath, PurePosixPath]:
    """Wanted paths and their members, below the folder that holds most of them, however deep it is nested."""
    wanted = list(wanted)
    found: dict[tuple[str, ...], dict[PurePosixPath, PurePosixPath]] = defaultdict(dict)
    for member in members:
        for path in wanted:
            n_parts = len(path.parts)
            if member.parts[-n_parts:] == path.parts:
                found[member.parts[:-n_parts]][path] = member
    return max(found.values(), key=len, default={})


def locate_file(members: Iterable[PurePosixPath], wanted: PurePosixPath) -> PurePosixPath | None:
    """The member of that name whose folders agree best with the wanted ones; of equals the one less deep."""

    def agreement(member: PurePosixPath) -> tuple[int, int]:
        pairs = list(zip(reversed(member.parts), reversed(wanted.parts), strict=False))
        n_equal = next((n for n, (left, right) in enumerate(pairs) if left != right), len(pairs))
        return n_equal, -len(member.parts)

    return max((member for member in members if member.name == wanted.name), key=agreement, default=None)


def _is_plain(info: zipfile.ZipInfo) -> bool:
    mode = info.external_attr >> 16  # 0 where the archive was not packed on Unix
    return not info.is_dir() and (stat.S_IFMT(mode) in (0, stat.S_IFREG))


def _write(content: IO[bytes], target: Path, size: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    require_room(target, size)
    with full_disk_named(target, size), target.open("wb") as file:
        shutil.copyfileobj(content, file, _BLOCK)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the system, not of gzip or bz2
            raise
        raise SourceFailure(f"{path.name} is a damaged archive: {error}") from error
    except NotImplementedError as error:
        raise SourceFailure(f"{path.name} is packed in a way that Python cannot read; unpack it by hand") from error
