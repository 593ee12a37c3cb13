"""One preprocessed training clip: face crops, depth images, landmarks and sound of DATA_DIR/<clip>/.

faces/%08d.jpg   depth/%08d.png   boxes.npy   landmarks.npy   valid.npy   audio.npy (absent for a silent clip)

The same files may be packed in shards (utils/data/shards.py); readers need not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from utils.core.errors import BadInput
from utils.core.types import N_LANDMARKS
from utils.data.shards import sharded_clips
from utils.data.splits import usable_frames
from utils.files.arrays import ArrayRows, StoredPath
from utils.files.image_files import read_gray, read_rgb
from utils.imaging.mouth_library import describe
from utils.results.store import depth_path, face_path
from utils.results.training_clip import CLIP_PATTERN, ClipArrays, clip_dirs

STORED_SIZE = 256  # pixels, side of the stored crops
_ADVICE = "run preprocess_dataset.py again for this clip"


class FrameSequence:
    """A clip's images or arrays by frame number; each is read once if ``in_memory``."""

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
    landmarks[i]: float32 [468, 2], pixels of the 256-px crop; valid: bool [N], false where no face was found or the
    sound has ended.
    sound: int16 [n] at 16 kHz from the time of frame 0, or None.
    Only ``valid`` is in memory; the rest is read on access.
    """

    name: str
    faces: FrameSequence
    depths: FrameSequence
    landmarks: FrameSequence
    valid: np.ndarray
    sound: ArrayRows | None

    def __len__(self) -> int:
        return len(self.valid)

    @cached_property
    def mouths(self) -> np.ndarray:
        """float32 [N, d], see describe; 0 for frames that are not valid."""
        faces = np.zeros((len(self), N_LANDMARKS, 2), np.float32)
        for index in np.flatnonzero(self.valid):
            faces[index] = self.landmarks[index] / STORED_SIZE
        return describe(faces)

    @property
    def audio(self) -> np.ndarray | None:
        """The whole sound, int16 [n], read at each access."""
        return None if self.sound is None else self.sound.all()


def open_clip(directory: StoredPath, in_memory: bool = False) -> Clip:
    """Open a clip's folder; raises BadInput if an array is missing or misshapen, or the first or last image absent."""
    arrays = ClipArrays(directory, _ADVICE)
    valid = arrays.valid()
    n_frames = len(valid)
    boxes, landmarks, sound = arrays.boxes(n_frames), arrays.landmarks(n_frames), arrays.sound_rows()
    usable = usable_frames(valid, None if sound is None else len(sound))
    for index in usable[[0, -1]] if len(usable) else ():
        for path in (face_path(directory, index), depth_path(directory, index)):
            if not path.is_file():
                raise BadInput("training clip incomplete", str(path), "an image", "nothing", _ADVICE)
    scales = (STORED_SIZE / np.maximum(boxes[:, 2:] - boxes[:, :2], 1)).astype(np.float32)
    return Clip(
        directory.name,
        faces=FrameSequence(lambda i: read_rgb(face_path(directory, i), _ADVICE), in_memory),
        depths=FrameSequence(lambda i: read_gray(depth_path(directory, i), _ADVICE), in_memory),
        landmarks=FrameSequence(lambda i: landmarks[i].astype(np.float32) * scales[i], in_memory),
        valid=np.isin(np.arange(n_frames), usable),
        sound=sound,
    )


def clip_folders(data_dir: Path) -> dict[str, StoredPath]:
    """Every preprocessed clip of a data folder by name, sorted, whether a folder or packed in a shard.

    Raises BadInput if a shard's index cannot be read. A clip that is both is read from its folder.
    """
    folders: dict[str, StoredPath] = {**sharded_clips(data_dir), **clip_dirs(data_dir)}
    return dict(sorted(folders.items()))


def clip_names(data_dir: Path) -> list[str]:
    """Names of all preprocessed clips of a data folder, sorted; raises BadInput if there are none."""
    return list(_some_clips(data_dir))


def open_clips(data_dir: Path, names: Sequence[str], in_memory: bool = False) -> list[Clip]:
    """Open the named clips in order; raises BadInput for an unknown name."""
    known = _some_clips(data_dir)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BadInput("clip missing", data_dir, ", ".join(list(known)[:5]) + " ...", unknown[0])
    return [open_clip(known[name], in_memory) for name in names]


def _some_clips(data_dir: Path) -> dict[str, StoredPath]:
    folders = clip_folders(data_dir)
    if not folders:
        expected, advice = f"{CLIP_PATTERN} or shard-*.json", "run preprocess_dataset.py first"
        raise BadInput("no training clips", data_dir, expected, "none", advice)
    return folders
