"""Networks built from a config.json of diffusers or transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from utils.core.errors import BadInput
from utils.weights.official_files import fetch_advice


def build_described(build: Callable[[dict[str, Any]], nn.Module], path: Path) -> nn.Module:
    """Build a network from a config.json; raises BadInput if the file or its values are unusable."""
    config = read_model_config(path)
    try:
        return build(config)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ZeroDivisionError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        expected = "the values it was saved with"
        raise BadInput("model config describes no network", path, expected, reason, fetch_advice(path)) from error


def read_model_config(path: Path) -> dict[str, Any]:
    """A diffusers config.json; raises BadInput if it is missing or not a JSON object."""
    if not path.is_file():
        raise BadInput("model config missing", path, f"{path.name} beside the weights", "nothing", fetch_advice(path))
    try:
        config = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:  # also bytes that are no text, and lists in lists in lists
        raise BadInput("unreadable model config", path, "JSON", str(error), fetch_advice(path)) from error
    if not isinstance(config, dict):
        raise BadInput("unreadable model config", path, "a JSON object", type(config).__name__, fetch_advice(path))
    return config
