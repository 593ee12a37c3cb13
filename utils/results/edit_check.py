"""Checks of stage 2's result: that it belongs to a clip and a speech, and that its numbers are plausible faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utils.core.errors import BadInput
from utils.core.types import MOTION_FPS, SAMPLE_RATE, SAMPLES_PER_FEATURE, FrameRate, VideoInfo
from utils.files.arrays import ArrayRows
from utils.files.digests import file_digest
from utils.media.timeline import exact_rate, n_result_frames, n_video_frames, rate_text, resolve_rate
from utils.media.windows import upstream_window_count
from utils.results.store import LANDMARKS_NAME, SOURCE_LANDMARKS_NAME, STAGE2_ADVICE, EditResult, load_edit

FARTHEST = 1 << 16  # pixels; no frame is that large
MAX_MISSING_FRAMES = 4  # from stage 1's rounding; more missing frames mean another speech
_BLOCK = 1024  # frames whose landmarks are held at once


def open_edit(directory: Path, video: VideoInfo) -> EditResult:
    """Stage 2's result for this clip; raises BadInput if it is another's, incomplete or impossible."""
    edit = load_edit(directory)
    record = edit.record
    expected = f"{record.source_name}, {record.width}x{record.height}, {record.source_bytes} bytes"
    n_bytes = video.path.stat().st_size
    if (record.width, record.height, record.source_bytes) != (video.width, video.height, n_bytes):
        found = f"{video.path.name}, {video.width}x{video.height}, {n_bytes} bytes"
        raise BadInput("stage 2 result of another clip", directory, expected, found, STAGE2_ADVICE)
    if record.source_digest and record.source_digest != file_digest(video.path):
        found = f"{video.path.name} with other content"
        raise BadInput("stage 2 result of another clip", directory, expected, found, STAGE2_ADVICE)
    if len(edit) == 0 or edit.frame_index.min() < 0 or edit.frame_index.max() >= record.n_source_frames:
        raise BadInput("stage 2 result names no frames of its clip", directory, expected, advice=STAGE2_ADVICE)
    require_possible_faces(edit)
    return edit


def require_rate(fps: FrameRate | None, video: VideoInfo, edit: EditResult) -> None:
    """Raise BadInput unless stage 2's frame rate is that of --fps; None: any rate."""
    made = exact_rate(edit.record.fps)
    if fps is not None and made != resolve_rate(fps, video):
        found = f"{rate_text(made)} frames/s"
        advice = "leave --fps away, or run stage 2 again with it"
        raise BadInput("stage 2 result of another frame rate", edit.directory, f"--fps {fps}", found, advice)


def count_frames(edit: EditResult, n_samples: int, faithful: bool) -> int:
    """Frames of the result, from the speech's length and stage 2's --length; at most those of stage 2's result.

    n_samples: of the speech, at 16 kHz. Raises BadInput if stage 2's result has far fewer, from another speech.
    upstream: one to three more than the speech lasts, one for each audio window
    """
    record, fps = edit.record, exact_rate(edit.record.fps)
    n_wanted = n_result_frames(record.length, n_video_frames(n_samples, SAMPLE_RATE, fps), record.n_source_frames)
    if len(edit) < n_wanted - MAX_MISSING_FRAMES * max(1.0, float(fps) / MOTION_FPS):
        expected = f"{n_wanted} frames for this speech"
        raise BadInput("stage 2 result of a shorter speech", edit.directory, expected, str(len(edit)), STAGE2_ADVICE)
    if faithful and record.length not in ("cut", "silence"):
        n_wanted = upstream_window_count(n_samples // SAMPLES_PER_FEATURE, fps)
    return min(len(edit), n_wanted)


def require_possible_faces(edit: EditResult) -> None:
    """Raise BadInput for empty or enormous boxes, and landmarks that are not finite or far away, of valid frames."""
    boxes = edit.boxes[edit.valid]
    if (boxes[:, 2:] <= boxes[:, :2]).any() or (np.abs(boxes.astype(np.int64)) > FARTHEST).any():
        expected = f"x1 < x2 and y1 < y2, at most {FARTHEST} pixels from the frame"
        raise BadInput("stage 2 result has an impossible box", edit.directory, expected, advice=STAGE2_ADVICE)
    _require_near(edit.landmarks, edit.valid, edit.directory / LANDMARKS_NAME)
    _require_near(edit.source_landmarks, edit.valid, edit.directory / SOURCE_LANDMARKS_NAME)


def _require_near(landmarks: ArrayRows, valid: np.ndarray, path: Path) -> None:
    for first in range(0, len(valid), _BLOCK):
        points = landmarks[first : first + _BLOCK][valid[first : first + _BLOCK]]
        if not (np.abs(points) <= FARTHEST).all():  # also true for NaN
            expected, found = f"finite numbers up to {FARTHEST}", "others"
            raise BadInput("impossible landmarks", path, expected, found, STAGE2_ADVICE)
