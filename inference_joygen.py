"""Stage 3: give a clip the mouth that stage 2 drew and the speech it says.

python -u inference_joygen.py --audio_path SPEECH --video_path CLIP --intermediate_dir results/edit_expression \
    --enable_pose_driven --result_dir results/talk
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils import cli, packs, store
from utils.errors import BadInput
from utils.timeline import n_video_frames
from utils.types import MOTION_FPS, SAMPLE_RATE, SAMPLES_PER_FEATURE, VideoInfo
from utils.version import VERSION

if TYPE_CHECKING:
    import torch

    from models.talking_face import FaceEdit, SourceFrame, TalkingFrame
    from utils.video import VideoWriter

DTYPES = ("auto", "float32", "bfloat16")
MAX_MISSING_FRAMES = 4  # stage 1 rounds the speech's length; anything more is another speech
STAGE2_ADVICE = "run inference_edit_expression.py again for this clip and speech"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Give a clip the mouth that stage 2 drew and the speech it says.")
    parser.add_argument("--audio_path", type=Path, required=True, help="the speech, any sound file")
    parser.add_argument("--video_path", type=Path, required=True, help="the clip that stage 2 edited")
    parser.add_argument("--intermediate_dir", type=Path, default=Path("results/edit_expression"), help="of stage 2")
    parser.add_argument("--result_dir", type=Path, default=Path("results/talk"), help="gets <clip>#<speech>.mp4")
    parser.add_argument("--enable_pose_driven", action="store_true", help="follow stage 2's depth, not only the sound")
    parser.add_argument("--unet_model_path", type=Path, help="folder of the generator (default: the pack's)")
    parser.add_argument("--vae_model_path", type=Path, help="folder of the VAE (default: the pack's)")
    parser.add_argument("--whisper_model_path", type=Path, help="Whisper's .pt (default: the pack's)")
    parser.add_argument("--img_size", type=int, help="side of the face crop in pixels (default: the pack's)")
    parser.add_argument("--fps", type=float, default=MOTION_FPS, help=f"only {MOTION_FPS}, the rate of stage 2")
    parser.add_argument("--batch_size", type=int, default=8, help="frames at once (default 8)")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="auto",
        help="numbers of generator and VAE (auto: 16 bits where the device is made for them; float32 if --faithful)",
    )
    parser.add_argument(
        "--reference",
        choices=("auto", "same"),
        help="what shows the face's looks: frames with an open mouth and a close pose (auto, default), or each itself",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the latents that --faithful draws (default 0)")
    parser.add_argument("--faithful", action="store_true", help="upstream's behaviour in every point of FIDELITY.md")
    parser.add_argument("--debug", action="store_true", help="write a contact sheet (.png) beside the video")
    cli.add_device_argument(parser)
    options = parser.parse_args(arguments)
    options.reference = options.reference or ("same" if options.faithful else "auto")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    check_numbers(options)
    from utils.audio import load_waveform
    from utils.video import VideoWriter, probe_video

    video = probe_video(options.video_path)
    wave = load_waveform(options.audio_path)
    edit = open_edit(options, video)
    n_frames = count_frames(edit, len(wave), options.faithful)
    result_path = store.talk_path(options.result_dir, options.video_path, options.audio_path)
    store.require_writable(result_path.parent)
    pack = packs.resolve_pack(
        unet=options.unet_model_path, vae=options.vae_model_path, whisper=options.whisper_model_path
    )
    print(packs.describe(pack))

    frames = make_frames(options, pack, edit, wave, n_frames)
    start = time.perf_counter()
    writer = VideoWriter(result_path, MOTION_FPS, options.audio_path, describe_result(pack), picture=video.picture)
    write_result(writer, frames, n_frames, result_path.with_suffix(".png") if options.debug else None)
    speed = n_frames / (time.perf_counter() - start)
    n_untouched = int((~edit.valid[:n_frames]).sum())
    print(f"{result_path}: {n_frames} frames, {n_untouched} passed through without a face, {speed:.1f} frames/s")


def check_numbers(options: argparse.Namespace) -> None:
    if options.fps != MOTION_FPS:
        advice = "leave --fps away; the clip is resampled"
        raise BadInput("frame rate not possible", None, f"--fps {MOTION_FPS}", f"{options.fps:g}", advice)
    if options.batch_size < 1:
        raise BadInput("batch size not possible", None, "--batch_size of at least 1", str(options.batch_size))


def open_edit(options: argparse.Namespace, video: VideoInfo) -> store.EditResult:
    """Stage 2's result for this clip and speech; raises BadInput if it is another's or incomplete."""
    directory = store.edit_dir(options.intermediate_dir, options.video_path, options.audio_path)
    edit = store.load_edit(directory)
    record = edit.record
    expected = f"{record.source_name}, {record.width}x{record.height}, {record.source_bytes} bytes"
    n_bytes = video.path.stat().st_size
    if (record.width, record.height, record.source_bytes) != (video.width, video.height, n_bytes):
        found = f"{video.path.name}, {video.width}x{video.height}, {n_bytes} bytes"
        raise BadInput("stage 2 result of another clip", directory, expected, found, STAGE2_ADVICE)
    if len(edit) == 0 or edit.frame_index.min() < 0 or edit.frame_index.max() >= record.n_source_frames:
        raise BadInput("stage 2 result names no frames of its clip", directory, expected, advice=STAGE2_ADVICE)
    boxes = edit.boxes[edit.valid]
    if (boxes[:, 2:] <= boxes[:, :2]).any():
        raise BadInput("stage 2 result has an empty box", directory, "x1 < x2 and y1 < y2", advice=STAGE2_ADVICE)
    return edit


def count_frames(edit: store.EditResult, n_samples: int, faithful: bool) -> int:
    """Frames of the result: as many as the speech lasts, and no more than stage 2 made.

    upstream: one to three more than the speech lasts, as many as there are audio windows
    """
    n_speech = n_video_frames(n_samples, SAMPLE_RATE)
    if len(edit) < n_speech - MAX_MISSING_FRAMES:
        expected = f"{n_speech} frames for this speech"
        raise BadInput("stage 2 result of a shorter speech", edit.directory, expected, str(len(edit)), STAGE2_ADVICE)
    if faithful:
        from utils.windows import upstream_window_count

        return min(len(edit), upstream_window_count(n_samples // SAMPLES_PER_FEATURE))
    return min(len(edit), n_speech)


def make_frames(
    options: argparse.Namespace, pack: packs.Pack, edit: store.EditResult, wave: np.ndarray, n_frames: int
) -> Iterator[TalkingFrame]:
    """Load the networks; the frames are decoded, generated and pasted as they are asked for."""
    import torch

    from models.face_parsing import FaceParsing
    from models.talking_face import load_talking_face, talking_frames
    from utils.windows import stream_windows

    device = cli.resolve_device(options.gpu_id)
    dtype = resolve_dtype(options, device)
    size = pack.image_size if options.img_size is None else options.img_size
    sampling = torch.Generator().manual_seed(options.seed) if options.faithful else None
    talking_face, encoder = load_talking_face(pack.unet, pack.vae, pack.whisper, size, device, dtype, sampling)
    parse_face = FaceParsing.load(pack.face_parsing, device) if pack.face_parsing else None
    windows = stream_windows(encoder.encode_segments(wave), n_frames, MOTION_FPS, options.batch_size)
    references, rows = None, [None] * n_frames
    if options.reference == "auto" and edit.valid[:n_frames].any():
        crops, rows = reference_crops(edit, options.video_path, n_frames, size)
        references = talking_face.encode_references(crops)
    sources = source_frames(edit, options.video_path, rows, options.enable_pose_driven)
    return talking_frames(sources, windows, talking_face, parse_face, options.batch_size, options.faithful, references)


def reference_crops(
    edit: store.EditResult, video_path: Path, n_frames: int, size: int
) -> tuple[torch.Tensor, list[int | None]]:
    """Crops uint8 [k, 3, size, size] of the frames that show what the face looks like, and each frame's row of them."""
    from utils.geometry import crop_box, resize_image
    from utils.images import stack_images
    from utils.references import choose_references
    from utils.video import read_frames_at

    boxes, valid = edit.boxes[:n_frames], edit.valid[:n_frames]
    chosen = choose_references(edit.source_landmarks[:n_frames], (boxes[:, 2:] - boxes[:, :2]).astype(float), valid)
    shown = np.unique(chosen[valid])
    images = read_frames_at(video_path, edit.frame_index[shown].tolist())
    crops = [
        resize_image(crop_box(image, boxes[index]), size, size, "lanczos")
        for index, image in zip(shown, images, strict=True)
    ]
    return stack_images(crops), [int(np.searchsorted(shown, index)) if index >= 0 else None for index in chosen]


