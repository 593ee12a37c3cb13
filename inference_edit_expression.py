"""Stage 2: put a new expression on the face of a clip and draw its depth.

python inference_edit_expression.py --infer_video_path CLIP --infer_exp_coeff_path results/a2m/SPEECH.npy \
    --infer_result_dir results/edit_expression
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.core import cli
from utils.core.errors import BadInput
from utils.core.types import MOTION_FPS, N_LANDMARKS, VideoInfo
from utils.files.atomic import atomic_path, require_writable, swap_in
from utils.files.image_files import write_rgb
from utils.files.work_folder import replacing
from utils.media.time_options import add_length_argument, add_rate_argument, resolve_rate
from utils.media.timeline import n_motion_frames, n_needed_frames, n_result_frames, shown_frames
from utils.people.speaker import add_speaker_arguments
from utils.results import store
from utils.weights import packs
from utils.weights.face_options import add_face_arguments, resolve_face_pack, smoothing_of

if TYPE_CHECKING:
    import torch

    from models.editing.clip_analysis import FaceAnalyser, FittedClip, FrameSource
    from models.editing.clip_store import FoundClip
    from models.tracking.clip_tracking import TrackedClip

NOT_IN_KEY = (  # files count by their content, and the rest changes nothing in the result
    *("infer_video_path", "infer_exp_coeff_path", "infer_result_dir", "gpu_id", "force", "list_speakers"),
    *(
        "bfm_folder",
        "checkpoints_dir",
        "name",
        "epoch",
        "dwpose_model_path",
        "dwpose_config_file",
        "whisper_model_path",
    ),
)
LISTED_FRAMES = 60 * MOTION_FPS  # that --list-speakers looks at


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Put a new expression on the face of a clip and draw its depth.")
    parser.add_argument("--infer_video_path", type=Path, required=True, help="the clip to edit")
    parser.add_argument("--infer_exp_coeff_path", type=Path, help="expression .npy of stage 1, [T, 64]")
    parser.add_argument(
        "--infer_result_dir",
        type=Path,
        default=Path("results/edit_expression"),
        help="gets a folder <clip>/<speech> (default results/edit_expression)",
    )
    parser.add_argument(
        "--force", action="store_true", help="do everything anew, even if the result or parts are there"
    )
    parser.add_argument(
        "--style",
        choices=("auto", "off"),
        default="auto",
        help="auto (default): the motion takes the person's own resting face, liveliness and slow changes of "
        "expression from the clip, with the mini pack's face model; off: as stage 1 made it, as with --faithful or BFM",
    )
    add_rate_argument(parser, str(MOTION_FPS), "of the result: 25, or the clip's own (source); default 25")
    add_length_argument(parser)
    add_speaker_arguments(parser)
    add_face_arguments(parser)
    options = parser.parse_args(arguments)
    if options.infer_exp_coeff_path is None and not options.list_speakers:
        parser.error("the following arguments are required: --infer_exp_coeff_path")
    return options


@dataclass(frozen=True)
class Edit:
    """What is asked for, with its files read and its networks loaded.

    motion: float32 [T, 64] at 25 Hz. rate: frames per second of the result. clip_digest: the clip's SHA-256.
    """

    options: argparse.Namespace
    video: VideoInfo
    clip_digest: str
    motion: np.ndarray
    rate: Fraction
    pack: packs.Pack
    device: torch.device
    analyser: FaceAnalyser
    result_dir: Path
    key: str

    @property
    def n_speech(self) -> int:
        """Frames of the result that the speech lasts."""
        return n_motion_frames(len(self.motion), self.rate)

    @property
    def has_style(self) -> bool:
        """Whether the motion takes the person's manner."""
        is_mini = self.analyser.face_model.n_vertices == N_LANDMARKS
        return self.options.style == "auto" and not self.options.faithful and is_mini

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames."""
        return self.video.width, self.video.height


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.list_speakers:
        show_speakers(options)
        return
    edit = open_edit(options)
    if options.force or not is_up_to_date(edit.result_dir, edit.key):
        write_result(edit)
        return
    from utils.files.work_folder import drop_parts

    drop_parts(edit.result_dir, edit.key)
    print(f"{edit.result_dir} is up to date")


def open_edit(options: argparse.Namespace) -> Edit:
    """Read and check what is given, load the networks, and say which they are."""
    from utils.files.digests import file_digest, require_unchanged

    motion_path, clip_path = options.infer_exp_coeff_path, options.infer_video_path
    motion_digest = file_digest(motion_path) if motion_path.is_file() else ""
    motion = store.load_motion(motion_path)
    from models.editing.clip_analysis import load_analyser
    from utils.media.video import probe_video

    clip_digest = file_digest(clip_path) if clip_path.is_file() else ""
    video = probe_video(clip_path)
    rate = resolve_rate(options.fps, video)
    result_dir = store.edit_dir(options.infer_result_dir, video.path, motion_path)
    store.require_replaceable(result_dir)
    pack = resolve_face_pack(options)
    device = cli.resolve_device(options.gpu_id)
    analyser = load_analyser(pack, device, smoothing_of(options), options.faithful, options.use_opengl)
    print(packs.describe(pack))
    print(analyser.describe())

    key = result_key(options, pack, device)
    require_unchanged(motion_path, motion_digest)  # the key counts what has been read
    return Edit(options, video, clip_digest, motion, rate, pack, device, analyser, result_dir, key)


def write_result(edit: Edit) -> None:
    """Follow and reconstruct the face, move it, and draw its depth, but for what an earlier run has left."""
    from models.editing.clip_motion import motion_of_frames
    from models.editing.clip_store import RESULT_FOLDER, draw_parts, stored_clip
    from utils.files.digests import require_unchanged
    from utils.files.work_folder import work_folder

    options = edit.options
    with (
        replacing(edit.result_dir),
        work_folder(edit.result_dir, edit.key, options.force, [RESULT_FOLDER]) as folder,
    ):
        clip = stored_clip(folder, edit.analyser, edit.size, lambda: find_face(edit))
        n_frames = n_result_frames(options.length, edit.n_speech, len(clip))
        index = shown_frames(options.length, len(clip), n_frames)
        motion = motion_of_frames(edit.motion, edit.rate, clip, index, edit.analyser.face_model, edit.has_style)
        new = draw_parts(folder, clip, index, motion, edit.analyser)
        require_unchanged(edit.video.path, edit.clip_digest)
        record = track_record(edit, clip.valid, index)
        store.save_track_record(new, record)
        swap_in(new, edit.result_dir)
    for line in clip.summary:
        print(line)
    print(f"{edit.result_dir}: {record.n_frames} frames, {record.n_frames - record.n_valid} of them untouched")


def find_face(edit: Edit) -> FoundClip:
    """Follow the speaker's face through the clip and reconstruct it. Raises BadInput where there is none."""
    from models.editing.clip_store import FoundClip
    from models.tracking.clip_tracking import track_clip
    from models.tracking.speaker_choice import ClipSound
    from utils.files.work_folder import parts_folder

    options, rate = edit.options, float(edit.rate)
    frames = frame_source(edit.video, n_needed_frames(options.length, edit.n_speech), rate)
    tracked = track_clip(
        frames(),
        edit.pack,
        edit.device,
        ClipSound.of(edit.video),
        options.speaker,
        smoothing_of(options),
        options.faithful,
        rate,
        parts_folder(edit.result_dir),
        lambda n: frame_source(edit.video, n, rate)(),
    )
    clip = edit.analyser.fit(tracked.track, frames, edit.size)
    require_face(edit.video.path, clip, tracked)
    return FoundClip(clip, tracked.strength(clip.track.valid), tracked.describe())


