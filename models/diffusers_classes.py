"""Classes of diffusers, loaded in half the time.

Diffusers loads all of transformers where it finds it, for text encoders that nothing here has. It looks once, when it
is loaded itself.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def diffusers_class(name: str) -> Any:
    if "diffusers" in sys.modules:
        return getattr(sys.modules["diffusers"], name)
    with hidden("transformers"):
        return getattr(importlib.import_module("diffusers"), name)


@contextmanager
def hidden(package: str) -> Iterator[None]:
    """Within it the package cannot be loaded, as if it were not installed; one that is loaded already stays."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # what Python's import statement understands
    try:
        yield
    finally:
        del sys.modules[package]
