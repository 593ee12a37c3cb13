"""A CPU's threads, shared out among workers that each do small pieces of work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

MOST_WORKERS = 4  # each holds what it works on


@contextmanager
def shared_threads(most: int = MOST_WORKERS) -> Iterator[int]:
    """How many workers are worth having; within it, PyTorch uses in each of them its share of the threads.

    Small layers and small matrices keep one thread busy, but not several, which then wait for each other. Begin the
    workers' threads inside.
    """
    n_threads = torch.get_num_threads()
    n_workers = max(1, min(n_threads, most))
    torch.set_num_threads(n_threads // n_workers)
    try:
        yield n_workers
    finally:
        torch.set_num_threads(n_threads)
