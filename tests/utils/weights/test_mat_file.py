"""MATLAB files against scipy's reader, and damaged ones, which must never end the process."""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from utils.weights.mat_file import parse_mat

DAMAGED = (ValueError, struct.error, zlib.error)  # errors that utils/weights/checkpoints.py reports in one line
NUMBER_TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")


def mat_file(arrays: dict[str, object], compress: bool = False) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, arrays, do_compression=compress)
    return buffer.getvalue()


def numbers() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {f"of_{dtype}": rng.integers(0, 100, (3, 5)).astype(dtype) for dtype in NUMBER_TYPES}
    return arrays | {"short": np.array([[7]], "i2"), "empty": np.zeros((0, 3)), "cube": rng.normal(size=(2, 3, 4))}


def require_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, strict=True)
        found[name][...] = 0  # writable


@pytest.mark.parametrize("compress", [False, True])
def test_equals_scipy(compress):
    content = mat_file(numbers(), compress)
    by_scipy = loadmat(io.BytesIO(content))
    require_equal(parse_mat(content), {name: by_scipy[name] for name in numbers()})


def test_values_in_the_other_byte_order():
    """A file of one double from a big-endian machine, as the format's description lays it out."""
    matrix = struct.pack(">IIII", 6, 8, 6, 0) + struct.pack(">IIii", 5, 8, 1, 2)
    matrix += struct.pack(">HHcxxx", 1, 1, b"x") + struct.pack(">IIdd", 9, 16, 0.5, -3.0)
    content = bytes(124) + b"\x01\x00MI" + struct.pack(">II", 14, len(matrix)) + matrix
    require_equal(parse_mat(content), {"x": np.array([[0.5, -3.0]])})


def test_what_is_no_plain_numeric_array_is_passed_over():
    cell = np.array([1, "x", np.arange(3)], dtype=object)
    others = {"cell": cell, "record": {"x": 1, "y": "text"}, "text": "hello", "complex": np.array([1j])}
    kept = {"a": np.arange(6.0).reshape(2, 3)}
    require_equal(parse_mat(mat_file(others | kept)), kept)


@pytest.mark.parametrize("content", [b"", bytes(127), bytes(400), b"MATLAB 7.3".ljust(124) + b"\x00\x02IM"])
def test_files_of_another_kind(content):
    with pytest.raises(DAMAGED):
        parse_mat(content)


@pytest.mark.parametrize("compress", [False, True])
def test_every_truncation_inside_an_array_is_noticed(compress):
    whole = mat_file({"a": np.arange(12.0)}, compress)
    for length in range(129, len(whole)):
        with pytest.raises(DAMAGED):
            parse_mat(whole[:length])


@pytest.mark.parametrize("compress", [False, True])
def test_damage_raises_or_gives_arrays_and_nothing_else(compress):
    """A few thousand files with changed bits; in the compressed ones a checksum protects every value."""
    arrays = {"a": np.arange(30.0).reshape(3, 10), "tri": np.arange(30, dtype="i4").reshape(10, 3), "text": "hello"}
    whole, generator = mat_file(arrays, compress), random.Random(0)
    n_refused = 0
    for _ in range(3000):
        content = bytearray(whole)
        for _ in range(generator.choice([1, 1, 2, 5])):
            content[generator.randrange(124, len(content))] ^= 1 << generator.randrange(8)
        try:
            found = parse_mat(bytes(content))
        except DAMAGED:
            n_refused += 1
            continue
        assert all(isinstance(array, np.ndarray) and array.dtype.kind in "iuf" for array in found.values())
        if compress:
            assert all(np.array_equal(found[name], arrays[name]) for name in found)
    assert n_refused > 1000
