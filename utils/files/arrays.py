"""Arrays in .npy files: written block by block, read as a whole (load_array) or row by row (ArrayRows), checked."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO, Literal, Protocol, Self

import numpy as np

from utils.core.errors import BadInput
from utils.files.atomic import atomic_path


class StoredPath(Protocol):
    """A file or folder that can be read: on disk (Path), or packed in a shard (utils/data/shards.py)."""

    @property
    def name(self) -> str: ...

    def __truediv__(self, name: str, /) -> Self: ...

    def is_file(self) -> bool: ...

    def open(self, mode: Literal["rb"]) -> BinaryIO: ...


_KINDS = {"f": "float", "i": "int", "u": "uint", "b": "bool"}  # of numpy's dtype kinds


def save_array(path: Path, array: np.ndarray) -> None:
    save_rows(path, [array], len(array), array.dtype)


def save_rows(path: Path, blocks: Iterable[np.ndarray], n_rows: int, dtype: type | np.dtype) -> None:
    """Write a .npy file of ``n_rows`` rows block by block. Raises ValueError if the blocks have more or fewer."""
    kind = np.dtype(dtype)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        n_written = 0
        for number, block in enumerate(blocks):
            if number == 0:
                header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False}
                np.lib.format.write_array_header_1_0(file, header | {"shape": (n_rows, *block.shape[1:])})
            file.write(np.ascontiguousarray(block, kind).data)  # unlike tofile, it raises ENOSPC on a full disk
            n_written += len(block)
        if n_written != n_rows:
            raise ValueError(f"{n_written} rows instead of {n_rows} for {path}")


def load_array(path: StoredPath, shape: tuple[int | None, ...], kind: str, advice: str) -> np.ndarray:
    """Read a .npy file whose shape must match (None = any length) and whose dtype kind must be in ``kind``."""
    array = read_npy(path, shape, advice)
    require_fit(path, array.shape, array.dtype, shape, kind, advice)
    return array


def require_fit(
    path: StoredPath, found: tuple[int, ...], dtype: np.dtype, shape: tuple[int | None, ...], kind: str, advice: str
) -> None:
    """Raise BadInput unless an array of shape ``found`` and type ``dtype`` is what load_array asks for."""
    fits = len(found) == len(shape) and all(n in (None, m) for n, m in zip(shape, found, strict=True))
    if not fits or dtype.kind not in kind:
        expected, is_there = f"{_KINDS[kind[0]]} {shape_text(shape)}", f"{dtype} {shape_text(found)}"
        raise BadInput("array does not fit", str(path), expected, is_there, advice)


def read_npy(path: StoredPath, shape: tuple[int | None, ...], advice: str) -> np.ndarray:
    """Read any .npy file; ``shape`` only serves the message of a missing file."""
    with opened_npy(path, shape, advice) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


@contextmanager
def opened_npy(path: StoredPath, shape: tuple[int | None, ...], advice: str) -> Iterator[BinaryIO]:
    """Open a .npy file; numpy's errors on a damaged one become BadInput."""
    if not path.is_file():
        raise BadInput("file missing", str(path), f"an array of shape {shape_text(shape)}", "nothing", advice)
    try:
        with path.open("rb") as file:
            yield file
    except PermissionError:  # its own message is clearer
        raise
    except (ValueError, OSError, EOFError, TokenError, MemoryError) as error:
        found = "a damaged file or one of another type"
        raise BadInput("unreadable array", str(path), "a .npy file", found, advice) from error


def shape_text(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("N" if n is None else str(n) for n in shape) + "]"


_VERSIONS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class ArrayRows:
    """A .npy file of shape [N, ...]; ``rows[i]`` reads one row from the disk, ``rows.all()`` the whole array.

    A slice or an array of row numbers gives those rows.
    """

    def __init__(self, path: StoredPath, shape: tuple[int | None, ...], kind: str, advice: str) -> None:
        """Read the header alone. Raises BadInput as array_files.load_array does, and if the file is too short."""
        with opened_npy(path, shape, advice) as file:
            self._shape, is_fortran, self._dtype = _read_header(file)
            self._start = file.tell()
            n_bytes = file.seek(0, os.SEEK_END) - self._start
        require_fit(path, self._shape, self._dtype, shape, kind, advice)
        if is_fortran:
            raise BadInput("array does not fit", str(path), "rows one after the other", "Fortran's order", advice)
        self._path, self._advice = path, advice
        self._row_bytes = math.prod(self._shape[1:]) * self._dtype.itemsize
        if n_bytes < len(self) * self._row_bytes:
            found = f"{n_bytes} bytes"
            raise BadInput("array is cut off", str(path), f"{len(self) * self._row_bytes} bytes", found, advice)

    def __len__(self) -> int:
        return self._shape[0]

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        if isinstance(index, slice):
            first, stop, step = index.indices(len(self))
            return self._read(first, max(0, stop - first))[::step]
        if isinstance(index, np.ndarray):
            rows = [self[int(row)] for row in index]
            return np.stack(rows) if rows else np.zeros((0, *self._shape[1:]), self._dtype)
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._read(index, 1)[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def dtype(self) -> np.dtype:
        return self._dtype

    def all(self) -> np.ndarray:
        return self._read(0, len(self))

    def _read(self, first: int, n_rows: int) -> np.ndarray:
        with self._path.open("rb") as file:
            file.seek(self._start + first * self._row_bytes)
            data = file.read(n_rows * self._row_bytes)
        if len(data) < n_rows * self._row_bytes:
            raise BadInput("array is cut off", str(self._path), f"{len(self)} rows", "fewer", self._advice)
        return np.frombuffer(data, self._dtype).reshape(n_rows, *self._shape[1:])


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version not in _VERSIONS:
        raise ValueError(f".npy of version {version}")
    shape, is_fortran, dtype = _VERSIONS[version](file)
    return shape, is_fortran, dtype
