"""Log of a training: a file of JSON lines and, if it is installed, TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from utils.core.errors import BadInput
from utils.files.atomic import atomic_path

LOG_NAME = "log.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
TENSORBOARD_PIN = "tensorboard==2.20.0"  # the newest that works with MediaPipe's protobuf 4


class TrainingLog:
    """Appends one JSON object per report; every figure is also a TensorBoard scalar ``<kind>/<name>``."""

    def __init__(self, directory: Path, after_step: int = 0, tensorboard: bool | None = None) -> None:
        """after_step: step that a resumed training starts from; reports of later steps are removed.

        tensorboard: write its files, None: if it is installed. Raises BadInput for True if it is not.
        """
        if tensorboard and find_spec("tensorboard") is None:
            raise BadInput("TensorBoard is not installed", advice=f"pip install {TENSORBOARD_PIN}, or tensorboard=null")
        self._path = directory / LOG_NAME
        self._keep_until(after_step)
        self._writer: Any = None
        if tensorboard or (tensorboard is None and find_spec("tensorboard") is not None):
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(directory / TENSORBOARD_FOLDER, purge_step=after_step + 1)

    def report(self, kind: str, step: int, figures: Mapping[str, float]) -> None:
        record = {"kind": kind, "step": step, **figures}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        for name, value in figures.items():
            if self._writer is not None and math.isfinite(value):
                self._writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _keep_until(self, step: int) -> None:
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.is_file() else []
        kept = [line for line in lines if (found := _step_of(line)) is not None and found <= step]
        with atomic_path(self._path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> int | None:
    """None for a line that a killed process left incomplete."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None
