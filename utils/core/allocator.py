"""Settings of glibc's malloc that keep freed memory with the process, so that its pages are not cleared again."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGEST_KEPT = 1 << 30  # bytes; larger blocks go back to the system


def keep_freed_memory() -> bool:
    """Make glibc keep freed blocks of up to 1 GiB, in one heap for all threads; False for another C library.

    By default glibc returns blocks of more than 32 MiB to the system at once. Feature maps are that large, and clearing
    their pages for every layer costs a sixth of a network's time. One heap, because the heaps of further threads hold
    64 MiB at most. Call before threads begin.
    """
    mallopt = _of_c_library("mallopt")
    if mallopt is None:
        return False
    settings = ((M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, LARGEST_KEPT), (M_TRIM_THRESHOLD, 2**31 - 1))
    taken = [mallopt(name, value) == 1 for name, value in settings]  # all are set, even if one is refused
    return all(taken)


def return_freed_memory() -> bool:
    """Return unused heap memory to the system; False for another C library.

    Many threads' blocks fragment one heap over thousands of batches. Call it now and then, not after every batch.
    """
    trim = _of_c_library("malloc_trim")
    return trim is not None and trim(0) == 1


def _of_c_library(name: str) -> Any:
    """One of glibc's functions; None in another C library."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