def result_key(options: argparse.Namespace, pack: packs.Pack, device: torch.device) -> str:
    """What the result is made of; every option counts but those in NOT_IN_KEY."""
    import torch

    from utils.results.content_key import content_key, pack_paths

    values = {name: value for name, value in vars(options).items() if name not in NOT_IN_KEY}
    values |= {"pack": pack.name, "device": device.type, "threads": torch.get_num_threads()}
    weights = pack_paths(pack, without=("audio2motion", "hubert", "whisper", "vae", "unet", "refiner", "face_parsing"))
    given = {"clip": options.infer_video_path, "motion": options.infer_exp_coeff_path}
    return content_key(values, given | weights)


def is_up_to_date(result_dir: Path, key: str) -> bool:
    try:
        return store.load_edit(result_dir).record.key == key
    except BadInput:  # absent, incomplete or of another version
        return False


def show_speakers(options: argparse.Namespace) -> None:
    """--list-speakers: who is in the clip's first minute, in words and in a picture."""
    from models.tracking.speaker_choice import ClipSound, list_speakers
    from utils.media.video import probe_video, read_frames_at
    from utils.people.speaker import Speaker

    video = probe_video(options.infer_video_path)
    path = store.speakers_path(options.infer_result_dir, video.path)
    require_writable(path.parent)
    frames = frame_source(video, LISTED_FRAMES, MOTION_FPS)()
    found = list_speakers(
        frames, lambda numbers: read_frames_at(video.path, numbers), options.speaker or Speaker(), ClipSound.of(video)
    )
    if found is None:
        raise no_face(video.path, f"nobody in the first {LISTED_FRAMES // MOTION_FPS} s")
    lines, sheet = found
    with atomic_path(path) as temporary:
        write_rgb(temporary, sheet)
    print("\n".join([*lines, f"{path}: {len(lines) - 1} with their numbers"]))


def require_face(path: Path, clip: FittedClip, tracked: TrackedClip) -> None:
    """Raise BadInput unless some frame can be given a new mouth."""
    if not clip.track.valid.any():
        raise no_face(path, "; ".join(tracked.describe()) or f"none in {len(clip.track)}")


def no_face(path: Path, found: str) -> BadInput:
    advice = "choose a clip where a larger face looks at the camera"
    return BadInput("no face found", path, "a face in some frame", found, advice)


def frame_source(video: VideoInfo, n_frames: int | None, fps: float) -> FrameSource:
    """Decodes the clip's first frames (None: all), each time from the start."""
    from utils.media.video import read_frames

    descriptions = iter(("tracking", "reconstructing"))
    return lambda: cli.progress(read_frames(video.path, fps, stop=n_frames), n_frames, next(descriptions))


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
        motion_name=edit.options.infer_exp_coeff_path.name,
        weights=edit.pack.name,
        key=edit.key,
        fps=float(edit.rate),
        length=edit.options.length,
    )


if __name__ == "__main__":
    cli.run(main)
