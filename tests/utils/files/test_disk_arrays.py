"""Arrays in files without a name: same values, bounded memory, and a full disk is an error."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from utils.files.disk_arrays import BLOCK_ROWS, RowList, RowStore, blocks_of, disk_zeros, index_blocks, release, rows_of

ROOT = Path(__file__).resolve().parents[3]


def test_values_stay_when_memory_is_given_back(tmp_path):
    array = disk_zeros((2 * BLOCK_ROWS + 3, 4), tmp_path)
    assert list(tmp_path.iterdir()) == []  # it has no name
    assert not array.any()
    for index in rows_of(np.arange(len(array)), array):
        array[index] = index
    release(array[3:, 1])  # a view of it
    expected = np.repeat(np.arange(len(array), dtype=np.float32)[:, None], 4, axis=1)
    assert np.array_equal(array, expected)
    assert np.array_equal(np.concatenate(list(blocks_of(array))), expected)
    assert [len(block) for block in index_blocks(np.arange(len(array)), array)] == [BLOCK_ROWS, BLOCK_ROWS, 3]
    assert disk_zeros((0, 4)).shape == (0, 4)


def test_plain_arrays_are_left_alone():
    array = np.ones((5, 2), np.float32)
    release(array)
    release(array[:2])
    assert [block.tolist() for block in blocks_of(array)] == [array.tolist()]


def test_lists_of_rows_share_a_file(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6, 3, 2)).astype(np.float32)
    store = RowStore((3, 2), tmp_path)
    one, other = RowList(store, rows[:1]), RowList(store)
    for index in range(1, 6):
        (one if index % 2 else other).append(rows[index])
    assert list(tmp_path.iterdir()) == []
    assert np.array_equal(np.stack(list(one)), rows[[0, 1, 3, 5]])
    assert np.array_equal(other[-1], rows[4])
    assert np.array_equal(np.stack(one[1:3]), rows[[1, 3]])
    assert (len(one), len(other)) == (4, 2)
    with pytest.raises(IndexError):
        one[4]


FULL_DISK = """
import resource, sys
import numpy as np
from pathlib import Path
from utils.files.disk_arrays import RowStore, disk_zeros
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
codes = []
try:
    disk_zeros((30_000,), Path(sys.argv[1]))
except OSError as error:
    codes.append(error.errno)
store = RowStore((1000,), Path(sys.argv[1]))
try:
    for number in range(30):
        store.add(np.zeros(1000, np.float32))
except OSError as error:
    codes.append(error.errno)
print(*codes, number)
"""


def test_a_full_disk_is_an_error(tmp_path):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.split() == [str(errno.EFBIG), str(errno.EFBIG), "25"]


MEMORY = """
import resource, sys
import numpy as np
from utils.files.disk_arrays import RowList, RowStore, blocks_of, disk_zeros, rows_of
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
array, rows = disk_zeros((30_000, 1000)), RowList(RowStore((1000,)))
row = np.ones(1000, np.float32)
for index in rows_of(np.arange(len(array)), array):
    array[index] = row
    rows.append(row)
assert sum(float(block.sum()) for block in blocks_of(array)) == array.size
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured in other units")
def test_memory_does_not_grow_with_the_array():
    result = subprocess.run(
        [sys.executable, "-c", MEMORY], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert int(result.stdout) < 30  # MiB, of 114
