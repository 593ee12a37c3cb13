"""Reproducible random weights, by the rule and the key lists of the parity tests."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.core import cli
from utils.files.atomic import atomic_path

PARITY_DIR = Path(__file__).resolve().parents[2] / "tests" / "parity"
FIXTURES_DIR = PARITY_DIR / "fixtures"
_ITEM_BYTES = {"float32": 4, "float16": 2, "int64": 8}

Shapes = Mapping[str, Mapping[str, Any]]  # a manifest's "keys": {name: {"shape": [...], "dtype": "float32"}}


@dataclass(frozen=True)
class TreeFile:
    """One file of the tree: its path, approximate size in bytes, and a function that writes it to a given path."""

    path: PurePosixPath
    n_bytes: int
    write: Callable[[Path], None]


@cache
def fill_module() -> ModuleType:
    """The module tests/parity/fill.py."""
    spec = importlib.util.spec_from_file_location("parity_fill", PARITY_DIR / "fill.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def manifest(name: str) -> dict[str, Any]:
    """Recorded key list of a checkpoint: "keys" with shapes and types, and its "config" or "dims"."""
    return json.loads((FIXTURES_DIR / f"{name}.manifest.json").read_text())


def n_bytes(shapes: Shapes) -> int:
    return sum(int(np.prod(entry["shape"], dtype=np.int64)) * _ITEM_BYTES[entry["dtype"]] for entry in shapes.values())


def filled(shapes: Shapes, seed: int, label: str) -> dict[str, Tensor]:
    """A state dict by the rule, tensor by tensor, with a progress bar called ``label``."""
    fill = fill_module().fill_tensor
    entries = cli.progress(shapes.items(), len(shapes), label)
    return {
        name: torch.from_numpy(np.array(fill(name, entry["shape"], seed, _numpy_type(entry))))
        for name, entry in entries
    }


def _numpy_type(entry: Mapping[str, Any]) -> str:
    return "int64" if entry["dtype"].startswith("int") else "float32"


def noise(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The rule's random numbers, float64: mean 0, standard deviation 1, between -3 and 3."""
    return fill_module().noise(seed, name, shape)


def text_file(path: PurePosixPath, text: str) -> TreeFile:
    def write(target: Path) -> None:
        with atomic_path(target) as temporary:
            temporary.write_text(text, encoding="utf-8")

    return TreeFile(path, len(text), write)


def json_file(path: PurePosixPath, content: Mapping[str, Any]) -> TreeFile:
    return text_file(path, json.dumps(content, indent=2) + "\n")
