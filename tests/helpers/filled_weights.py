"""Weights files of the public evaluation networks, filled by rule instead of trained."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import nn

FILL_SEED = 7
_spec = importlib.util.spec_from_file_location(
    "filled_by_rule", Path(__file__).resolve().parents[1] / "parity" / "fill.py"
)
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)


def save_filled(path: Path, network: nn.Module, drop: str | None = None) -> Path:
    """Write the network's state dict as torch.save does it, without the keys that end in ``drop``."""
    state = fill.fill_module(network, FILL_SEED).state_dict()
    torch.save({key: value for key, value in state.items() if drop is None or not key.endswith(drop)}, path)
    return path
