"""Files of unfinished results, for resumed runs: stage 2's reconstructed track and landmarks, stage 3's tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from utils.core.types import N_COEFFS, N_LANDMARKS, FaceTrack
from utils.files.arrays import ArrayRows, read_npy, save_array, save_rows
from utils.files.atomic import atomic_dir
from utils.files.disk_arrays import blocks_of
from utils.results.store import COEFFS_NAME, LANDMARKS_NAME, STRENGTH_NAME

ADVICE = "give --force"
_TRACK_FOLDER, _SUMMARY = "clip", "summary.txt"
_SMALL = [field.name for field in fields(FaceTrack) if field.name != "landmarks"]


@dataclass(frozen=True)
class ReconstructedTrack:
    """The speaker's track and its 3D reconstruction in a clip of N frames; large arrays are read row by row.

    track: without landmarks. landmarks: rows float32 [468, 3], source-frame pixels. coeffs: rows float32 [257].
    strength: float32 [N], opacity of the new mouth. summary: lines for the user.
    """

    track: FaceTrack
    landmarks: ArrayRows
    coeffs: ArrayRows
    strength: np.ndarray
    summary: list[str]

    def __len__(self) -> int:
        return len(self.track)

    @property
    def valid(self) -> np.ndarray:
        return self.track.valid

    def source_landmarks(self, frame_index: np.ndarray) -> np.ndarray:
        """Tracked landmarks relative to the boxes, float32 [n, 468, 2]."""
        landmarks = np.stack([self.landmarks[int(index)][:, :2] for index in frame_index])
        return landmarks - self.track.boxes[frame_index, None, :2].astype(np.float32)


def has_track(folder: Path) -> bool:
    return (folder / _TRACK_FOLDER).is_dir()


def save_track(
    folder: Path, track: FaceTrack, coeffs: np.ndarray, strength: np.ndarray, summary: Sequence[str]
) -> None:
    """Write the reconstructed track to ``folder``, whole or not at all."""
    with atomic_dir(folder / _TRACK_FOLDER) as new:
        for field in fields(track):
            array = getattr(track, field.name)
            save_rows(new / f"{field.name}.npy", blocks_of(array), len(array), array.dtype)
        save_array(new / COEFFS_NAME, coeffs)
        save_array(new / STRENGTH_NAME, strength)
        (new / _SUMMARY).write_text("\n".join(summary), encoding="utf-8")


def load_track(folder: Path) -> ReconstructedTrack:
    directory = folder / _TRACK_FOLDER
    small = {name: read_npy(directory / f"{name}.npy", (None,), ADVICE) for name in _SMALL}
    track = FaceTrack(landmarks=np.zeros((0, N_LANDMARKS, 3), np.float32), **small)
    return ReconstructedTrack(
        track,
        ArrayRows(directory / LANDMARKS_NAME, (len(track), N_LANDMARKS, 3), "f", ADVICE),
        ArrayRows(directory / COEFFS_NAME, (len(track), N_COEFFS), "f", ADVICE),
        read_npy(directory / STRENGTH_NAME, (None,), ADVICE),
        (directory / _SUMMARY).read_text(encoding="utf-8").splitlines(),
    )


def part_landmarks_path(folder: Path, part: range) -> Path:
    """Landmarks with the new expression in a part of stage 2's result, float32 [n, 468, 2]."""
    return folder / f"landmarks-{part.start:08d}.npy"


def sheet_column_path(folder: Path, index: int) -> Path:
    """Tiles of one frame in stage 3's contact sheet, uint8 [4, h, w, 3]."""
    return folder / f"column-{index:08d}.npy"
