"""Rows of a stored array that are read when they are asked for: a data set's arrays together need not fit in memory."""

from __future__ import annotations

import math
import os
from typing import BinaryIO

import numpy as np

from utils.core.errors import BadInput
from utils.files.array_files import opened_npy, require_fit
from utils.files.stored_path import StoredPath

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
