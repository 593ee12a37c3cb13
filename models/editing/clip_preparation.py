"""Preparation of one training clip: face crops, depth images, landmarks, coefficients and sound.

preprocess_dataset.py distributes clips over processes, each of which calls ``prepare_clip``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, UInt8

from models.editing.clip_analysis import FaceAnalyser, ReconstructedClip, RenderedFace, load_analyser
from models.tracking.clip_tracking import track_clip
from models.tracking.speaker_choice import ClipSound
from utils.core import cli
from utils.core.errors import BadInput
from utils.core.types import INAUDIBLE, N_LANDMARKS, VideoInfo
from utils.data.clips import STORED_SIZE
from utils.data.shard_writer import pack_clip, waiting_path
from utils.files.atomic import PARTIAL, atomic_dir
from utils.files.image_files import write_gray, write_rgb
from utils.imaging.geometry import crop_box, resize_image
from utils.media.audio import load_waveform
from utils.media.video import probe_video, read_frames
from utils.people.speaker import Speaker
from utils.results import store
from utils.weights.packs import Pack


@dataclass(frozen=True)
class PreparationJob:
    """Settings of a run, the same for every clip and in all processes.

    as_shards: write each clip as a tar for a shard (utils/data/shard_writer.py), not as a folder.
    min_face: least median of the shorter side of the face box, in pixels.
    speaker: choice of the person in clips that show several people.
    """

    pack: Pack
    result_dir: Path
    as_shards: bool = False
    gpu_id: int = -1
    smoothing: str = "box"
    faithful: bool = False
    use_opengl: bool = False
    keep_silent: bool = False
    min_face: int = 0
    speaker: Speaker | None = None


@lru_cache(maxsize=1)
def open_analyser(job: PreparationJob) -> FaceAnalyser:
    """The face model and networks of a job, opened once per process. Raises BadInput for unusable weights."""
    device = cli.resolve_device(job.gpu_id)
    return load_analyser(job.pack, device, job.faithful, job.use_opengl)


def prepare_clip(job: PreparationJob, path: Path) -> str:
    """Write one clip, whole or not at all; returns the number of usable frames in words.

    Raises BadInput for a clip that cannot be read, is silent, or shows no face that is large enough.
    """
    video = probe_video(path)
    wave = None if job.keep_silent and not video.has_audio else load_speech(path, job.keep_silent)
    analyser = open_analyser(job)
    device = cli.resolve_device(job.gpu_id)
    sound = ClipSound(lambda n_samples: None if wave is None else wave[:n_samples])
    tracked = track_clip(read_frames(path), job.pack, device, sound, job.speaker, job.smoothing, job.faithful)
    clip = analyser.fit(tracked.track, lambda: read_frames(path), (video.width, video.height))
    require_face(path, clip.track.boxes, clip.track.valid, job.min_face)
    if job.as_shards:
        with tempfile.TemporaryDirectory(dir=job.result_dir, prefix=PARTIAL) as name:
            write_clip(Path(name), video, clip, analyser, wave, job.pack.name)
            pack_clip(Path(name), path.stem, waiting_path(job.result_dir, path.stem))
    else:
        store.require_replaceable(job.result_dir / path.stem)
        with atomic_dir(job.result_dir / path.stem) as folder:
            write_clip(folder, video, clip, analyser, wave, job.pack.name)
    return f"{clip.track.valid.sum()} of {len(clip.track)} frames"


def load_speech(path: Path, keep_silent: bool) -> np.ndarray:
    """A clip's sound, float32 [n] at 16 kHz; raises BadInput if it is silent, unless ``keep_silent``."""
    advice = "leave the clip out, or give --keep_silent"
    try:
        wave = load_waveform(path)
    except BadInput as error:
        raise BadInput("clip is silent", path, "speech", error.found or "no sound track", advice) from error
    peak = float(np.abs(wave).max())
    if peak < INAUDIBLE and not keep_silent:
        raise BadInput("clip is silent", path, f"a peak of {INAUDIBLE}", f"{peak:.1g}", advice)
    return wave


def require_face(path: Path, boxes: Int[np.ndarray, "n 4"], valid: Bool[np.ndarray, " n"], min_face: int) -> None:
    """Raise BadInput if no frame shows a face, or its median size is below ``min_face`` pixels."""
    if not valid.any():
        raise BadInput("no face found", path, "a face in some frame", f"none in {len(valid)}", "leave the clip out")
    sides = (boxes[valid, 2:] - boxes[valid, :2]).min(axis=1)
    if np.median(sides) < min_face:
        found = f"{np.median(sides):.0f}"
        raise BadInput("face too small", path, f"{min_face} pixels", found, "leave the clip out, or lower --min_face")


def write_clip(
    folder: Path,
    video: VideoInfo,
    clip: ReconstructedClip,
    analyser: FaceAnalyser,
    wave: np.ndarray | None,
    weights: str,
) -> None:
    """Write all files of a training clip; track.json, which marks it as complete, comes last."""
    write_images(folder, read_frames(video.path), clip, analyser)
    if wave is not None:
        store.save_sound(folder, wave)
    n_frames = len(clip.track)
    record = store.TrackRecord(
        source_name=video.path.name,
        source_bytes=video.path.stat().st_size,
        width=video.width,
        height=video.height,
        n_source_frames=n_frames,
        n_frames=n_frames,
        n_valid=int(clip.track.valid.sum()),
        motion_name="",
        weights=weights,
    )
    store.save_track_record(folder, record)


def write_images(folder: Path, frames: Iterator[np.ndarray], clip: ReconstructedClip, analyser: FaceAnalyser) -> None:
    """Write face crops and the depth of the clip's own expressions, both 256 px square, and the arrays."""
    boxes, valid = clip.track.boxes, clip.track.valid
    landmarks = np.zeros((len(clip.track), N_LANDMARKS, 2), np.float32)
    for index, frame in enumerate(frames):
        if not valid[index]:
            continue
        face = analyser.render_face(clip.coeffs[index], clip.alignments[index], boxes[index])
        landmarks[index] = face.landmarks
        crop = crop_box(frame, boxes[index])
        shrinking = "area" if min(crop.shape[:2]) > STORED_SIZE else "bilinear"
        write_face(folder, index, resize_image(crop, STORED_SIZE, STORED_SIZE, shrinking), face)
    store.save_edit_arrays(folder, boxes, landmarks, clip.coeffs, np.arange(len(valid)), valid)


def write_face(folder: Path, index: int, crop: UInt8[np.ndarray, "s s 3"], face: RenderedFace) -> None:
    """Write the two images of a frame; ``crop`` is of STORED_SIZE."""
    write_rgb(store.face_path(folder, index), crop)
    write_gray(store.depth_path(folder, index), resize_image(face.depth, STORED_SIZE, STORED_SIZE, "bilinear"))
