"""One preprocessed training clip: face crops, depth images, landmarks and sound of DATA_DIR/<clip>/.

faces/%08d.jpg   depth/%08d.png   boxes.npy   landmarks.npy   valid.npy   audio.npy (absent for a silent clip)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.errors import BadInput
from utils.splits import usable_frames
from utils.store import SOUND_NAME, depth_path, face_path, load_array, read_gray, read_rgb
from utils.types import N_LANDMARKS

STORED_SIZE = 256  # pixels, side of the stored crops
_ADVICE = "run preprocess_dataset.py again for this clip"


class ImageSequence:
    """Images of one folder by frame number; each file is decoded once if ``in_memory``."""

    def __init__(self, read: Callable[[int], np.ndarray], in_memory: bool) -> None:
        self._read = read
        self._kept: dict[int, np.ndarray] | None = {} if in_memory else None

    def __getitem__(self, index: int) -> np.ndarray:
        if self._kept is None:
            return self._read(index)
        if index not in self._kept:
            self._kept[index] = self._read(index)
        return self._kept[index]


@dataclass(frozen=True)
class Clip:
    """A clip of N frames at 25 Hz.

    faces[i]: uint8 RGB [256, 256, 3]; depths[i]: uint8 [256, 256], near is bright, background 0.
    landmarks: float32 [N, 468, 2], pixels of the 256-px crop; valid: bool [N], false where no face was found or the
    sound has ended.
    audio: int16 [n] at 16 kHz from the time of frame 0, or None.
    """

    name: str
    faces: ImageSequence
    depths: ImageSequence
    landmarks: np.ndarray
    valid: np.ndarray
    audio: np.ndarray | None

    def __len__(self) -> int:
        return len(self.valid)


def open_clip(directory: Path, in_memory: bool = False) -> Clip:
    """Open a clip's folder; raises BadInput if an array is missing or misshapen, or the first or last image absent."""
    valid = load_array(directory / "valid.npy", (None,), "b", _ADVICE)
    n_frames = len(valid)
    boxes = load_array(directory / "boxes.npy", (n_frames, 4), "i", _ADVICE)
    landmarks = load_array(directory / "landmarks.npy", (n_frames, N_LANDMARKS, 2), "f", _ADVICE)
    audio_path = directory / SOUND_NAME
    audio = load_array(audio_path, (None,), "i", _ADVICE) if audio_path.is_file() else None
    usable = usable_frames(valid, None if audio is None else len(audio))
    for index in usable[[0, -1]] if len(usable) else ():
        for path in (face_path(directory, index), depth_path(directory, index)):
            if not path.is_file():
                raise BadInput("training clip incomplete", path, "an image", "nothing", _ADVICE)
    box_sizes = np.maximum(boxes[:, 2:] - boxes[:, :2], 1).astype(np.float32)
    return Clip(
        directory.name,
        faces=ImageSequence(lambda i: read_rgb(face_path(directory, i)), in_memory),
        depths=ImageSequence(lambda i: read_gray(depth_path(directory, i)), in_memory),
        landmarks=landmarks.astype(np.float32) * (STORED_SIZE / box_sizes)[:, None],
        valid=np.isin(np.arange(n_frames), usable),
        audio=audio,
    )


def clip_names(data_dir: Path) -> list[str]:
    """Names of all preprocessed clips of a data folder, sorted; raises BadInput if there are none."""
    names = sorted(path.parent.name for path in data_dir.glob("*/valid.npy"))
    if not names:
        raise BadInput("no training clips", data_dir, "<clip>/valid.npy", "none", "run preprocess_dataset.py first")
    return names


def open_clips(data_dir: Path, names: Sequence[str], in_memory: bool = False) -> list[Clip]:
    """Open the named clips in order; raises BadInput for a name that is not there."""
    known = set(clip_names(data_dir))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BadInput("clip missing", data_dir, ", ".join(sorted(known)[:5]) + " ...", unknown[0])
    return [open_clip(data_dir / name, in_memory) for name in names]