def resolve_dtype(options: argparse.Namespace, device: torch.device) -> torch.dtype:
    """What --dtype names; auto: the device's fastest faithful one, and float32 where upstream's is asked for."""
    import torch

    if options.dtype != "auto":
        return getattr(torch, options.dtype)
    return torch.float32 if options.faithful else cli.resolve_dtype(device)


def source_frames(
    edit: store.EditResult, video_path: Path, references: Sequence[int | None], pose_driven: bool
) -> Iterator[SourceFrame]:
    """Decode the clip again, frame by frame, each with what stage 2 says of it and the row of its reference."""
    from models.talking_face import SourceFrame
    from utils.video import read_frames_at

    images = read_frames_at(video_path, edit.frame_index[: len(references)].tolist())
    for index, image in enumerate(images):
        face = face_edit(edit, index, pose_driven) if edit.valid[index] else None
        yield SourceFrame(image, face, references[index])


def face_edit(edit: store.EditResult, index: int, pose_driven: bool) -> FaceEdit:
    from models.talking_face import FaceEdit

    x1, y1, x2, y2 = edit.boxes[index].tolist()
    depth = edit.depth(index) if pose_driven else None
    if depth is not None and depth.shape != (y2 - y1, x2 - x1):
        path, found = store.depth_path(edit.directory, index), f"{depth.shape[1]}x{depth.shape[0]}"
        raise BadInput("depth image of another size than its box", path, f"{x2 - x1}x{y2 - y1}", found, STAGE2_ADVICE)
    strength = float(edit.strength[index])
    return FaceEdit(edit.boxes[index], edit.landmarks[index], edit.source_landmarks[index], depth, strength)


