"""Stage 2: clip + expression coefficients → boxes, landmarks, coefficients and depth images of every frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from models.editing.clip_analysis import FaceAnalyser, FrameSource, ReconstructedClip, load_analyser
from models.editing.expression_edit import RESULT_FOLDER, frame_motion, render_parts
from models.pipeline.options import ClipOptions, EditOptions
from models.pipeline.resume import make_unless_current, result_key
from models.tracking.clip_tracking import TrackedClip, track_clip
from models.tracking.speaker_choice import ClipSound, list_speakers
from utils.core.errors import BadInput
from utils.core.monitor import Monitor
from utils.core.types import MOTION_FPS, N_LANDMARKS, VideoInfo
from utils.files.atomic import atomic_path, require_writable, swap_in
from utils.files.digests import file_digest, require_unchanged
from utils.files.image_files import write_rgb
from utils.files.work_folder import parts_folder, replacing, work_folder
from utils.media.timeline import n_motion_frames, n_needed_frames, n_result_frames, resolve_rate, shown_frames
from utils.media.video import probe_video, read_frames, read_frames_at
from utils.people.speaker import Speaker
from utils.results import store
from utils.results.unfinished import has_track, load_track, save_track
from utils.weights.packs import Pack, agreement_model, describe

LISTED_FRAMES = 60 * MOTION_FPS  # frames that --list-speakers looks at


@dataclass(frozen=True)
class Edit:
    """A run of stage 2: its options, files that have been read, and loaded networks.

    motion: float32 [T, 64] at 25 Hz. rate: frames per second of the result. clip_digest: the clip's SHA-256.
    """

    options: EditOptions
    monitor: Monitor
    video: VideoInfo
    clip_digest: str
    motion: np.ndarray
    rate: Fraction
    pack: Pack
    device: torch.device
    analyser: FaceAnalyser
    result_dir: Path
    key: str

    @property
    def n_speech_frames(self) -> int:
        """Frames of the result while the speech lasts."""
        return n_motion_frames(len(self.motion), self.rate)

    @property
    def has_style(self) -> bool:
        """Whether the motion takes the speaker's style."""
        is_mini = self.analyser.face_model.n_vertices == N_LANDMARKS
        return self.options.style == "auto" and not self.options.faithful and is_mini

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames."""
        return self.video.width, self.video.height


def edit_clip(options: EditOptions, monitor: Monitor) -> store.EditResult:
    """Track and reconstruct the speaker's face, give it the new expressions, and render its depth.

    A result that is up to date is kept; a run that was stopped is resumed. Raises BadInput where nothing can be made.
    """
    edit = open_edit(options, monitor)
    is_current = not options.force and has_key(edit.result_dir, edit.key)
    make_unless_current(edit.result_dir, is_current, lambda: write_result(edit), [edit.key], monitor)
    return store.load_edit(edit.result_dir)


def open_edit(options: EditOptions, monitor: Monitor) -> Edit:
    """Read and check the inputs, load the networks, and say which they are."""
    motion_path, clip_path = options.motion_path, options.video_path
    motion_digest = file_digest(motion_path) if motion_path.is_file() else ""
    motion = store.load_motion(motion_path)
    clip_digest = file_digest(clip_path) if clip_path.is_file() else ""
    video = probe_video(clip_path)
    rate = resolve_rate(options.resolved_fps, video)
    result_dir = store.edit_dir(options.result_dir, video.path, motion_path)
    store.require_replaceable(result_dir)
    pack, device = options.resolve_pack(), options.device
    analyser = load_analyser(pack, device, options.faithful, options.use_opengl)
    for line in (describe(pack), analyser.describe(), *options.notes()):
        monitor.say(line)

    inputs = {"clip": clip_path, "motion": motion_path}
    if agreement_model().is_file():  # without it, it has no part in the choice of the speaker
        inputs["agreement"] = agreement_model()
    resolved = {"fps": rate, "smoothing": options.resolved_smoothing}
    key = result_key(options, pack, ("face_model", "recon", "dwpose"), inputs, resolved)
    require_unchanged(motion_path, motion_digest)  # the key counts what has been read
    return Edit(options, monitor, video, clip_digest, motion, rate, pack, device, analyser, result_dir, key)


def has_key(result_dir: Path, key: str) -> bool:
    """Whether a complete stage-2 result with this key is there."""
    try:
        return store.load_edit(result_dir).record.key == key
    except BadInput:  # absent, incomplete or of another version
        return False


def write_result(edit: Edit) -> None:
    """Make what an earlier run has not left finished, and put the result in place."""
    options = edit.options
    with (
        replacing(edit.result_dir),
        work_folder(edit.result_dir, edit.key, options.force, [RESULT_FOLDER]) as folder,
    ):
        if not has_track(folder):
            track_face(edit, folder)
        clip = load_track(folder)
        n_frames = n_result_frames(options.length, edit.n_speech_frames, len(clip))
        index = shown_frames(options.length, len(clip), n_frames)
        motion = frame_motion(edit.motion, edit.rate, clip, index, edit.analyser.face_model, edit.has_style)
        new = render_parts(folder, clip, index, motion, edit.analyser, edit.size, edit.monitor)
        require_unchanged(edit.video.path, edit.clip_digest)
        record = track_record(edit, clip.valid, index)
        store.save_track_record(new, record)
        swap_in(new, edit.result_dir)
    for line in clip.summary:
        edit.monitor.say(line)
    untouched = record.n_frames - record.n_valid
    edit.monitor.say(f"{edit.result_dir}: {record.n_frames} frames, {untouched} of them untouched")


def track_face(edit: Edit, folder: Path) -> None:
    """Track and reconstruct the speaker's face, and save it in ``folder``. Raises BadInput where there is none."""
    options, rate = edit.options, float(edit.rate)
    n_needed = n_needed_frames(options.length, edit.n_speech_frames)
    frames = frame_source(edit.video, n_needed, rate, edit.monitor)
    tracked = track_clip(
        frames(),
        edit.pack,
        edit.device,
        ClipSound.of(edit.video),
        options.speaker,
        options.resolved_smoothing,
        options.faithful,
        rate,
        parts_folder(edit.result_dir),
        lambda n: frame_source(edit.video, n, rate, edit.monitor)(),
    )
    clip = edit.analyser.fit(tracked.track, frames, edit.size)
    require_face(edit.video.path, clip, tracked)
    save_track(folder, clip.track, clip.coeffs, tracked.strength(clip.track.valid), tracked.describe())


