"""Windows of a frozen speech encoder's states, for training: each clip is encoded once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Float16, Int
from torch import Tensor

from utils.data.segments import INT16_SCALE, MOST_KEPT
from utils.media.windows import WINDOW_ROWS, window_rows

Encode = Callable[[Float[np.ndarray, " n"]], Float[Tensor, "t l d"]]


class StateSource:
    """Windows of clips; keeps states as float16 (77 kB per second) up to MOST_KEPT bytes, the oldest are dropped."""

    def __init__(self, encode: Encode, n_states: int, width: int) -> None:
        """n_states, width: of the encoder's rows, for clips without sound."""
        self._encode, self._n_states, self._width = encode, n_states, width
        self._kept: dict[str, Tensor] = {}

    def windows(
        self, name: str, audio: Int[np.ndarray, " n"] | None, frames: Int[np.ndarray, " b"]
    ) -> Float[Tensor, "b m d"]:
        """Each frame's window, flattened (time, then layer); rows beyond the sound repeat its ends. 0 without sound."""
        if audio is None:
            return torch.zeros(len(frames), WINDOW_ROWS * self._n_states, self._width)
        states = self._states(name, audio)
        rows = torch.cat([window_rows(1, start=int(frame)) for frame in frames]).clamp(0, len(states) - 1)
        return states[rows].float().flatten(1, 2)

    def _states(self, name: str, audio: Int[np.ndarray, " n"]) -> Float16[Tensor, "t l d"]:
        if name not in self._kept:
            self._kept[name] = self._encode(audio.astype(np.float32) / INT16_SCALE).half().cpu()
            while sum(states.nbytes for states in self._kept.values()) > MOST_KEPT and len(self._kept) > 1:
                del self._kept[next(iter(self._kept))]
        return self._kept[name]
