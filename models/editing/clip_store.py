"""Stage 2 in parts: the followed and reconstructed face first, then the drawings of some hundred frames at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.editing.clip_analysis import FaceAnalyser, FittedClip
from models.face3d.face_model import EXPRESSION
from utils.core.monitor import Monitor
from utils.core.streaming import map_ahead, shared_threads
from utils.core.types import N_EXP, N_LANDMARKS
from utils.files.arrays import ArrayRows, load_array, save_array
from utils.files.image_files import write_gray
from utils.imaging.geometry import Alignment
from utils.results import store
from utils.results.unfinished import ADVICE, load_tracked_clip, part_landmarks_path, save_tracked_clip

PART_FRAMES = 250
CLIP_FOLDER, RESULT_FOLDER = "clip", "new"


@dataclass(frozen=True)
class FoundClip:
    """A followed and reconstructed face. strength float32 [N]: how much of a new mouth each frame shows.

    summary: what the user should know of it, line by line.
    """

    clip: FittedClip
    strength: np.ndarray
    summary: list[str]


@dataclass(frozen=True)
class StoredClip:
    """A FoundClip on the disk; only what is small is held. The names are those of FaceTrack, FittedClip, FoundClip."""

    landmarks: ArrayRows
    coeffs: ArrayRows
    boxes: np.ndarray
    valid: np.ndarray
    strength: np.ndarray
    alignments: list[Alignment]
    summary: list[str]

    def __len__(self) -> int:
        return len(self.valid)

    def with_expression(self, frame_index: np.ndarray, motion: np.ndarray) -> np.ndarray:
        """See FittedClip."""
        coeffs = self.coeffs[frame_index]
        coeffs[:, EXPRESSION] = motion[:, :N_EXP]
        return coeffs

    def source_landmarks(self, frame_index: np.ndarray) -> np.ndarray:
        """As they are in the source, relative to the boxes: float32 [n, 468, 2]."""
        landmarks = np.stack([self.landmarks[int(index)][:, :2] for index in frame_index])
        return landmarks - self.boxes[frame_index, None, :2].astype(np.float32)


def stored_clip(
    folder: Path, analyser: FaceAnalyser, size: tuple[int, int], find: Callable[[], FoundClip]
) -> StoredClip:
    """What a run before this one has left in ``folder``, else what ``find`` finds, which is put there.

    ``size``: width and height of the frames.
    """
    directory = folder / CLIP_FOLDER
    if not directory.is_dir():
        found = find()
        save_tracked_clip(directory, found.clip.track, found.clip.coeffs, found.strength, found.summary)
    stored = load_tracked_clip(directory)
    return StoredClip(
        stored.landmarks,
        stored.coeffs,
        stored.track.boxes,
        stored.track.valid,
        stored.strength,
        analyser.align(stored.track, size)[0],
        stored.summary,
    )


def draw_parts(
    folder: Path,
    clip: StoredClip,
    frame_index: np.ndarray,
    motion: np.ndarray,
    analyser: FaceAnalyser,
    monitor: Monitor,
) -> Path:
    """Draw the depth of every output frame and write the arrays; returns the folder that becomes the result."""
    result = folder / RESULT_FOLDER
    valid = clip.valid[frame_index]
    parts = [range(start, min(start + PART_FRAMES, len(valid))) for start in range(0, len(valid), PART_FRAMES)]
    left = [part for part in parts if not part_landmarks_path(folder, part).is_file()]
    drawn = monitor.track(
        _drawings(result, left, clip, frame_index, motion, analyser), sum(map(len, left)), "rendering depth"
    )
    for part in left:
        landmarks = np.stack([next(drawn) for _ in part])
        save_array(part_landmarks_path(folder, part), landmarks)
    blocks = [frame_index[part.start : part.stop] for part in parts]
    store.save_edit_arrays(
        result,
        clip.boxes[frame_index],
        (load_array(part_landmarks_path(folder, part), (len(part), N_LANDMARKS, 2), "f", ADVICE) for part in parts),
        (
            clip.with_expression(block, motion[part.start : part.stop])
            for block, part in zip(blocks, parts, strict=True)
        ),
        frame_index,
        valid,
        (clip.source_landmarks(block) for block in blocks),
        clip.strength[frame_index],
    )
    return result


def _drawings(
    result: Path,
    parts: list[range],
    clip: StoredClip,
    frame_index: np.ndarray,
    motion: np.ndarray,
    analyser: FaceAnalyser,
) -> Iterator[np.ndarray]:
    """Write each frame's depth image and yield its landmarks float32 [468, 2]; 0 without a face."""

    def draw(item: tuple[int, int, np.ndarray]) -> np.ndarray:
        index, source, values = item
        if not clip.valid[source]:
            return np.zeros((N_LANDMARKS, 2), np.float32)
        face = analyser.draw(values, clip.alignments[source], clip.boxes[source])
        write_gray(store.depth_path(result, index), face.depth)
        return face.landmarks

    def items() -> Iterator[tuple[int, int, np.ndarray]]:
        for part in parts:
            sources = frame_index[part.start : part.stop]
            coeffs = clip.with_expression(sources, motion[part.start : part.stop])
            yield from zip(part, sources, coeffs, strict=True)

    with shared_threads() as n_workers:
        yield from map_ahead(draw, items(), n_workers)
