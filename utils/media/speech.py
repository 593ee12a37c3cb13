"""A speech file of any length, decoded block by block as often as needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.core.errors import BadInput
from utils.core.types import SAMPLES_PER_FEATURE
from utils.files.digests import file_digest
from utils.media.audio import waveform_blocks


@dataclass(frozen=True)
class Speech:
    """A sound file of ``n_samples`` at 16 kHz, mono (see audio.load_waveform), and ``n_silent`` more after it.

    digest: the file's SHA-256.
    """

    path: Path
    n_samples: int
    digest: str
    n_silent: int = 0

    @classmethod
    def open(cls, path: Path) -> Speech:
        """Decode the file once to count its samples. Raises BadInput as load_waveform does."""
        digest = (
            file_digest(path) if path.is_file() else ""
        )  # waveform_blocks raises the clearer error for a missing file
        n_samples = sum(len(block) for block in waveform_blocks(path))
        if n_samples == 0:
            advice = "give a file with a sound track (wav, mp3, m4a, mp4 ...)"
            raise BadInput("no sound could be decoded", path, "at least one sample", "none", advice)
        return cls(path, n_samples, digest)

    @property
    def n_rows(self) -> int:
        """Number of audio states, at 50 Hz."""
        return (self.n_samples + self.n_silent) // SAMPLES_PER_FEATURE

    def blocks(self) -> Iterator[np.ndarray]:
        """The samples, float32 [n] in [-1, 1), in blocks."""
        yield from waveform_blocks(self.path)
        yield np.zeros(self.n_silent, np.float32)
