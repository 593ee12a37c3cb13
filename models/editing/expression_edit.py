"""Stage 2's edit: the expression of every output frame and its depth image, rendered in parts."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from models.editing.clip_analysis import FaceAnalyser
from models.face3d.closed_mouth import rest_expression
from models.face3d.face_model import EXPRESSION, IDENTITY, FaceModel
from models.motion.expression_style import in_speakers_style
from utils.core.monitor import Monitor
from utils.core.streaming import map_ahead, shared_threads
from utils.core.types import N_EXP, N_LANDMARKS
from utils.files.arrays import load_array, save_array
from utils.files.image_files import write_gray
from utils.media.timeline import resample_motion, settle
from utils.results import store
from utils.results.unfinished import ADVICE, ReconstructedTrack, part_landmarks_path

PART_FRAMES = 250
RESULT_FOLDER = "new"


def frame_motion(
    motion: Float[np.ndarray, "t 64"],
    rate: Fraction,
    clip: ReconstructedTrack,
    frame_index: Int[np.ndarray, " n"],
    face_model: FaceModel,
    with_style: bool,
) -> Float[np.ndarray, "n 64"]:
    """Expressions of the output frames at ``rate``: stage 1's motion (25 Hz), resampled; the mouth at rest after it.

    frame_index: source frame of each output frame. with_style: in the style of the clip's speaker
    (expression_style.py); for the mini pack's face model.
    """
    moved = resample_motion(motion, rate)[: len(frame_index)]
    if with_style:
        coeffs, sources = clip.coeffs.all(), frame_index[: len(moved)]
        expression, identity = coeffs[:, EXPRESSION], coeffs[:, IDENTITY]
        moved = in_speakers_style(moved, expression, identity, clip.valid, sources, face_model, float(rate))
    if len(moved) == len(frame_index):
        return moved
    return settle(moved, len(frame_index), rest_expression(face_model, clip.coeffs, clip.valid), rate)


def with_expression(
    coeffs: Float[np.ndarray, "n 257"], motion: Float[np.ndarray, "n 64"]
) -> Float[np.ndarray, "n 257"]:
    """A copy of the coefficients with the expressions ``motion``."""
    edited = coeffs.copy()
    edited[:, EXPRESSION] = motion[:, :N_EXP]
    return edited


def render_parts(
    folder: Path,
    clip: ReconstructedTrack,
    frame_index: np.ndarray,
    motion: np.ndarray,
    analyser: FaceAnalyser,
    size: tuple[int, int],
    monitor: Monitor,
) -> Path:
    """Render the depth of every output frame and write the arrays; returns the folder that becomes the result.

    Parts that an earlier run finished in ``folder`` are kept. ``size``: width and height of the frames.
    """
    result = folder / RESULT_FOLDER
    valid = clip.valid[frame_index]
    parts = [range(start, min(start + PART_FRAMES, len(valid))) for start in range(0, len(valid), PART_FRAMES)]
    left = [part for part in parts if not part_landmarks_path(folder, part).is_file()]
    rendered = monitor.track(
        _rendered_frames(result, left, clip, frame_index, motion, analyser, size),
        sum(map(len, left)),
        "rendering depth",
    )
    for part in left:
        landmarks = np.stack([next(rendered) for _ in part])
        save_array(part_landmarks_path(folder, part), landmarks)
    blocks = [frame_index[part.start : part.stop] for part in parts]
    store.save_edit_arrays(
        result,
        clip.track.boxes[frame_index],
        (load_array(part_landmarks_path(folder, part), (len(part), N_LANDMARKS, 2), "f", ADVICE) for part in parts),
        (
            with_expression(clip.coeffs[block], motion[part.start : part.stop])
            for block, part in zip(blocks, parts, strict=True)
        ),
        frame_index,
        valid,
        (clip.source_landmarks(block) for block in blocks),
        clip.strength[frame_index],
    )
    return result


def _rendered_frames(
    result: Path,
    parts: list[range],
    clip: ReconstructedTrack,
    frame_index: np.ndarray,
    motion: np.ndarray,
    analyser: FaceAnalyser,
    size: tuple[int, int],
) -> Iterator[np.ndarray]:
    """Write each frame's depth image and yield its landmarks float32 [468, 2]; 0 without a face."""
    alignments, _ = analyser.align(clip.track, size)

    def render(item: tuple[int, int, np.ndarray]) -> np.ndarray:
        index, source, coeffs = item
        if not clip.valid[source]:
            return np.zeros((N_LANDMARKS, 2), np.float32)
        face = analyser.render_face(coeffs, alignments[source], clip.track.boxes[source])
        write_gray(store.depth_path(result, index), face.depth)
        return face.landmarks

    def items() -> Iterator[tuple[int, int, np.ndarray]]:
        for part in parts:
            sources = frame_index[part.start : part.stop]
            coeffs = with_expression(clip.coeffs[sources], motion[part.start : part.stop])
            yield from zip(part, sources, coeffs, strict=True)

    with shared_threads() as n_workers:
        yield from map_ahead(render, items(), n_workers)
