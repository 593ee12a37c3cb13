"""Work in threads: streams whose steps overlap, and the CPU's threads shared out among workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

_END = object()


def run_ahead(items: Iterable[T], n_ahead: int = 1) -> Iterator[T]:
    """Yield the items in order, made by a thread that is at most ``n_ahead`` of them ahead.

    Exceptions of the thread are raised here, at the item that failed. Only steps that release the interpreter lock gain
    time: decoding, encoding, networks, OpenCV.
    """
    source = iter(items)
    with ThreadPoolExecutor(max_workers=1) as worker:
        pending: deque[Future[T | object]] = deque(worker.submit(next, source, _END) for _ in range(n_ahead))
        try:
            while (item := pending.popleft().result()) is not _END:
                pending.append(worker.submit(next, source, _END))
                yield item  # type: ignore[misc]  # everything but _END is a T
        finally:
            for future in pending:
                future.cancel()


def map_ahead(function: Callable[[T], U], items: Iterable[T], n_workers: int) -> Iterator[U]:
    """Yield ``function(item)`` in the items' order, computed by ``n_workers`` threads, one item ahead of them.

    The items are made in the caller's thread. Exceptions are raised here, at the item that failed.
    """
    source = iter(items)
    with ThreadPoolExecutor(max_workers=n_workers) as workers:
        pending: deque[Future[U]] = deque()
        try:
            for item in source:
                pending.append(workers.submit(function, item))
                if len(pending) > n_workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items; the last one may be shorter."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


MOST_WORKERS = 4  # each holds one item in memory


@contextmanager
def shared_threads(most: int = MOST_WORKERS) -> Iterator[int]:
    """Yield a number of workers (at most ``most``); inside the block PyTorch uses threads / workers threads in each.

    Small layers and matrices do not keep several threads busy. Start the workers' threads inside the block.
    """
    import torch

    n_threads = torch.get_num_threads()
    n_workers = max(1, min(n_threads, most))
    torch.set_num_threads(n_threads // n_workers)
    try:
        yield n_workers
    finally:
        torch.set_num_threads(n_threads)
