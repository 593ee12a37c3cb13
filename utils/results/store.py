"""Names and formats of the intermediate files: paths, reading, writing and checks for completeness."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from utils.core.errors import BadInput
from utils.core.types import MOTION_FPS, N_COEFFS, N_EXP, N_LANDMARKS
from utils.files.arrays import ArrayRows, StoredPath, load_array, read_npy, save_array, save_rows, shape_text
from utils.files.atomic import atomic_path, remove, require_writable
from utils.files.image_files import read_gray
from utils.media.timeline import LENGTHS, exact_rate

SCHEMA_VERSION = 1
TRACK_NAME = "track.json"
SOUND_NAME = "audio.npy"
LARGEST_MOTION = 1000  # standard deviations of the face model; 53 clips of talking people reach 9
BOXES_NAME, VALID_NAME, COEFFS_NAME, LANDMARKS_NAME = "boxes.npy", "valid.npy", "coeffs.npy", "landmarks.npy"
SOURCE_LANDMARKS_NAME, FRAME_INDEX_NAME, STRENGTH_NAME = "source_landmarks.npy", "frame_index.npy", "strength.npy"
STAGE2_ADVICE = "run inference_edit_expression.py again for this clip and speech"


P = TypeVar("P", bound=StoredPath)


def require_replaceable(directory: Path) -> None:
    """Raise BadInput unless the folder is absent, empty, written by this project, or a link to such a folder.

    Of a link only the link is replaced.
    """
    require_writable(directory.parent)
    if directory.is_symlink() and not directory.exists():
        advice = "remove the link, or choose another folder"
        raise BadInput("result folder cannot be made", directory, "a folder", "a link that leads nowhere", advice)
    if directory.is_dir() and not directory.is_symlink():
        require_writable(directory)  # else it could not be moved away
    is_foreign = any(directory.iterdir()) if directory.is_dir() else directory.exists()
    if is_foreign and not (directory / TRACK_NAME).is_file():
        advice = "choose another folder, or move those files"
        raise BadInput(
            "folder holds files of another origin", directory, f"an empty folder or {TRACK_NAME}", advice=advice
        )


def motion_path(result_dir: Path, name: Path) -> Path:
    """Stage 1's result: <result_dir>/<name>, with the suffix .npy added unless it is there."""
    return result_dir / (name if name.suffix == ".npy" else name.with_name(f"{name.name}.npy"))


def motion_name(audio_path: Path) -> Path:
    """File name of a speech's motion: the speech's stem, which stage 3 expects."""
    return Path(f"{audio_path.stem}.npy")


def save_motion(path: Path, motion: np.ndarray) -> None:
    """Write stage 1's result: float32 [T, 64] at 25 Hz."""
    save_array(path, motion.astype(np.float32))


def load_motion(path: Path) -> np.ndarray:
    """Read float32 [T, 64]; a leading axis of 1 is dropped.

    Raises BadInput on any other shape, NaN, or numbers beyond LARGEST_MOTION.
    """
    advice = "give the file that inference_audio2motion.py wrote"
    motion = read_npy(path, (None, N_EXP), advice)
    if motion.ndim == 3 and len(motion) == 1:
        motion = motion[0]
    if motion.ndim != 2 or motion.shape[1] != N_EXP or motion.dtype.kind != "f":
        expected, found = shape_text((None, N_EXP)), f"{motion.dtype} {shape_text(motion.shape)}"
        raise BadInput("motion does not fit", path, f"float {expected}", found, advice)
    n_others = np.count_nonzero(~(np.abs(motion) <= LARGEST_MOTION))  # also NaN
    if len(motion) == 0 or n_others:
        expected, found = f"numbers up to {LARGEST_MOTION}", f"{n_others} others" if len(motion) else "no frame"
        raise BadInput("motion is empty or impossible", path, expected, found, advice)
    return motion.astype(np.float32)


def save_sound(directory: Path, wave: np.ndarray) -> None:
    """Write a training clip's sound (float32 [n] in [-1, 1), 16 kHz mono) as int16."""
    save_array(directory / SOUND_NAME, np.rint(wave * 32768.0).clip(-32768, 32767).astype(np.int16))


@dataclass(frozen=True)
class TrackRecord:
    """Content of track.json in a stage-2 result or a training clip; names and sizes identify the source clip."""

    source_name: str
    source_bytes: int
    width: int
    height: int
    n_source_frames: int
    n_frames: int
    n_valid: int
    motion_name: str
    weights: str
    fps: float = MOTION_FPS
    schema: int = SCHEMA_VERSION
    key: str = ""  # of inputs, options and weights: utils/results/content_key.py
    source_digest: str = ""  # SHA-256 of the clip; empty in training clips
    length: str = LENGTHS[0]  # treatment of clip and speech of different lengths: utils/media/timeline.py


_COUNTS = ("schema", "source_bytes", "width", "height", "n_source_frames", "n_frames", "n_valid")


def save_track_record(directory: Path, record: TrackRecord) -> None:
    with atomic_path(directory / TRACK_NAME) as temporary:
        temporary.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")


