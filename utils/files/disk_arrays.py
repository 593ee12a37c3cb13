"""Large arrays in anonymous temporary files, mapped into memory and released block by block.

Disk space is allocated when an array is made, so that a full disk is an error at once.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from utils.files.atomic import naming

BLOCK_ROWS = 512  # rows read or written before their memory is released


def disk_zeros(shape: tuple[int, ...], folder: Path | None = None) -> np.ndarray:
    """float32 zeros in a file in ``folder``, else where the system keeps temporary files. Raises OSError if it is full.

    Pages that were read or written stay in memory until ``release``.
    """
    n_bytes = 4 * int(np.prod(shape))
    if n_bytes == 0:
        return np.zeros(shape, np.float32)
    with naming(_place(folder)), tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        else:
            file.truncate(n_bytes)
        return np.frombuffer(mmap.mmap(file.fileno(), n_bytes), np.float32).reshape(shape)


def release(array: np.ndarray) -> None:
    """Release the memory of a disk array's pages; its values stay. Does nothing to other arrays."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)


def index_blocks(indices: np.ndarray, *arrays: np.ndarray) -> Iterator[np.ndarray]:
    """``indices`` in blocks of BLOCK_ROWS; after each block the memory of ``arrays`` is released."""
    for start in range(0, len(indices), BLOCK_ROWS):
        yield indices[start : start + BLOCK_ROWS]
        for array in arrays:
            release(array)


def rows_of(indices: np.ndarray, *arrays: np.ndarray) -> Iterator[int]:
    """``indices`` one by one; memory is released as by index_blocks."""
    for block in index_blocks(indices, *arrays):
        yield from block.tolist()


def blocks_of(array: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of an array in blocks; memory is released as by index_blocks."""
    for start in range(0, len(array), BLOCK_ROWS):
        yield array[start : start + BLOCK_ROWS]
        release(array)


def _place(folder: Path | None) -> Path:
    return folder or Path(tempfile.gettempdir())


class RowStore:
    """A temporary file of float32 rows of one shape, shared by several RowLists."""

    def __init__(self, shape: tuple[int, ...], folder: Path | None = None) -> None:
        self._folder = folder
        with naming(_place(folder)), tempfile.TemporaryFile(dir=folder) as file:
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)  # closed with the store
        self._shape, self._n_rows, self._n_bytes = shape, 0, 4 * int(np.prod(shape))

    def add(self, row: np.ndarray) -> int:
        """Write a row; returns its number."""
        data = memoryview(np.ascontiguousarray(row, np.float32).tobytes())
        offset = self._n_rows * self._n_bytes
        with naming(_place(self._folder)):
            while data:  # a filling disk takes a part, then raises
                n_written = os.pwrite(self._file, data, offset)
                data, offset = data[n_written:], offset + n_written
        self._n_rows += 1
        return self._n_rows - 1

    def read(self, number: int) -> np.ndarray:
        data = os.pread(self._file, self._n_bytes, number * self._n_bytes)
        return np.frombuffer(data, np.float32).reshape(self._shape).copy()


class RowList(Sequence[np.ndarray]):
    """A list of rows that grows in a RowStore."""

    def __init__(self, store: RowStore, rows: Iterable[np.ndarray] = ()) -> None:
        self._store, self._numbers = store, [store.add(row) for row in rows]

    def append(self, row: np.ndarray) -> None:
        self._numbers.append(self._store.add(row))

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...

    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self._store.read(number) for number in self._numbers[index]]
        return self._store.read(self._numbers[index])
