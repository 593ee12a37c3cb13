"""In separate processes, since the settings hold for the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

HOLD_AND_FREE = """
from pathlib import Path
from utils.core.allocator import keep_freed_memory, return_freed_memory
def resident():  # bytes
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])
print(keep_freed_memory())
before = resident()
blocks = [bytearray(b"x" * 2**20) for _ in range(200)]
held, blocks = resident(), blocks[-1:]  # the last one keeps the heap from shrinking by itself
freed = resident()
print(return_freed_memory(), (held - before) / 2**20, (freed - before) / 2**20, (resident() - before) / 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_until_it_is_returned():
    found = subprocess.run([sys.executable, "-c", HOLD_AND_FREE], capture_output=True, text=True, check=True)
    can_keep, figures = found.stdout.splitlines()
    can_return, held, freed, returned = figures.split()
    assert (can_keep, can_return) == ("True", "True")
    assert float(held) > 190
    assert float(freed) > 190  # MiB: kept
    assert float(returned) < 20
