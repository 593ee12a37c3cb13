"""Turn talking clips into training data: face crops, depth images, landmarks, coefficients and sound of each clip.

python -u preprocess_dataset.py --video_dir CLIPS_DIR --result_dir results/preprocessed_dataset

Each clip is one unit of work, written whole or not at all; finished clips are skipped when run again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils import cli, packs, store
from utils.errors import BadInput, StageFailure
from utils.face_options import add_face_arguments, resolve_face_pack, smoothing_of
from utils.types import N_LANDMARKS

if TYPE_CHECKING:
    import torch

    from models.clip_analysis import FaceAnalyser, FittedClip

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Turn talking clips into training data.")
    parser.add_argument("--video_dir", type=Path, required=True, help="folder of clips, one face each")
    parser.add_argument("--result_dir", type=Path, default=Path("results/preprocessed_dataset"))
    add_face_arguments(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    paths = clip_paths(options.video_dir)
    store.require_writable(options.result_dir)
    pack = resolve_face_pack(options)
    device = cli.resolve_device(options.gpu_id)
    from models.clip_analysis import load_analyser

    analyser = load_analyser(pack, device, smoothing_of(options), options.faithful, options.use_opengl)
    print(packs.describe(pack))
    print(analyser.describe())
    failures = []
    for number, path in enumerate(paths, 1):
        directory = options.result_dir / path.stem
        if (directory / store.TRACK_NAME).is_file():
            print(f"{number}/{len(paths)} {path.name}: already there")
            continue
        try:
            n_valid, n_frames = prepare_clip(path, directory, analyser, pack, device)
        except BadInput as error:
            failures.append(str(error))
            print(f"{number}/{len(paths)} {path.name}: left out: {error}", file=sys.stderr)
        else:
            print(f"{number}/{len(paths)} {path.name}: {n_valid} of {n_frames} frames", flush=True)
    if failures:
        raise StageFailure(f"{len(failures)} of {len(paths)} clips could not be prepared, see above")


def clip_paths(video_dir: Path) -> list[Path]:
    if not video_dir.is_dir():
        raise BadInput("no such folder", video_dir, "a folder of clips", "nothing", "check --video_dir")
    paths = sorted(path for path in video_dir.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
    if not paths:
        raise BadInput("no clips", video_dir, " ".join(VIDEO_SUFFIXES), "none", "check --video_dir")
    return paths


def prepare_clip(
    path: Path, directory: Path, analyser: FaceAnalyser, pack: packs.Pack, device: torch.device
) -> tuple[int, int]:
    """Write one clip's training folder; returns its usable and all frames. Raises BadInput if it has no face."""
    from models.clip_analysis import open_tracker
    from utils.audio import load_waveform
    from utils.video import probe_video, read_frames

    video = probe_video(path)
    with open_tracker(pack, device) as tracker:
        clip = analyser.analyse(lambda: read_frames(path), tracker, (video.width, video.height))
    n_frames, n_valid = len(clip.track), int(clip.track.valid.sum())
    if not n_valid:
        raise BadInput("no face found", path, "a face in some frame", f"none in {n_frames}", "leave the clip out")
    store.require_replaceable(directory)
    with store.atomic_dir(directory) as folder:
        write_images(folder, read_frames(path), clip, analyser)
        if video.has_audio:
            store.save_sound(folder, load_waveform(path))
        record = store.TrackRecord(
            source_name=path.name,
            source_bytes=path.stat().st_size,
            width=video.width,
            height=video.height,
            n_source_frames=n_frames,
            n_frames=n_frames,
            n_valid=n_valid,
            motion_name="",
            weights=pack.name,
        )
        store.save_track_record(folder, record)
    return n_valid, n_frames


def write_images(folder: Path, frames: Iterator[np.ndarray], clip: FittedClip, analyser: FaceAnalyser) -> None:
    """Face crops and the depth of the clip's own expressions, both 256 px square, and the arrays."""
    from utils.clips import STORED_SIZE
    from utils.geometry import crop_box, resize_image

    boxes, valid = clip.track.boxes, clip.track.valid
    landmarks = np.zeros((len(clip.track), N_LANDMARKS, 2), np.float32)
    for index, frame in enumerate(frames):
        if not valid[index]:
            continue
        face = analyser.draw(clip.coeffs[index], clip.alignments[index], boxes[index])
        landmarks[index] = face.landmarks
        crop = crop_box(frame, boxes[index])
        shrinking = "area" if min(crop.shape[:2]) > STORED_SIZE else "bilinear"
        store.write_rgb(store.face_path(folder, index), resize_image(crop, STORED_SIZE, STORED_SIZE, shrinking))
        store.write_gray(
            store.depth_path(folder, index), resize_image(face.depth, STORED_SIZE, STORED_SIZE, "bilinear")
        )
    store.save_edit_arrays(folder, boxes, landmarks, clip.coeffs, np.arange(len(valid)), valid)


if __name__ == "__main__":
    cli.run(main)
