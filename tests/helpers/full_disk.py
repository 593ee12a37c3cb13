"""A simulated full disk, from a chosen write on or for a chosen name, for the whole process.

Python says of every file that is opened, folder that is made and name that is changed (sys.addaudithook): there the
limit is set. What is written to a file then fails for real, also from within FFmpeg: no file may grow (RLIMIT_FSIZE).
"""

from __future__ import annotations

import errno
import os
import resource
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from utils.files.atomic import PARTIAL

WRITING = os.O_WRONLY | os.O_RDWR


@dataclass
class Disk:
    """``has_names``: new names can be created, content cannot be written; else neither.
    done: the writes that have failed once, by what they are.

    A run in which no new write fails has found room for everything: ``failed`` is None then.
    """

    root: Path
    has_names: bool
    most_alike: int  # number of failing writes of one kind, in one folder
    done: set[tuple[str, int]] = field(default_factory=set)
    failed: str | None = None
    _seen: Counter[str] = field(default_factory=Counter)
    _opened: set[str] = field(default_factory=set)

    @contextmanager
    def filling_up(self) -> Iterator[None]:
        """The first write that has not failed before fails, and what follows it."""
        global _disk
        self.failed = None
        self._seen.clear()
        self._opened.clear()
        _disk = self
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            yield
        finally:
            _disk = None
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    def write(self, event: str, path: Path) -> None:
        """Called before every change on the disk; raises OSError where it fails at once."""
        is_here = path.is_relative_to(self.root)
        if not is_here or (event == "os.mkdir" and path.exists()) or (self.has_names and event != "open"):
            return
        kind = f"{event} {self._kind(path)}"
        is_known = str(path) in self._opened and event == "open" and not path.is_dir()
        self._seen[kind] += not is_known
        key = kind, self._seen[kind]
        if not (self.failed or is_known or key in self.done or self._seen[kind] > self.most_alike):
            self.done.add(key)
            self.failed = kind
            if self.has_names:
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            elif event == "os.rename":  # renaming back to an old name succeeds
                raise self._no_space(path)
        if self.failed and not self.has_names and event != "os.rename":
            raise self._no_space(path)
        self._opened.add(str(path))

    def _kind(self, path: Path) -> str:
        parts = [PARTIAL if part.startswith(PARTIAL) else part for part in path.relative_to(self.root).parts]
        if path.is_dir() or not path.suffix or not parts:
            return "/".join(parts)
        return "/".join([*parts[:-1], (f"{PARTIAL}*" if parts[-1] == PARTIAL else "") + path.suffix])

    def _no_space(self, path: Path) -> OSError:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


_disk: Disk | None = None


def _listen(event: str, arguments: tuple) -> None:
    if _disk is None or event not in ("open", "os.mkdir", "os.rename"):
        return
    path = arguments[1] if event == "os.rename" else arguments[0]
    if isinstance(path, str | bytes | os.PathLike) and (event != "open" or arguments[2] & WRITING):
        _disk.write(event, Path(os.fsdecode(path)))


sys.addaudithook(_listen)
