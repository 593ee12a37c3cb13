"""Clips packed into tar shards (the WebDataset layout), read in place without unpacking.

    DATA_DIR/shard-000000.tar    <clip>/clip.valid.npy  <clip>/clip.landmarks.npy ...  <clip>/clip.track.json
                                 <clip>/00000000.depth.png  <clip>/00000000.face.jpg  <clip>/00000001.depth.png ...
    DATA_DIR/shard-000000.npy    int64 [frames of all its clips, 4]: offset and size of the face, then of the depth
    DATA_DIR/shard-000000.json   its clips: their rows in the .npy, offset and size of their arrays

A WebDataset reader sees one sample per clip (key <clip>/clip) and one per frame (key <clip>/<frame>). A shard is
complete once its .json exists, which is written last. Offsets are bytes from the start of the tar.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np

from utils.core.errors import BadInput

SHARD_PATTERN = "shard-*.json"
INDEX_SCHEMA = 1
RECORD = "clip"  # name of the record that holds a clip's arrays
FACE, DEPTH = "face.jpg", "depth.png"  # endings of a frame's record
_FOLDERS = {
    "faces": (0, ".jpg"),
    "depth": (1, ".png"),
}  # of utils.results.store, with their column in the table of frames
_ADVICE = "copy the shard and its .npy and .json again, or run preprocess_dataset.py again"
_N_OPEN = 64  # shards that a process keeps open


@dataclass(frozen=True)
class ShardedClip:
    """Positions of a clip's files in a shard. arrays: file name → offset, size; rows: its part of the frame table."""

    shard: Path
    name: str
    arrays: dict[str, tuple[int, int]]
    first_row: int
    n_frames: int

    @cached_property
    def frames(self) -> np.ndarray:
        """int64 [N, 2, 2]: offset and size of each frame's face and depth; size 0 where it has none."""
        table_path = self.shard.with_suffix(".npy")
        try:
            table = np.load(table_path, mmap_mode="r", allow_pickle=False)
            rows = np.array(table[self.first_row : self.first_row + self.n_frames])
        except (OSError, ValueError, EOFError) as error:
            raise BadInput("unreadable shard index", table_path, "a .npy file", str(error)[:80], _ADVICE) from error
        if rows.shape != (self.n_frames, 4) or rows.dtype != np.int64:
            raise BadInput("shard index does not fit", table_path, f"{self.n_frames} rows", str(rows.shape), _ADVICE)
        return rows.reshape(-1, 2, 2)

    def find(self, inside: str) -> tuple[int, int] | None:
        """Offset and size of a file by its name in a clip's folder; None if the clip has no such file."""
        folder, _, name = inside.rpartition("/")
        if folder not in _FOLDERS:
            return self.arrays.get(inside)
        column, suffix = _FOLDERS[folder]
        number = name.removesuffix(suffix)
        if not (name.endswith(suffix) and number.isdecimal() and int(number) < self.n_frames):
            return None
        offset, size = self.frames[int(number), column].tolist()
        return (offset, size) if size else None


@dataclass(frozen=True)
class ShardPath:
    """A packed clip's folder, or a file in it, used like a Path: ``folder / "faces" / "00000003.jpg"``."""

    clip: ShardedClip
    inside: str = ""

    @property
    def name(self) -> str:
        return self.inside.rpartition("/")[2] or self.clip.name

    def __truediv__(self, name: str) -> ShardPath:
        return ShardPath(self.clip, f"{self.inside}/{name}" if self.inside else name)

    def __str__(self) -> str:
        return "/".join(part for part in (str(self.clip.shard), self.clip.name, self.inside) if part)

    def is_file(self) -> bool:
        return self.clip.find(self.inside) is not None

    def open(self, mode: Literal["rb"] = "rb") -> BinaryIO:  # noqa: ARG002  # as Path.open has it
        """Raises FileNotFoundError if the clip has no such file or the shard is not there."""
        place = self.clip.find(self.inside)
        if place is None:
            raise FileNotFoundError(2, "no such file in the shard", str(self))
        return cast(BinaryIO, io.BufferedReader(_Slice(_opened(self.clip.shard), *place)))


class _Descriptor:
    """An open file, read by position so that forked processes can share it."""

    def __init__(self, path: Path) -> None:
        self.number = -1
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


@lru_cache(maxsize=_N_OPEN)
def _opened(path: Path) -> _Descriptor:
    return _Descriptor(path)


class _Slice(io.RawIOBase):
    """``size`` bytes of a file from ``offset`` on, as a file object."""

    def __init__(self, file: _Descriptor, offset: int, size: int) -> None:
        super().__init__()
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer is not in typing yet
        n_wanted = min(len(buffer), max(0, self._size - self._at))
        data = os.pread(self._file.number, n_wanted, self._offset + self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def sharded_clips(data_dir: Path) -> dict[str, ShardPath]:
    """Every packed clip of a data folder; raises BadInput for an unreadable index or a missing shard."""
    found: dict[str, ShardPath] = {}
    for path in sorted(data_dir.glob(SHARD_PATTERN)):
        shard = path.with_suffix(".tar")
        if not shard.is_file():
            raise BadInput("shard missing", shard, "the tar that its index describes", "nothing", _ADVICE)
        found |= {clip.name: ShardPath(clip) for clip in read_index(path)}
    return found


def read_index(path: Path) -> list[ShardedClip]:
    """The clips of one shard, in their order, from its .json."""
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["schema"] != INDEX_SCHEMA:
            raise ValueError(f"schema {index['schema']}")
        return [
            ShardedClip(
                path.with_suffix(".tar"),
                entry["name"],
                {name: (int(offset), int(size)) for name, (offset, size) in entry["arrays"].items()},
                int(entry["first_row"]),
                int(entry["n_frames"]),
            )
            for entry in index["clips"]
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        expected = f"an index of schema {INDEX_SCHEMA}"
        raise BadInput("unreadable shard index", path, expected, str(error)[:80], _ADVICE) from error
