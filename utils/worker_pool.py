"""Independent pieces of work in local processes, results in the order of the pieces."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from utils.cli import quiet_third_party_logs
from utils.errors import StageFailure

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_workers() -> int:
    """Half of the processors: a face tracker and a decoder keep more than one busy."""
    return max(1, (os.cpu_count() or 1) // 2)


def map_units(work: Callable[[Item], Result], items: Sequence[Item], n_workers: int) -> Iterator[Result]:
    """Yield work(item) for every item, in order; with one worker in this process.

    Workers are started afresh ("spawn"), so ``work`` must be a module's function, or a partial of one. An exception of
    ``work`` is raised here, and pieces that have not begun are dropped. Raises StageFailure if a worker is killed.
    """
    n_workers = min(n_workers, len(items))
    if n_workers <= 1:
        yield from map(work, items)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(n_workers, mp_context=context, initializer=_prepare_worker)
    try:
        yield from pool.map(work, items)
    except BrokenProcessPool as error:
        advice = "what is finished stays; check the memory, and run again"
        raise StageFailure(f"a worker process was killed; {advice}") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _prepare_worker() -> None:
    quiet_third_party_logs()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process stops its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
