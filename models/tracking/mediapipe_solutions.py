"""MediaPipe's solutions, each loaded by itself.

The package's top level pulls in tasks that need more libraries, and every solution drawing tools that load matplotlib,
half a second for pictures that nothing here draws.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from utils.core.module_stand_ins import in_place_of

SOLUTIONS = ("face_mesh", "face_detection")  # all that are used here


def mediapipe_solution(name: str) -> Any:
    """One of SOLUTIONS. Where another thread is loading it, this waits."""
    module = f"mediapipe.python.solutions.{name}"
    if module in sys.modules:
        return importlib.import_module(module)
    with in_place_of({plots: ModuleType(plots) for plots in ("matplotlib", "matplotlib.pyplot")}):
        return importlib.import_module(module)
