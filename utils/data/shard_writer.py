"""Packs finished clips into shards (see shards.py), atomically, with the same bytes in any order of completion.

A finished clip waits as DATA_DIR/.waiting/<clip>.tar, written by the process that prepared it. One process, the packer,
copies waiting clips into shards in the order of their names, as soon as no earlier one is still being prepared.
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from utils.data.shards import DEPTH, FACE, INDEX_SCHEMA, RECORD, SHARD_PATTERN, read_index
from utils.files.atomic import atomic_path
from utils.results.training_clip import finished_clips

WAITING_FOLDER = ".waiting"
SHARD_MEGABYTES = 1000  # default size of a shard, 10^6 bytes
_FRAME_NAME = re.compile(rf"(\d{{8}})\.({re.escape(FACE)}|{re.escape(DEPTH)})")
_END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)


def waiting_path(data_dir: Path, name: str) -> Path:
    return data_dir / WAITING_FOLDER / f"{name}.tar"


def pack_clip(folder: Path, name: str, tar_path: Path) -> None:
    """Write a clip's folder as one tar: arrays, then frames in order; the same files give the same bytes."""
    arrays = sorted(path for path in folder.iterdir() if path.is_file())
    images = [*(folder / "depth").glob("*.png"), *(folder / "faces").glob("*.jpg")]
    members = [(path, f"{RECORD}.{path.name}") for path in arrays]
    members += sorted(((path, _frame_name(path)) for path in images), key=lambda member: member[1])
    with atomic_path(tar_path) as temporary, temporary.open("wb") as file:
        for path, inside in members:
            data = path.read_bytes()
            header = tarfile.TarInfo(f"{name}/{inside}")  # owner and time stay 0
            header.size = len(data)
            file.write(header.tobuf(tarfile.PAX_FORMAT))
            file.write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
        file.write(_END_OF_TAR)


def _frame_name(path: Path) -> str:
    return f"{path.stem}.{FACE if path.parent.name == 'faces' else DEPTH}"


@dataclass(frozen=True)
class TarredClip:
    """A waiting tar. Offsets count from its start; n_bytes leaves out the end mark."""

    path: Path
    n_bytes: int
    arrays: dict[str, tuple[int, int]]
    frames: np.ndarray  # int64 [N, 2, 2], see utils.data.shards.ShardedClip

    @classmethod
    def scan(cls, path: Path) -> TarredClip:
        arrays, images, end = {}, {}, 0
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                place = (member.offset_data, member.size)
                inside = member.name.removeprefix(f"{path.stem}/")
                if match := _FRAME_NAME.fullmatch(inside):
                    images[int(match[1]), int(match[2] == DEPTH)] = place
                else:
                    arrays[inside.removeprefix(f"{RECORD}.")] = place
                end = member.offset_data + member.size
        frames = np.zeros((max((index for index, _ in images), default=-1) + 1, 2, 2), np.int64)
        for key, place in images.items():
            frames[key] = place
        return cls(path, -(-end // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, arrays, frames)


class ShardPacker:
    """Packs clips once they are settled: waiting as a tar, or left out."""

    def __init__(self, data_dir: Path, names: Iterable[str], shard_bytes: int) -> None:
        """names: clips of this run; clips waiting from an earlier run are packed too."""
        self._data_dir, self._shard_bytes = data_dir, shard_bytes
        self._settled = {path.stem for path in (data_dir / WAITING_FOLDER).glob("*.tar")}
        self._order = sorted({*names, *self._settled})
        self._position, self._batch = 0, list[Path]()

    def settle(self, name: str) -> None:
        """Mark a clip as settled; full shards are written."""
        self._settled.add(name)
        self._advance()

    def _advance(self) -> None:
        while self._position < len(self._order) and self._order[self._position] in self._settled:
            path = waiting_path(self._data_dir, self._order[self._position])
            self._position += 1
            if path.is_file():
                self._add(path)

    def _add(self, path: Path) -> None:
        n_bytes = sum(other.stat().st_size for other in self._batch)
        if self._batch and n_bytes + path.stat().st_size > self._shard_bytes:
            self._write()
        self._batch.append(path)

    def finish(self) -> int:
        """Write the last shard if every clip is settled; returns the number of clips left waiting for the next run."""
        self._advance()
        if self._position == len(self._order) and self._batch:
            self._write()
        folder = self._data_dir / WAITING_FOLDER
        n_waiting = len(list(folder.glob("*.tar")))
        if folder.is_dir() and not n_waiting:
            folder.rmdir()
        return n_waiting

    def _write(self) -> None:
        number = len(list(self._data_dir.glob(SHARD_PATTERN)))
        write_shard(self._data_dir / f"shard-{number:06d}.tar", self._batch)
        self._batch = []


def write_shard(path: Path, waiting: Sequence[Path]) -> None:
    """Join tars of clips into one shard with its index; remove them after both are written."""
    clips = [TarredClip.scan(tar) for tar in waiting]
    starts = list(accumulate((clip.n_bytes for clip in clips), initial=0))
    rows = list(accumulate((len(clip.frames) for clip in clips), initial=0))
    with atomic_path(path) as temporary, temporary.open("wb") as shard:
        for clip, end in zip(clips, starts[1:], strict=True):
            with clip.path.open("rb") as tar:
                shutil.copyfileobj(tar, shard)
            shard.seek(end)  # back over the end mark
            shard.truncate()
        shard.write(_END_OF_TAR)
    table = np.concatenate([_moved(clip.frames, start) for clip, start in zip(clips, starts, strict=False)])
    with atomic_path(path.with_suffix(".npy")) as temporary, temporary.open("wb") as file:
        np.save(file, table.reshape(-1, 4), allow_pickle=False)
    entries = [
        {
            "name": clip.path.stem,
            "first_row": row,
            "n_frames": len(clip.frames),
            "arrays": {name: (start + offset, size) for name, (offset, size) in sorted(clip.arrays.items())},
        }
        for clip, start, row in zip(clips, starts, rows, strict=False)
    ]
    with atomic_path(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps({"schema": INDEX_SCHEMA, "clips": entries}) + "\n", encoding="utf-8")
    for tar_path in waiting:
        tar_path.unlink()


def _moved(frames: np.ndarray, start: int) -> np.ndarray:
    """Offsets from the start of the shard; frames without an image stay 0."""
    moved = frames.copy()
    moved[..., 0] += start * (frames[..., 1] > 0)
    return moved


def packed_names(data_dir: Path) -> Iterator[str]:
    """Names of clips in finished shards."""
    for path in sorted(data_dir.glob(SHARD_PATTERN)):
        yield from (clip.name for clip in read_index(path))


def finished_names(data_dir: Path) -> set[str]:
    """Names of finished clips: folders, packed, or waiting. Removes waiting tars that are already in a shard."""
    packed = set(packed_names(data_dir))
    waiting = {path.stem: path for path in (data_dir / WAITING_FOLDER).glob("*.tar")}
    for name in packed & set(waiting):
        waiting[name].unlink()
    return packed | set(waiting) | finished_clips(data_dir)
