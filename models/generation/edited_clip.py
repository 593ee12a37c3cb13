"""Stage 2's result and its clip → frames for the networks, and the frames that show what the person looks like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from models.generation.face_crops import FaceEdit, References, SourceFrame, fine_crop
from utils.core.errors import BadInput
from utils.imaging.images import stack_images
from utils.imaging.references import choose_references
from utils.media.video import read_frames_at
from utils.results.store import STAGE2_ADVICE, EditResult, depth_path


def choose_shown(
    edit: EditResult, video_path: Path, n_frames: int, size: int, composed: bool
) -> tuple[References, list[int | None]]:
    """The frames that show what the face looks like, at ``size``, and each frame's row of them."""
    boxes, valid = edit.boxes[:n_frames], edit.valid[:n_frames]
    chosen = choose_references(edit.source_landmarks, (boxes[:, 2:] - boxes[:, :2]).astype(float), valid)
    shown = np.unique(chosen[valid])
    images = read_frames_at(video_path, edit.frame_index[shown].tolist(), edit.record.fps)
    crops, scales = zip(
        *(fine_crop(image, boxes[index], size) for index, image in zip(shown, images, strict=True)), strict=True
    )
    landmarks = edit.source_landmarks[shown] * np.stack(scales)[:, None]
    rows = [int(np.searchsorted(shown, index)) if index >= 0 else None for index in chosen]
    return References(stack_images(crops), landmarks, composed), rows


def source_frames(
    edit: EditResult,
    video_path: Path,
    references: Sequence[int | None],
    pose_driven: bool,
    parts: Sequence[range] | None = None,
) -> Iterator[SourceFrame]:
    """Decode the clip again, frame by frame, each with what stage 2 says of it and the row of its reference.

    Each part of the result is decoded by itself, so that its frames do not depend on whether those before are there.
    """
    for part in [range(len(references))] if parts is None else parts:
        images = read_frames_at(video_path, edit.frame_index[part.start : part.stop].tolist(), edit.record.fps)
        for index, image in zip(part, images, strict=True):
            face = edited_face(edit, index, pose_driven) if edit.valid[index] else None
            yield SourceFrame(image, face, references[index])


def edited_face(edit: EditResult, index: int, pose_driven: bool) -> FaceEdit:
    """What stage 2 says of one frame's face; raises BadInput if its depth image has another size than its box."""
    x1, y1, x2, y2 = edit.boxes[index].tolist()
    depth = edit.depth(index) if pose_driven else None
    if depth is not None and depth.shape != (y2 - y1, x2 - x1):
        path, found = depth_path(edit.directory, index), f"{depth.shape[1]}x{depth.shape[0]}"
        raise BadInput("depth image of another size than its box", path, f"{x2 - x1}x{y2 - y1}", found, STAGE2_ADVICE)
    strength = float(edit.strength[index])
    return FaceEdit(edit.boxes[index], edit.landmarks[index], edit.source_landmarks[index], depth, strength)
