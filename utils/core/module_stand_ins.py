"""Stand-ins for slow modules that a library imports and this project does not need."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from types import ModuleType

_replacing = RLock()


@contextmanager
def in_place_of(modules: dict[str, ModuleType | None]) -> Iterator[None]:
    """Inside the block, imports of modules that are not loaded yet find these instead; None: no such module.

    Modules that are loaded already stay; afterwards all can be loaded as usual. One thread at a time: none may find
    another's stand-ins.
    """
    with _replacing:
        missing = {name: module for name, module in modules.items() if name not in sys.modules}
        sys.modules.update(missing)  # type: ignore[arg-type]  # None is what Python's import statement understands
        try:
            yield
        finally:
            for name in missing:
                del sys.modules[name]