def load_track_record(directory: Path) -> TrackRecord:
    path = directory / TRACK_NAME
    if not path.is_file():
        raise BadInput("stage 2 result incomplete", path, "track.json", "nothing", STAGE2_ADVICE)
    try:
        record = TrackRecord(**json.loads(path.read_text(encoding="utf-8")))
        wrong = [name for name in _COUNTS if not isinstance(getattr(record, name), int)]
        if wrong:
            raise TypeError(f"{wrong[0]} is {getattr(record, wrong[0])!r}")
        if record.length not in LENGTHS or not (math.isfinite(record.fps) and exact_rate(record.fps) > 0):
            raise ValueError(f"fps is {record.fps!r}, length is {record.length!r}")
    except (ValueError, TypeError, OverflowError, RecursionError) as error:  # the last: deeply nested lists
        expected = "the fields of this version"
        raise BadInput("unreadable track record", path, expected, str(error), STAGE2_ADVICE) from error
    if record.schema != SCHEMA_VERSION:
        raise BadInput("track of another version", path, f"schema {SCHEMA_VERSION}", str(record.schema), STAGE2_ADVICE)
    return record


@dataclass(frozen=True)
class EditResult:
    """A stage-2 folder. boxes int32 [N, 4], landmarks and source_landmarks float32 [N, 468, 2] relative to the box
    (with the new expression; as tracked in the source), coeffs float32 [N, 257], frame_index int32 [N] (source frame
    of each output frame), valid bool [N], strength float32 [N] in [0, 1] (opacity of the new mouth)."""

    directory: Path
    record: TrackRecord
    boxes: np.ndarray
    landmarks: ArrayRows
    source_landmarks: ArrayRows
    coeffs: ArrayRows
    frame_index: np.ndarray
    valid: np.ndarray
    strength: np.ndarray

    def __len__(self) -> int:
        return len(self.valid)

    def depth(self, index: int) -> np.ndarray:
        """uint8 [h, w], the size of the box of frame ``index``."""
        return read_gray(depth_path(self.directory, index), STAGE2_ADVICE)


def edit_dir(result_dir: Path, video_path: Path, motion_path: Path) -> Path:
    """Stage 2's result: <result_dir>/<video>/<motion>."""
    return result_dir / video_path.stem / motion_path.stem


def talk_path(result_dir: Path, video_path: Path, audio_path: Path) -> Path:
    """Stage 3's video: <result_dir>/<video>#<audio>.mp4."""
    return result_dir / f"{video_path.stem}#{audio_path.stem}.mp4"


def speakers_path(result_dir: Path, video_path: Path) -> Path:
    """Stage 2's contact sheet of the persons in a clip: <result_dir>/<video>/speakers.png."""
    return result_dir / video_path.stem / "speakers.png"


def depth_path(directory: P, index: int) -> P:
    return directory / "depth" / f"{index:08d}.png"


def face_path(directory: P, index: int) -> P:
    return directory / "faces" / f"{index:08d}.jpg"


def save_edit_arrays(
    directory: Path,
    boxes: np.ndarray,
    landmarks: np.ndarray | Iterable[np.ndarray],
    coeffs: np.ndarray | Iterable[np.ndarray],
    frame_index: np.ndarray,
    valid: np.ndarray,
    source_landmarks: np.ndarray | Iterable[np.ndarray] | None = None,
    strength: np.ndarray | None = None,
) -> None:
    """Write the arrays of EditResult; training clips have no ``source_landmarks`` and ``strength``.

    Large arrays may be given block by block.
    """
    save_array(directory / BOXES_NAME, boxes.astype(np.int32))
    save_array(directory / FRAME_INDEX_NAME, frame_index.astype(np.int32))
    save_array(directory / VALID_NAME, valid.astype(bool))
    large = ((LANDMARKS_NAME, landmarks), (COEFFS_NAME, coeffs), (SOURCE_LANDMARKS_NAME, source_landmarks))
    for name, rows in large:
        if rows is not None:
            blocks = [rows] if isinstance(rows, np.ndarray) else rows
            save_rows(directory / name, blocks, len(valid), np.float32)
    if strength is not None:
        save_array(directory / STRENGTH_NAME, strength.astype(np.float32))


def load_edit(directory: Path) -> EditResult:
    """Open a stage-2 folder; raises BadInput if a file is missing, misshapen or a depth image is absent.

    The large arrays are read row by row as they are used.
    """
    record = load_track_record(directory)
    n = record.n_frames

    def load(name: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
        return load_array(directory / name, shape, kind, STAGE2_ADVICE)

    result = EditResult(
        directory,
        record,
        boxes=load(BOXES_NAME, (n, 4), "i"),
        landmarks=ArrayRows(directory / LANDMARKS_NAME, (n, N_LANDMARKS, 2), "f", STAGE2_ADVICE),
        source_landmarks=ArrayRows(directory / SOURCE_LANDMARKS_NAME, (n, N_LANDMARKS, 2), "f", STAGE2_ADVICE),
        coeffs=ArrayRows(directory / COEFFS_NAME, (n, N_COEFFS), "f", STAGE2_ADVICE),
        frame_index=load(FRAME_INDEX_NAME, (n,), "i"),
        valid=load(VALID_NAME, (n,), "b"),
        strength=load(STRENGTH_NAME, (n,), "f"),
    )
    if not ((result.strength >= 0) & (result.strength <= 1)).all():
        path = directory / STRENGTH_NAME
        raise BadInput("array does not fit", path, "numbers from 0 to 1", "others", STAGE2_ADVICE)
    for index in np.flatnonzero(result.valid):
        path = depth_path(directory, index)
        if not path.is_file():
            raise BadInput("stage 2 result incomplete", path, "a depth image", "nothing", STAGE2_ADVICE)
    return result


def remove_edit(directory: Path) -> None:
    """Remove a stage-2 folder (of a link only the link), and the clip's folder above it if it is then empty."""
    load_track_record(directory)  # raises for a folder of another origin
    remove(directory)
    with suppress(OSError):
        directory.parent.rmdir()
