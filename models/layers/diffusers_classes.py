"""Classes of diffusers, loaded in a quarter of the time.

While diffusers is loaded, three libraries that it asks for and that nothing here needs of it stay away: transformers,
for text encoders; PyTorch's compiler, for marks on blocks that count only where a network is compiled; SciPy's
statistics, for one schedule of noise.
"""

from __future__ import annotations

import importlib
import sys
from threading import Lock
from types import ModuleType
from typing import Any

from utils.core.module_stand_ins import in_place_of

_loading = Lock()


def diffusers_class(name: str) -> Any:
    """Threads may ask for classes at once; while the first of them is loaded, none should load what stays away."""
    with _loading:
        return _load(name)


def _load(name: str) -> Any:
    if "diffusers" in sys.modules:
        return getattr(sys.modules["diffusers"], name)
    compiler = ModuleType("torch._dynamo")
    compiler.__dict__.update(allow_in_graph=_unmarked, disable=_unmarked)
    with in_place_of({"transformers": None, compiler.__name__: compiler, "scipy.stats": ModuleType("scipy.stats")}):
        return getattr(importlib.import_module("diffusers"), name)


def _unmarked(function: Any = None, *_args: Any, **_settings: Any) -> Any:
    """A mark for the compiler, with or without settings, that leaves the function or class as it is."""
    return _unmarked if function is None else function