def show_speakers(options: ClipOptions, monitor: Monitor) -> Path:
    """List the persons in the clip's first minute, in words and in a picture, whose path is returned."""
    video = probe_video(options.video_path)
    path = store.speakers_path(options.result_dir, video.path)
    require_writable(path.parent)
    found = list_speakers(
        frame_source(video, LISTED_FRAMES, MOTION_FPS, monitor)(),
        lambda numbers: read_frames_at(video.path, numbers),
        options.speaker or Speaker(),
        ClipSound.of(video),
    )
    if found is None:
        raise no_face(video.path, f"nobody in the first {LISTED_FRAMES // MOTION_FPS} s")
    lines, sheet = found
    with atomic_path(path) as temporary:
        write_rgb(temporary, sheet)
    for line in (*lines, f"{path}: {len(lines) - 1} with their numbers"):
        monitor.say(line)
    return path


def require_face(path: Path, clip: ReconstructedClip, tracked: TrackedClip) -> None:
    """Raise BadInput unless some frame can be given a new mouth."""
    if not clip.track.valid.any():
        raise no_face(path, "; ".join(tracked.describe()) or f"none in {len(clip.track)}")


def no_face(path: Path, found: str) -> BadInput:
    advice = "choose a clip where a larger face looks at the camera"
    return BadInput("no face found", path, "a face in some frame", found, advice)


def frame_source(video: VideoInfo, n_frames: int | None, fps: float, monitor: Monitor) -> FrameSource:
    """Decodes the clip's first frames (None: all), each time from the start."""
    steps = iter(("tracking", "reconstructing"))

    def frames() -> Iterator[np.ndarray]:
        return monitor.track(read_frames(video.path, fps, stop=n_frames), n_frames, next(steps))

    return frames


def track_record(edit: Edit, valid: np.ndarray, frame_index: np.ndarray) -> store.TrackRecord:
    return store.TrackRecord(
        source_name=edit.video.path.name,
        source_bytes=edit.video.path.stat().st_size,
        source_digest=edit.clip_digest,
        width=edit.video.width,
        height=edit.video.height,
        n_source_frames=len(valid),
        n_frames=len(frame_index),
        n_valid=int(valid[frame_index].sum()),
        motion_name=edit.options.motion_path.name,
        weights=edit.pack.name,
        key=edit.key,
        fps=float(edit.rate),
        length=edit.options.length,
    )
