"""Arrays in .npy files: written block by block, checked when they are read. Part by part: utils/files/array_rows.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO

import numpy as np

from utils.core.errors import BadInput
from utils.files.atomic import atomic_path
from utils.files.stored_path import StoredPath

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
            file.write(np.ascontiguousarray(block, kind).data)  # which names a full disk, as tofile does not
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
    """Read any .npy file; ``shape`` is only what a missing file is said to lack."""
    with opened_npy(path, shape, advice) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


@contextmanager
def opened_npy(path: StoredPath, shape: tuple[int | None, ...], advice: str) -> Iterator[BinaryIO]:
    """Open a .npy file; what numpy raises on a damaged one becomes BadInput."""
    if not path.is_file():
        raise BadInput("file missing", str(path), f"an array of shape {shape_text(shape)}", "nothing", advice)
    try:
        with path.open("rb") as file:
            yield file
    except PermissionError:  # which says it better
        raise
    except (ValueError, OSError, EOFError, TokenError, MemoryError) as error:
        found = "a damaged file or one of another type"
        raise BadInput("unreadable array", str(path), "a .npy file", found, advice) from error


def shape_text(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("N" if n is None else str(n) for n in shape) + "]"
