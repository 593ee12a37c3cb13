"""Files of unfinished results, which a resumed run reads: stage 2's tracked clip and landmarks, stage 3's tiles."""

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
_SUMMARY = "summary.txt"
_SMALL = [field.name for field in fields(FaceTrack) if field.name != "landmarks"]


@dataclass(frozen=True)
class TrackedClip:
    """A tracked and reconstructed clip of N frames on the disk; only what is small is held.

    track: without its landmarks. landmarks: rows float32 [468, 3]. coeffs: rows float32 [257]. strength float32 [N].
    """

    track: FaceTrack
    landmarks: ArrayRows
    coeffs: ArrayRows
    strength: np.ndarray
    summary: list[str]


def save_tracked_clip(
    directory: Path, track: FaceTrack, coeffs: np.ndarray, strength: np.ndarray, summary: Sequence[str]
) -> None:
    """Write the folder, whole or not at all."""
    with atomic_dir(directory) as new:
        for field in fields(track):
            array = getattr(track, field.name)
            save_rows(new / f"{field.name}.npy", blocks_of(array), len(array), array.dtype)
        save_array(new / COEFFS_NAME, coeffs)
        save_array(new / STRENGTH_NAME, strength)
        (new / _SUMMARY).write_text("\n".join(summary), encoding="utf-8")


def load_tracked_clip(directory: Path) -> TrackedClip:
    small = {name: read_npy(directory / f"{name}.npy", (None,), ADVICE) for name in _SMALL}
    track = FaceTrack(landmarks=np.zeros((0, N_LANDMARKS, 3), np.float32), **small)
    return TrackedClip(
        track,
        ArrayRows(directory / LANDMARKS_NAME, (len(track), N_LANDMARKS, 3), "f", ADVICE),
        ArrayRows(directory / COEFFS_NAME, (len(track), N_COEFFS), "f", ADVICE),
        read_npy(directory / STRENGTH_NAME, (None,), ADVICE),
        (directory / _SUMMARY).read_text(encoding="utf-8").splitlines(),
    )


def part_landmarks_path(folder: Path, part: range) -> Path:
    """Landmarks with the new expression of some frames of stage 2, float32 [n, 468, 2]."""
    return folder / f"landmarks-{part.start:08d}.npy"


def sheet_column_path(folder: Path, index: int) -> Path:
    """Tiles of one frame in stage 3's contact sheet, uint8 [4, h, w, 3]."""
    return folder / f"column-{index:08d}.npy"
