"""Libraries ask for more than they use here; what takes long to load and is not needed stays away."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from types import ModuleType

_replacing = RLock()


@contextmanager
def in_place_of(modules: dict[str, ModuleType | None]) -> Iterator[None]:
    """Within it, imports of modules that are not loaded yet find these instead; None: no such module.

    Afterwards they can be loaded as usual. One that is loaded already stays. Threads take their turns, so that none
    finds what another has put there.
    """
    with _replacing:
        missing = {name: module for name, module in modules.items() if name not in sys.modules}
        sys.modules.update(missing)  # type: ignore[arg-type]  # None is what Python's import statement understands
        try:
            yield
        finally:
            for name in missing:
                del sys.modules[name]
