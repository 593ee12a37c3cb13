"""Arrays of one preprocessed training clip. Its images: store.face_path and store.depth_path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.core.types import N_COEFFS, N_LANDMARKS
from utils.files.arrays import ArrayRows, StoredPath, load_array
from utils.results.store import BOXES_NAME, COEFFS_NAME, LANDMARKS_NAME, SOUND_NAME, TRACK_NAME, VALID_NAME

CLIP_PATTERN = f"<clip>/{VALID_NAME}"  # least content of a clip's folder, for messages
MOTION_CLIP_PATTERN = f"<clip>/{SOUND_NAME}, {COEFFS_NAME} and {VALID_NAME}"


@dataclass(frozen=True)
class ClipArrays:
    """The arrays of a clip of N frames, each read by its method; BadInput with ``advice`` if it does not fit."""

    folder: StoredPath
    advice: str

    @property
    def has_sound(self) -> bool:
        return (self.folder / SOUND_NAME).is_file()

    @property
    def coeffs_path(self) -> StoredPath:
        return self.folder / COEFFS_NAME

    def valid(self, n_frames: int | None = None) -> np.ndarray:
        """bool [N]"""
        return load_array(self.folder / VALID_NAME, (n_frames,), "b", self.advice)

    def boxes(self, n_frames: int) -> np.ndarray:
        """int32 [N, 4]"""
        return load_array(self.folder / BOXES_NAME, (n_frames, 4), "i", self.advice)

    def landmarks(self, n_frames: int) -> ArrayRows:
        """float32 [N, 468, 2], pixels relative to the box"""
        return ArrayRows(self.folder / LANDMARKS_NAME, (n_frames, N_LANDMARKS, 2), "f", self.advice)

    def coeffs(self) -> np.ndarray:
        """float32 [N, 257]"""
        return load_array(self.coeffs_path, (None, N_COEFFS), "f", self.advice)

    def sound_rows(self) -> ArrayRows | None:
        """int16 [n] at 16 kHz; None for a silent clip."""
        return ArrayRows(self.folder / SOUND_NAME, (None,), "i", self.advice) if self.has_sound else None

    def sound(self) -> np.ndarray:
        """int16 [n] at 16 kHz, as a whole."""
        return load_array(self.folder / SOUND_NAME, (None,), "i", self.advice)


def record_path(folder: Path) -> Path:
    """The clip's record, the last file that is written."""
    return folder / TRACK_NAME


def is_finished(folder: Path) -> bool:
    return record_path(folder).is_file()


def finished_clips(data_dir: Path) -> set[str]:
    return {path.parent.name for path in data_dir.glob(f"*/{TRACK_NAME}")}


def clip_dirs(data_dir: Path) -> dict[str, Path]:
    """The clips of a data folder that are not packed into shards, by name."""
    return {path.parent.name: path.parent for path in data_dir.glob(f"*/{VALID_NAME}")}


def hubert_path(folder: Path, weights_digest: str) -> Path:
    """HuBERT's states of a clip's sound, float16 [T, D]; computed once for each network."""
    return folder / f"hubert-{weights_digest}.npy"


def whisper_path(folder: Path, sound_digest: str) -> Path:
    """Whisper states of a sound, float16 [T, 768], in a training's folder: its copies of clips exist nowhere else."""
    return folder / f"whisper-{sound_digest}.npy"