def write_result(writer: VideoWriter, frames: Iterator[TalkingFrame], n_frames: int, sheet_path: Path | None) -> None:
    """Write the video, and a contact sheet if its path is given."""
    from utils.contact_sheet import draw_sheet, spread_frames

    shown = spread_frames(n_frames) if sheet_path else []
    columns = []
    with writer:
        for index, frame in enumerate(cli.progress(frames, n_frames, "drawing faces")):
            writer.write(frame.image)
            if index in shown:
                columns.append(sheet_column(frame))
    if sheet_path:
        with store.atomic_path(sheet_path) as temporary:
            store.write_rgb(temporary, draw_sheet(columns, [f"frame {index}" for index in shown]))


def sheet_column(frame: TalkingFrame) -> list[np.ndarray]:
    """Source, depth and output around the face."""
    from utils.contact_sheet import cut_tile, view_around

    image, face = frame.source.image, frame.source.face
    view = view_around(image.shape[:2], None if face is None else face.box)
    depth, corner = np.zeros((1, 1), np.uint8), np.zeros(2, int)
    if face is not None and face.depth is not None:
        depth, corner = face.depth, face.box[:2]
    depth_view = tuple(np.subtract(view, np.tile(corner, 2)).tolist())
    return [cut_tile(image, view), cut_tile(depth, depth_view), cut_tile(frame.image, view)]


def describe_result(pack: packs.Pack) -> dict[str, str]:
    """The mp4's metadata: that mouth and speech are synthetic, and what made them."""
    from utils.checkpoints import sha256, weights_file

    digest = sha256(weights_file(pack.unet))[:12]
    return {
        "title": "Talking video with synthetic mouth and speech",
        "comment": f"Mouth and speech are synthetic, made by joygen {VERSION}, weights {pack.name} (unet {digest})",
    }


if __name__ == "__main__":
    cli.run(main)
