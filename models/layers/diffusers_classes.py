"""Classes of diffusers, imported in a quarter of the time.

While diffusers is imported, three of its imports that this project does not need are replaced by stand-ins:
transformers (text encoders), PyTorch's compiler (decorators without effect unless a network is compiled) and SciPy's
statistics (one noise schedule).
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
    """A class by name; thread-safe, so that no other thread sees the stand-ins."""
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
    """A compiler decorator, with or without settings, that returns the function or class unchanged."""
    return _unmarked if function is None else function
