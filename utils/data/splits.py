"""Splits of a preprocessed data folder into training and held-out clips, and their usable frames."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32

from utils.core.errors import BadInput
from utils.core.types import MOTION_FPS, SAMPLES_PER_FRAME
from utils.files.arrays import StoredPath
from utils.files.atomic import atomic_path
from utils.results.training_clip import ClipArrays

TRAIN_LIST, VALIDATION_LIST, SUMMARY = "train.txt", "val.txt", "summary.json"
MIN_FRAMES = 7  # usable frames that a clip needs (upstream: preprocess_dataset_extra.py)
_ADVICE = "run preprocess_dataset.py again for this clip"


@dataclass(frozen=True)
class ClipCount:
    """Numbers of a clip's frames: all, with a face, usable (with face and sound; in a silent clip with a face)."""

    name: str
    n_frames: int
    n_faces: int
    n_usable: int
    has_sound: bool


@dataclass(frozen=True)
class Split:
    """Names of clips, each list sorted; ``dropped``: reasons of clips in neither."""

    training: list[str]
    validation: list[str]
    dropped: dict[str, str]


def usable_frames(valid: Bool[np.ndarray, " n"], n_samples: int | None) -> Int32[np.ndarray, " k"]:
    """Indices of frames with a face that begin before the sound (16 kHz samples; None: a silent clip) ends."""
    n_with_sound = len(valid) if n_samples is None else -(-n_samples // SAMPLES_PER_FRAME)
    return np.flatnonzero(valid[:n_with_sound]).astype(np.int32)


def count_clip(directory: StoredPath) -> ClipCount:
    """Count the frames of one preprocessed clip; raises BadInput if its arrays are missing or damaged."""
    arrays = ClipArrays(directory, _ADVICE)
    valid, sound = arrays.valid(), arrays.sound_rows()
    n_samples = None if sound is None else len(sound)
    n_usable = len(usable_frames(valid, n_samples))
    return ClipCount(directory.name, len(valid), int(valid.sum()), n_usable, n_samples is not None)


def split_by_speaker(
    clips: Sequence[ClipCount], speakers: Mapping[str, str], share: float, seed: int, min_frames: int = MIN_FRAMES
) -> Split:
    """Hold out whole speakers until they have ``share`` of the frames; an unlisted clip is a speaker of its own.

    The order of speakers is random by ``seed``. At least one speaker stays for training.
    """
    dropped = {
        clip.name: f"{clip.n_usable} usable frames, {min_frames} needed" for clip in clips if clip.n_usable < min_frames
    }
    kept = sorted((clip for clip in clips if clip.name not in dropped), key=lambda clip: clip.name)
    by_speaker: dict[str, list[ClipCount]] = {}
    for clip in kept:
        by_speaker.setdefault(speakers.get(clip.name, clip.name), []).append(clip)
    order = np.random.default_rng(seed).permutation(sorted(by_speaker)).tolist()
    wanted = share * sum(clip.n_usable for clip in kept)
    held_out: list[ClipCount] = []
    for speaker in order[:-1]:
        if sum(clip.n_usable for clip in held_out) >= wanted:
            break
        held_out += by_speaker[speaker]
    validation = {clip.name for clip in held_out}
    return Split([clip.name for clip in kept if clip.name not in validation], sorted(validation), dropped)


def read_speakers(path: Path) -> dict[str, str]:
    """Lines of ``<clip> <speaker>``; the speaker is the last word, a line that begins with # is a comment.

    Raises BadInput for any other line or a clip named twice.
    """
    if not path.is_file():
        raise BadInput("list of speakers missing", path, "lines of <clip> <speaker>", "nothing")
    speakers: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        words = line.rsplit(maxsplit=1)
        if len(words) != 2 or words[0] in speakers:
            found = "a clip named twice" if words[0] in speakers else repr(line.strip())
            raise BadInput(f"line {number} of the list of speakers", path, "<clip> <speaker>", found)
        speakers[words[0]] = words[1]
    return speakers


def read_names(path: Path) -> list[str]:
    """Clip names of a list: non-empty lines that do not begin with #. Raises BadInput if there is no such file."""
    if not path.is_file():
        raise BadInput("list of clips missing", path, "one clip name per line", "nothing")
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def write_split(data_dir: Path, clips: Sequence[ClipCount], split: Split, seed: int) -> None:
    """Write train.txt, val.txt and summary.json into the data folder, each atomically."""
    for file_name, names in ((TRAIN_LIST, split.training), (VALIDATION_LIST, split.validation)):
        _write(data_dir / file_name, "".join(f"{name}\n" for name in names))
    _write(data_dir / SUMMARY, json.dumps(summarise(clips, split) | {"seed": seed}, indent=2) + "\n")


def summarise(clips: Sequence[ClipCount], split: Split) -> dict[str, object]:
    """Numbers of clips, frames and hours in a data folder."""
    counts = {clip.name: clip for clip in clips}
    parts = {"training": split.training, "validation": split.validation}
    totals = {
        part: {"clips": len(names), "frames": sum(counts[name].n_usable for name in names)}
        for part, names in parts.items()
    }
    hours = sum(clip.n_usable for clip in clips) / MOTION_FPS / 3600
    return {"hours": round(hours, 4), **totals, "dropped": split.dropped, "clips": [asdict(clip) for clip in clips]}


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
