"""Seconds and peak memory of processes, and seconds of named parts of one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from utils.core.errors import StageFailure

ROOT = Path(__file__).resolve().parents[1]
KILOBYTE = 1 if sys.platform == "darwin" else 1024  # unit of ru_maxrss in bytes
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Finished:
    """A process: standard output, seconds, and peak memory in MiB."""

    output: str
    seconds: float
    mebibytes: float


def run_python(words: Sequence[object]) -> Finished:
    """Run a script or module (-m) of this project. Raises StageFailure with the end of its errors if it fails."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen([sys.executable, *map(str, words)], cwd=ROOT, stdout=output, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise StageFailure(f"{words[0]} {words[1]} failed: {log.read().strip()[-400:]}")
        output.seek(0)
        return Finished(output.read(), seconds, usage.ru_maxrss * KILOBYTE / MEBIBYTE)


@dataclass
class Stopwatch:
    """Sums the seconds of named parts."""

    now: Callable[[], float]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def running(self, part: str) -> Iterator[None]:
        started = self.now()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + self.now() - started
