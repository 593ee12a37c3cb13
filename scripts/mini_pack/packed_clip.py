"""One training clip as members of an archive: face crops in H.264, sound in FLAC, coefficients in float16.

faces.mp4   sound.flac (absent for a silent clip)   arrays.z   track.json

Depth images and landmarks follow from the coefficients, the face model and each frame's aligned crop, so that
unpacking renders them. The video shows only the frames that are valid.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from models.editing.clip_analysis import FaceAnalyser
from models.editing.clip_preparation import write_face
from models.face3d.face_model import FaceModel
from models.face3d.rasterizer import choose_rasterizer
from utils.core.errors import BadInput
from utils.core.types import MOTION_FPS, N_COEFFS, N_LANDMARKS, SAMPLE_RATE
from utils.data.clips import STORED_SIZE
from utils.files.atomic import atomic_dir
from utils.files.image_files import read_rgb
from utils.imaging.geometry import CROP_SIZE, Alignment
from utils.media.audio import load_waveform, write_flac
from utils.media.video import VideoWriter, read_frames
from utils.results import store
from utils.results.training_clip import ClipArrays, is_finished, record_path

FACES_NAME, FLAC_NAME, PACKED_ARRAYS_NAME = "faces.mp4", "sound.flac", "arrays.z"
MEMBER_NAMES = (FACES_NAME, FLAC_NAME, PACKED_ARRAYS_NAME, record_path(Path()).name)
ADVICE = "get or make the archive again"
_CLIP_ADVICE = "run preprocess_dataset.py again for this clip"
MOST_SECONDS = 3600
MOST_FRAMES = MOST_SECONDS * MOTION_FPS
MOST_PIXELS = 16_384  # side of a source frame or face box
LARGEST_SHIFT = 0.5  # pixels of the stored crop between landmarks and what is rendered from coefficients
# Name, number format and values per frame; stored one value after the other, frames last, so that constants deflate.
_LAYOUT = (("valid", "<u1", 1), ("boxes", "<i4", 4), ("scales", "<f8", 1), ("offsets", "<i4", 2))
_LAYOUT += (("coeffs", "<f2", N_COEFFS),)


@dataclass(frozen=True)
class PackedArrays:
    """Of N frames. valid: bool [N]; boxes: int32 [N, 4]; coeffs: float32 [N, 257].

    scales float64 [N], offsets int32 [N, 2]: the aligned crop in the source frame, see Alignment (scale; left, up).
    """

    valid: np.ndarray
    boxes: np.ndarray
    scales: np.ndarray
    offsets: np.ndarray
    coeffs: np.ndarray


@lru_cache(maxsize=1)
def open_renderer(face_model_path: Path) -> FaceAnalyser:
    """The renderer of preprocess_dataset.py, on the CPU, opened once per process."""
    return FaceAnalyser(FaceModel.load(face_model_path), choose_rasterizer(torch.device("cpu"), False))


@dataclass(frozen=True)
class PackingJob:
    face_model_path: Path
    packed_dir: Path
    crf: int


def pack_clip(job: PackingJob, folder: Path) -> str:
    """Write a clip's members to packed_dir/<data folder>/<clip>; returns a note on their size and quality.

    Raises BadInput for an unfinished clip, or one whose landmarks do not follow from this face model.
    """
    target = job.packed_dir / folder.parent.name / folder.name
    target.mkdir(parents=True)
    record = store.load_track_record(folder)
    stored = ClipArrays(folder, _CLIP_ADVICE)
    arrays = placed_arrays(stored, record, open_renderer(job.face_model_path))
    (target / PACKED_ARRAYS_NAME).write_bytes(encode_arrays(arrays))
    ratio = write_faces(target / FACES_NAME, folder, np.flatnonzero(arrays.valid), job.crf)
    if stored.has_sound:
        write_flac(target / FLAC_NAME, stored.sound())
    store.save_track_record(target, record)
    n_bytes = sum(path.stat().st_size for path in target.iterdir())
    return f"{arrays.valid.sum()} of {record.n_frames} frames, {n_bytes / 1e6:.2f} MB, crops {ratio:.1f} dB"


def write_faces(path: Path, folder: Path, frames: np.ndarray, crf: int) -> float:
    """Encode the face crops of some frames; returns their PSNR in dB."""

    def stored_faces() -> Iterator[np.ndarray]:
        return (read_rgb(store.face_path(folder, index), _CLIP_ADVICE) for index in frames)

    with VideoWriter(path, crf=crf) as writer:
        for face in stored_faces():
            writer.write(face)
    errors = [
        np.square(face.astype(np.float32) - decoded).mean()
        for face, decoded in zip(stored_faces(), read_frames(path), strict=True)
    ]
    return float(10 * np.log10(255**2 / max(np.mean(errors), 1e-9)))


def placed_arrays(stored: ClipArrays, record: store.TrackRecord, renderer: FaceAnalyser) -> PackedArrays:
    """A clip's arrays, with the aligned crops that give its landmarks.

    Raises BadInput if there is no face, or if landmarks lie farther than LARGEST_SHIFT from the rendered ones.
    """
    valid, model = stored.valid(record.n_frames), renderer.face_model
    boxes, coeffs = stored.boxes(len(valid)), stored.coeffs()
    landmarks = stored.landmarks(len(valid))
    if len(coeffs) != len(valid) or not valid.any():
        expected, found = f"{len(valid)} frames, some with a face", f"{len(coeffs)}, {valid.sum()} with a face"
        raise BadInput("clip cannot be packed", stored.coeffs_path, expected, found, _CLIP_ADVICE)
    scales, offsets = np.ones(len(valid)), np.zeros((len(valid), 2), np.int32)
    for index in np.flatnonzero(valid):
        vertices = model.vertices(torch.from_numpy(coeffs[index : index + 1].astype(np.float32)))
        points = model.project_y_down(vertices[:, model.landmark_index], renderer.flip)[0].numpy().astype(np.float64)
        in_frame = landmarks[index].astype(np.float64) + boxes[index, :2]
        scales[index], offsets[index] = fit_crop(points, in_frame)
        width, height = np.maximum(boxes[index, 2:] - boxes[index, :2], 1)
        shift = np.abs((points + offsets[index]) / scales[index] - in_frame) * STORED_SIZE / (width, height)
        if not shift.max() <= LARGEST_SHIFT:
            expected, found = f"landmarks within {LARGEST_SHIFT} pixels", f"{shift.max():.1f} in frame {index}"
            advice = "give --face_model the model that the clips were prepared with"
            raise BadInput("clip does not fit the face model", str(stored.folder), expected, found, advice)
    return PackedArrays(valid, boxes, scales, offsets, coeffs)


def fit_crop(points: np.ndarray, in_frame: np.ndarray) -> tuple[float, np.ndarray]:
    """scale and whole (left, up) with in_frame = (points + (left, up)) / scale, the least squares; both [n, 2]."""
    centred, target = points - points.mean(0), in_frame - in_frame.mean(0)
    scale = float((centred * centred).sum() / (centred * target).sum())
    offset = np.rint(in_frame.mean(0) * scale - points.mean(0))
    moved = points + offset
    return float((moved * moved).sum() / (moved * in_frame).sum()), offset.astype(np.int32)


def alignment_of(record: store.TrackRecord, scale: float, offset: np.ndarray) -> Alignment:
    """The alignment whose crop of the source frame is at ``offset`` (left, up)."""
    sides = np.array([record.width, record.height])
    exact = offset + 0.5 * np.sign(offset)  # Alignment truncates towards zero
    shift = (exact - (sides * scale).astype(int) / 2 + CROP_SIZE / 2) / scale
    x, y = float(record.width / 2 + shift[0]), float(record.height / 2 - shift[1])
    return Alignment(record.width, record.height, scale, (x, y))


def encode_arrays(arrays: PackedArrays) -> bytes:
    parts = []
    for name, number_format, n_values in _LAYOUT:
        values = getattr(arrays, name).reshape(-1, n_values).T
        parts.append(np.ascontiguousarray(values, number_format).tobytes())
    return zlib.compress(b"".join(parts), 9)


def decode_arrays(path: Path, record: store.TrackRecord) -> PackedArrays:
    """Raises BadInput for anything that encode_arrays does not write for a clip of that record."""
    n_frames = record.n_frames
    sizes = [np.dtype(number_format).itemsize * n_values * n_frames for _, number_format, n_values in _LAYOUT]
    decoder = zlib.decompressobj()
    try:
        content = decoder.decompress(path.read_bytes(), sum(sizes) + 1)
    except zlib.error as error:
        raise BadInput("arrays of a packed clip cannot be read", path, "deflated arrays", str(error), ADVICE) from error
    if len(content) != sum(sizes) or not decoder.eof:
        found = f"{len(content)} or more"
        raise BadInput("arrays of a packed clip do not fit", path, f"{sum(sizes)} bytes", found, ADVICE)
    values, start = {}, 0
    for (name, number_format, n_values), size in zip(_LAYOUT, sizes, strict=True):
        stored = np.frombuffer(content, number_format, n_values * n_frames, start).reshape(n_values, n_frames).T
        values[name], start = stored[:, 0] if n_values == 1 else stored, start + size
    arrays = PackedArrays(**values | {"valid": values["valid"] != 0, "coeffs": values["coeffs"].astype(np.float32)})
    require_possible(path, arrays, record)
    return arrays


def require_possible(path: Path, arrays: PackedArrays, record: store.TrackRecord) -> None:
    """Raise BadInput for numbers that no clip has, or other frames than the record counts."""
    sides = arrays.boxes[:, 2:].astype(np.int64) - arrays.boxes[:, :2]
    within = MOST_PIXELS * 100
    is_possible = (
        0 < arrays.valid.sum() == record.n_valid
        and np.isfinite(arrays.coeffs).all()
        and ((arrays.scales > 1e-3) & (arrays.scales < 1e3)).all()
        and (np.abs(arrays.offsets.astype(np.int64)) < within).all()
        and (np.abs(arrays.boxes.astype(np.int64)) < within).all()
        and ((sides[arrays.valid] > 0) & (sides[arrays.valid] <= MOST_PIXELS)).all()
    )
    if not is_possible:
        raise BadInput("arrays of a packed clip do not fit", path, "those of a clip", "impossible numbers", ADVICE)


@dataclass(frozen=True)
class UnpackingJob:
    face_model_path: Path
    result_dir: Path


def unpack_clip(job: UnpackingJob, packed: Path) -> str:
    """Write result_dir/<data folder>/<clip> from a folder of members, whole or not at all; returns a note.

    Raises BadInput for members that do not fit each other. A clip that is already there stays.
    """
    target = job.result_dir / packed.parent.name / packed.name
    record = load_record(packed)
    if is_finished(target) and store.load_track_record(target) == record:
        return "already there"
    arrays = decode_arrays(packed / PACKED_ARRAYS_NAME, record)
    store.require_replaceable(target)
    with atomic_dir(target) as folder:
        write_images(folder, packed / FACES_NAME, arrays, record, open_renderer(job.face_model_path))
        if (packed / FLAC_NAME).exists():
            store.save_sound(folder, load_waveform(packed / FLAC_NAME, longest=MOST_SECONDS * SAMPLE_RATE))
        store.save_track_record(folder, record)
    return f"{record.n_valid} of {record.n_frames} frames"


def load_record(packed: Path) -> store.TrackRecord:
    """Raises BadInput for sizes that no clip has."""
    record = store.load_track_record(packed)
    if not (0 < record.n_frames <= MOST_FRAMES and min(record.width, record.height) > 0):
        found = f"{record.n_frames} frames of {record.width}x{record.height}"
        raise BadInput("packed clip does not fit", record_path(packed), "a clip's length and size", found, ADVICE)
    if max(record.width, record.height) > MOST_PIXELS:
        found = f"{record.width}x{record.height}"
        raise BadInput("packed clip does not fit", record_path(packed), f"{MOST_PIXELS} pixels", found, ADVICE)
    return record


def write_images(
    folder: Path, video: Path, arrays: PackedArrays, record: store.TrackRecord, renderer: FaceAnalyser
) -> None:
    """Write face crops, rendered depth and all arrays of a clip."""
    landmarks = np.zeros((record.n_frames, N_LANDMARKS, 2), np.float32)
    shown = read_frames(video, stop=record.n_valid + 1)
    n_shown = 0
    for index, crop in zip(np.flatnonzero(arrays.valid), shown, strict=False):
        if crop.shape != (STORED_SIZE, STORED_SIZE, 3):
            expected, found = f"{STORED_SIZE}x{STORED_SIZE}", f"{crop.shape[1]}x{crop.shape[0]}"
            raise BadInput("face crops of another size", video, expected, found, ADVICE)
        alignment = alignment_of(record, float(arrays.scales[index]), arrays.offsets[index])
        face = renderer.render_face(arrays.coeffs[index], alignment, arrays.boxes[index])
        landmarks[index] = face.landmarks
        write_face(folder, index, crop, face)
        n_shown += 1
    if n_shown != record.n_valid or next(shown, None) is not None:
        raise BadInput("face crops do not fit the clip", video, f"{record.n_valid} frames", "another number", ADVICE)
    frame_index = np.arange(record.n_frames)
    store.save_edit_arrays(folder, arrays.boxes, landmarks, arrays.coeffs, frame_index, arrays.valid)
