"""MediaPipe's solutions, each loaded by itself.

The package's top level pulls in tasks that need more libraries, and every solution drawing tools that load matplotlib,
half a second for pictures that nothing here draws.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from utils.module_stand_ins import in_place_of


def mediapipe_solution(name: str) -> Any:
    """Such as "face_mesh"."""
    plots = ("matplotlib", "matplotlib.pyplot")
    with in_place_of({module: ModuleType(module) for module in plots}):
        return importlib.import_module(f"mediapipe.python.solutions.{name}")
