"""Stage 2: put a new expression on the face of a clip and draw its depth.

python inference_edit_expression.py --infer_video_path CLIP --infer_exp_coeff_path results/a2m/SPEECH.npy \
    --infer_result_dir results/edit_expression
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils import cli, packs, store
from utils.errors import BadInput
from utils.face_options import add_face_arguments, resolve_face_pack, smoothing_of
from utils.timeline import ping_pong
from utils.types import N_LANDMARKS, VideoInfo

if TYPE_CHECKING:
    from models.clip_analysis import FaceAnalyser, FittedClip, FrameSource


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Put a new expression on the face of a clip and draw its depth.")
    parser.add_argument("--infer_video_path", type=Path, required=True, help="the clip to edit")
    parser.add_argument("--infer_exp_coeff_path", type=Path, required=True, help="expression .npy of stage 1, [T, 64]")
    parser.add_argument("--infer_result_dir", type=Path, default=Path("results/edit_expression"))
    add_face_arguments(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    motion = store.load_motion(options.infer_exp_coeff_path)
    from models.clip_analysis import load_analyser, open_tracker
    from utils.video import probe_video

    video = probe_video(options.infer_video_path)
    result_dir = store.edit_dir(options.infer_result_dir, video.path, options.infer_exp_coeff_path)
    store.require_replaceable(result_dir)
    pack = resolve_face_pack(options)
    device = cli.resolve_device(options.gpu_id)
    analyser = load_analyser(pack, device, smoothing_of(options), options.faithful, options.use_opengl)
    print(packs.describe(pack))
    print(analyser.describe())

    with open_tracker(pack, device) as tracker:
        clip = analyser.analyse(frame_source(video, len(motion)), tracker, (video.width, video.height))
    if not clip.track.valid.any():
        advice = "choose a clip where a larger face looks at the camera"
        raise BadInput("no face found", video.path, "a face in some frame", f"none in {len(clip.track)}", advice)

    with store.atomic_dir(result_dir) as directory:
        record = track_record(video, options.infer_exp_coeff_path, clip, len(motion), pack)
        write_edit(directory, clip, motion, analyser)
        store.save_track_record(directory, record)
    print(f"{result_dir}: {record.n_frames} frames, {record.n_frames - record.n_valid} without a face")


def frame_source(video: VideoInfo, n_frames: int) -> FrameSource:
    """Decodes the clip's first frames, each time from the start."""
    from utils.video import read_frames

    descriptions = iter(("tracking", "reconstructing"))
    return lambda: cli.progress(read_frames(video.path, stop=n_frames), n_frames, next(descriptions))


def write_edit(directory: Path, clip: FittedClip, motion: np.ndarray, analyser: FaceAnalyser) -> None:
    """Draw every output frame's depth and write the arrays of the stage-2 folder."""
    index = ping_pong(len(clip.track), len(motion))
    valid = clip.track.valid[index]
    coeffs = clip.with_expression(index, motion)
    landmarks = np.zeros((len(index), N_LANDMARKS, 2), np.float32)
    for i in cli.progress(np.flatnonzero(valid), int(valid.sum()), "drawing depth"):
        source = index[i]
        face = analyser.draw(coeffs[i], clip.alignments[source], clip.track.boxes[source])
        landmarks[i] = face.landmarks
        store.write_gray(store.depth_path(directory, i), face.depth)
    boxes = clip.track.boxes[index]
    source_landmarks = clip.track.landmarks[index, :, :2] - boxes[:, None, :2]
    store.save_edit_arrays(directory, boxes, landmarks, coeffs, index, valid, source_landmarks, valid)


def track_record(
    video: VideoInfo, motion_path: Path, clip: FittedClip, n_frames: int, pack: packs.Pack
) -> store.TrackRecord:
    n_source = len(clip.track)
    return store.TrackRecord(
        source_name=video.path.name,
        source_bytes=video.path.stat().st_size,
        width=video.width,
        height=video.height,
        n_source_frames=n_source,
        n_frames=n_frames,
        n_valid=int(clip.track.valid[ping_pong(n_source, n_frames)].sum()),
        motion_name=motion_path.name,
        weights=pack.name,
    )


if __name__ == "__main__":
    cli.run(main)
