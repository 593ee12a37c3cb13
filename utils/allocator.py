"""Memory that is freed and asked for again stays with the process, so that its pages are not cleared anew each time."""

from __future__ import annotations

import ctypes
import sys

# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGEST_KEPT = 1 << 30  # bytes; larger blocks go back to the system


def keep_freed_memory() -> bool:
    """Let the C library keep blocks of up to 1 GiB, in one heap for all threads; True if it is one that can.

    glibc otherwise gives blocks of more than 32 MiB back at once. A network's feature maps are that large, and clearing
    their pages for every layer costs a sixth of its time. One heap: the heaps of further threads hold 64 MiB at most.
    Call before threads begin.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    settings = ((M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, LARGEST_KEPT), (M_TRIM_THRESHOLD, 2**31 - 1))
    taken = [mallopt(name, value) == 1 for name, value in settings]  # all are set, even if one is refused
    return all(taken)
