"""Segments of a clip's sound of the audio encoder's input length, and each frame's window in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.core.types import FEATURE_RATE, MOTION_FPS
from utils.media.windows import ROWS_BEFORE, WINDOW_ROWS, window_rows

MEL_PER_ROW = 2  # log-mel frames per row of encoder states
ROWS_PER_FRAME = FEATURE_RATE // MOTION_FPS
ROWS_AFTER = WINDOW_ROWS - ROWS_BEFORE
MIN_ROWS_HEARD = FEATURE_RATE  # a random segment holds at least a second of sound
INT16_SCALE = 32768.0
MOST_KEPT = 256 * 2**20  # bytes of log-mel cached per process: over two hours of sound

LogMel = Callable[[Float[np.ndarray, " n"]], Float[Tensor, "c t"]]


@dataclass(frozen=True)
class Segment:
    """log_mel: the encoder's number of frames, padded at the end. Rows count from ``start``."""

    log_mel: Float[Tensor, "c t"]
    start: int  # row of the clip that is the segment's row 0
    n_real_rows: int
    is_last: bool  # the clip's sound ends in this segment

    def covers(self, frames: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Whether a frame's centre lies in the segment; frames after the end of the sound use its last row."""
        centers = frames * ROWS_PER_FRAME - self.start
        return (centers >= 0) & ((centers < self.n_real_rows) | self.is_last)

    def rows(self, frames: Int[np.ndarray, " n"]) -> Int[Tensor, "n 10"]:
        """Rows of the segment's states in each frame's window, clamped to the real ones."""
        rows = torch.cat([window_rows(1, start=int(frame)) for frame in frames]) - self.start
        return rows.clamp(0, max(0, self.n_real_rows - 1))


class SegmentSource:
    """Segments of clips; caches log-mel (32 kB per second) up to MOST_KEPT bytes, the oldest are dropped."""

    def __init__(self, log_mel: LogMel, n_mels: int, n_rows: int, padding: float, random_offset: bool) -> None:
        """n_rows: rows of states per segment; padding: log-mel value after the end.

        random_offset: random starts, for an encoder in training; else multiples of n_rows, as at inference.
        """
        self._compute, self._n_mels, self._n_rows = log_mel, n_mels, n_rows
        self._padding, self._random_offset = padding, random_offset
        self._kept: dict[str, Tensor] = {}
        self._kept_bytes = 0

    def cut(self, name: str, audio: Int[np.ndarray, " n"] | None, frame: int, rng: np.random.Generator) -> Segment:
        """A segment that covers the frame; all zero for a clip without sound, for all of its frames."""
        n_mel_frames = MEL_PER_ROW * self._n_rows
        if audio is None:
            return Segment(torch.zeros(self._n_mels, n_mel_frames), start=0, n_real_rows=0, is_last=True)
        log_mel = self._log_mel(name, audio)
        n_total = log_mel.shape[1] // MEL_PER_ROW
        start = self._start(min(frame * ROWS_PER_FRAME, n_total - 1), n_total, rng)
        part = log_mel[:, MEL_PER_ROW * start : MEL_PER_ROW * start + n_mel_frames]
        padded = F.pad(part, (0, n_mel_frames - part.shape[1]), value=self._padding)
        n_real = min(self._n_rows, n_total - start)
        return Segment(padded, start, n_real, is_last=start + n_real >= n_total)

    def _log_mel(self, name: str, audio: Int[np.ndarray, " n"]) -> Float[Tensor, "c t"]:
        if name not in self._kept:
            self._kept[name] = self._compute(audio.astype(np.float32) / INT16_SCALE)
            self._kept_bytes += self._kept[name].nbytes
            while self._kept_bytes > MOST_KEPT and len(self._kept) > 1:
                self._kept_bytes -= self._kept.pop(next(iter(self._kept))).nbytes
        return self._kept[name]

    def _start(self, center: int, n_total: int, rng: np.random.Generator) -> int:
        if not self._random_offset:
            return center // self._n_rows * self._n_rows
        earliest = max(0, center + ROWS_AFTER - self._n_rows)
        latest = max(earliest, min(center - ROWS_BEFORE, n_total - MIN_ROWS_HEARD))
        return int(rng.integers(earliest, latest + 1))
