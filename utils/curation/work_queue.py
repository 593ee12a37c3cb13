"""Units of work on several processes of this machine. Each unit is done by one process, with one thread.

A sum's rounding depends on the number of threads that share it; with one thread per unit, results are the same for any
number of processes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from utils.core.errors import BadInput

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
N_TRIES = 2  # of a unit whose process dies
_PATIENCE = 10.0  # seconds for a process to end

Work = Callable[[Path], str]


@dataclass(frozen=True)
class Outcome:
    """Result of a unit: a note on what was made, or the reason why it was left out.

    is_final: trying again would change nothing. stop: an error that ends the whole run, such as a full disk.
    """

    unit: Path
    note: str = ""
    failure: str | None = None
    is_final: bool = True
    stop: OSError | None = None


def attempt(work: Work, unit: Path) -> Outcome:
    """Do one unit; errors of its input or of the disk become part of the outcome."""
    try:
        return Outcome(unit, note=work(unit))
    except BadInput as error:
        return Outcome(unit, failure=str(error))
    except OSError as error:
        return Outcome(unit, failure=str(error), is_final=False, stop=error)


def default_workers() -> int:
    """Half of the processors: a face tracker and a decoder keep more than one busy."""
    return max(1, (os.cpu_count() or 1) // 2)


def run_units(units: Sequence[Path], work: Work, n_workers: int) -> Iterator[Outcome]:
    """Outcomes as they come; with one worker in this process, else see run_local."""
    if n_workers > 1 and len(units) > 1:
        yield from run_local(units, work, n_workers)
    else:
        yield from (attempt(work, unit) for unit in units)


def run_local(units: Sequence[Path], work: Work, n_workers: int) -> Generator[Outcome, None, None]:
    """Outcomes as they come, from ``n_workers`` new processes; ``work`` must be picklable.

    A unit whose process dies is tried once more by a new one. When the iterator ends, in whatever way, all processes
    have ended; if this process is killed, they end by themselves.
    """
    todo, tries = deque(units), Counter[Path]()
    workers = [_Worker(work) for _ in range(min(n_workers, len(units)))]
    try:
        for worker in workers:
            worker.give(todo)
        while busy := {worker.connection: worker for worker in workers if worker.unit is not None}:
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]  # wait returns what it was given
                outcome = worker.result()
                if outcome.failure is not None and not outcome.is_final and outcome.stop is None:
                    workers[workers.index(worker)] = worker = _Worker(work)
                    tries[outcome.unit] += 1
                    if tries[outcome.unit] < N_TRIES:
                        todo.appendleft(outcome.unit)
                        worker.give(todo)
                        continue
                worker.give(todo)
                yield outcome
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process that does units one after the other."""

    def __init__(self, work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.unit: Path | None = None
        self._process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        with _environment(ONE_THREAD):
            self._process.start()
        theirs.close()

    def give(self, todo: deque[Path]) -> None:
        """Hand over the next unit, if there is one."""
        self.unit = todo.popleft() if todo else None
        if self.unit is not None:
            with suppress(BrokenPipeError):  # it has died; result() reports it
                self.connection.send(self.unit)

    def result(self) -> Outcome:
        """The outcome of the current unit; a failure if the process has died."""
        assert self.unit is not None
        try:
            outcome: Outcome = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.end()
            return Outcome(self.unit, failure=f"its process {_how_it_ended(self._process.exitcode)}", is_final=False)
        return outcome

    def end(self) -> None:
        self._process.terminate()
        self._process.join(_PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.connection.close()


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        return f"was ended by {signal.Signals(-code).name}{hint}"
    return f"ended with exit code {code}"


def _serve(connection: Connection, work: Work) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent decides
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # so that temporary files are removed
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError):
        while True:
            connection.send(attempt(work, connection.recv()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for processes that start inside the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
