"""Numeric arrays of a MATLAB level 5 file, parsed from its bytes.

scipy's reader ends the process with a segmentation fault on some damaged files. Format: The
MathWorks, "MAT-File Format", chapter 1. Cells, structs, objects, function handles, text and sparse or complex arrays
are skipped.

    file     128 bytes of header, then elements
    element  type uint32 | size uint32 | data, padded to 8 bytes        (compressed ones are not padded)
             size uint16, type uint16 in one word | 4 bytes of data     (small form; upper half of the word not 0)
    matrix   elements: flags, dimensions, name, values
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator

import numpy as np

HEADER_BYTES = 128
LEVEL_5 = 1  # upper byte of the version in the header; 2 is the HDF5 format of MATLAB 7.3
BYTE_ORDERS = {b"IM": "<", b"MI": ">"}
MATRIX, COMPRESSED = 14, 15
VALUE_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
NUMERIC_CLASSES = range(6, 16)  # double, single, int8 … uint64; below are cell, struct, object, char, sparse
IS_COMPLEX = 0x0800


def parse_mat(content: bytes) -> dict[str, np.ndarray]:
    """Arrays by name, with the number type they are stored in. ValueError, struct.error or zlib.error if damaged."""
    order = BYTE_ORDERS.get(content[126:128])
    if order is None or struct.unpack_from(f"{order}H", content, 124)[0] >> 8 != LEVEL_5:
        raise ValueError("not a MATLAB level 5 file")
    arrays = {}
    for kind, data in _elements(memoryview(content)[HEADER_BYTES:], order):
        if kind == COMPRESSED:
            kind, data = next(_elements(_decompressed(data), order))
        if kind != MATRIX:
            raise ValueError(f"element of type {kind}")
        named = _matrix(data, order)
        if named is not None:
            arrays[named[0]] = named[1]
    return arrays


def _elements(content: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and data of one element after the other."""
    start = 0
    while start < len(content):
        word, size = struct.unpack_from(f"{order}II", content, start)
        kind, small_size = word & 0xFFFF, word >> 16
        if small_size:
            data, end = content[start + 4 : start + 4 + small_size], start + 8
            size = small_size if small_size <= 4 else -1
        else:
            data = content[start + 8 : start + 8 + size]
            end = start + 8 + size + (0 if kind == COMPRESSED else -size % 8)
        if len(data) != size:
            raise ValueError("element runs past the end")
        yield kind, data
        start = end


def _decompressed(data: memoryview) -> memoryview:
    stream = zlib.decompressobj()
    content = stream.decompress(data)
    if not stream.eof:
        raise ValueError("compressed element is cut off")
    return memoryview(content)


def _matrix(data: memoryview, order: str) -> tuple[str, np.ndarray] | None:
    """Name and array of a matrix, None for one that is not a plain numeric array or has no name (MATLAB's own)."""
    elements = _elements(data, order)

    def following(expected: str) -> np.ndarray:
        kind, values = next(elements, (0, memoryview(b"")))
        dtype = VALUE_TYPES.get(kind)
        if dtype is None or (expected and dtype != expected):
            raise ValueError(f"type {kind} inside a matrix")
        return np.frombuffer(values, order + dtype)

    flags = following("u4")
    if len(flags) != 2 or (flags[0] & 0xFF) not in NUMERIC_CLASSES or flags[0] & IS_COMPLEX:
        return None
    shape = tuple(following("i4").tolist())
    name = following("i1").tobytes().decode("ascii")
    if not name:
        return None
    values = following("")
    if min(shape, default=-1) < 0 or math.prod(shape) != len(values):
        raise ValueError(f"{len(values)} values for the shape {shape}")
    return name, values.astype(values.dtype.newbyteorder("=")).reshape(shape, order="F")
