"""Windows of states that are encoded once per clip."""

from __future__ import annotations

import numpy as np
import torch

from utils.core.types import SAMPLES_PER_FEATURE
from utils.data import sound_states
from utils.data.sound_states import StateSource
from utils.media.windows import WINDOW_ROWS

N_STATES, WIDTH = 2, 3


def a_source(calls: list[int]) -> StateSource:
    """The states of row t are t + 1, or times 10 for the second."""

    def encode(wave: np.ndarray) -> torch.Tensor:
        calls.append(len(wave))
        rows = torch.arange(1, len(wave) // SAMPLES_PER_FEATURE + 1, dtype=torch.float32)
        return torch.stack((rows, 10 * rows), dim=1)[..., None].expand(-1, -1, WIDTH)

    return StateSource(encode, N_STATES, WIDTH)


def test_windows_are_those_of_inference():
    source = a_source([])
    audio = np.zeros(20 * SAMPLES_PER_FEATURE, np.int16)
    windows = source.windows("a", audio, np.array([0, 5, 30]))
    assert windows.shape == (3, WINDOW_ROWS * N_STATES, WIDTH)
    rows = windows[..., 0].reshape(3, WINDOW_ROWS, N_STATES)
    assert rows[0, :, 0].tolist() == [1, 1, 1, 1, 1, 2, 3, 4, 5, 6]
    assert rows[1, :, 0].tolist() == list(range(7, 17))
    assert (rows[..., 1] == 10 * rows[..., 0]).all()
    assert (rows[2, :, 0] == 20).all()  # after the end


def test_each_clip_is_encoded_once_while_there_is_room(monkeypatch):
    calls = []
    source, audio, frames = a_source(calls), np.zeros(20 * SAMPLES_PER_FEATURE, np.int16), np.array([1])
    for name in ("a", "b", "a", "b"):
        source.windows(name, audio, frames)
    assert len(calls) == 2
    monkeypatch.setattr(sound_states, "MOST_KEPT", 10)
    for name in ("c", "a"):
        source.windows(name, audio, frames)
    assert len(calls) == 4


def test_a_clip_without_sound_has_zeros():
    windows = a_source([]).windows("a", None, np.array([3, 4]))
    assert windows.shape == (2, WINDOW_ROWS * N_STATES, WIDTH) and not windows.any()
