"""Stage 3: give a clip the mouth that stage 2 drew and the speech it says.

python -u inference_joygen.py --audio_path SPEECH --video_path CLIP --intermediate_dir results/edit_expression \
    --enable_pose_driven --result_dir results/talk
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from utils.core import cli
from utils.core.errors import BadInput
from utils.core.types import SAMPLE_RATE, VERSION, VideoInfo
from utils.files.atomic import require_writable
from utils.files.work_folder import reading
from utils.media.time_options import add_rate_argument
from utils.media.timeline import exact_rate
from utils.results import store
from utils.weights import packs

if TYPE_CHECKING:
    import torch

    from models.generation.talking_face import TalkingFrame
    from utils.media.speech import Speech

DTYPES = ("auto", "float32", "bfloat16")
VAE_KINDS = ("full", "tiny")
KEY_TAG = "description"  # the video's tag that says what it is made of
NOT_IN_KEY = (  # files count by their content, and the rest changes nothing in the video
    *("audio_path", "video_path", "intermediate_dir", "result_dir", "gpu_id", "force", "clean"),
    *("unet_model_path", "vae_model_path", "whisper_model_path"),
    "fps",  # the rate stands in stage 2's record
    "debug",  # the sheet is beside the video
)
SILENCE_HEARD = SAMPLE_RATE  # samples after the speech; the states that follow repeat their last


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Give a clip the mouth that stage 2 drew and the speech it says.")
    parser.add_argument("--audio_path", type=Path, required=True, help="the speech, any sound file")
    parser.add_argument("--video_path", type=Path, required=True, help="the clip that stage 2 edited")
    parser.add_argument(
        "--intermediate_dir",
        type=Path,
        default=Path("results/edit_expression"),
        help="stage 2's --infer_result_dir (default results/edit_expression)",
    )
    parser.add_argument(
        "--result_dir", type=Path, default=Path("results/talk"), help="gets <clip>#<speech>.mp4 (default results/talk)"
    )
    parser.add_argument("--enable_pose_driven", action="store_true", help="follow stage 2's depth, not only the sound")
    parser.add_argument("--unet_model_path", type=Path, help="folder of the generator (default: the pack's)")
    parser.add_argument("--vae_model_path", type=Path, help="folder of the VAE (default: the pack's)")
    parser.add_argument(
        "--vae",
        choices=VAE_KINDS,
        default=VAE_KINDS[0],
        help="tiny: diffusers' AutoencoderTiny from --vae_model_path, faster and an approximation (default full)",
    )
    parser.add_argument("--whisper_model_path", type=Path, help="Whisper's .pt (default: the pack's)")
    parser.add_argument("--img_size", type=int, help="side of the face crop in pixels (default: the pack's)")
    add_rate_argument(
        parser, None, "checked: the rate of stage 2's result, 25 or the clip's own (source); default that"
    )
    parser.add_argument("--batch_size", type=int, help="frames at once (default 8; on a GPU up to 32 by its memory)")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="auto",
        help="numbers of generator and VAE (auto: 16 bits where the device is made for them; float32 if --faithful)",
    )
    parser.add_argument(
        "--reference",
        choices=("auto", "composed", "open", "same"),
        help="what shows the face's looks: its frame bent to the new lips with another frame's teeth (composed), "
        "frames with an open mouth and a close pose (open), each frame itself (same, default with --faithful), or what "
        "the generator was trained with (auto, default)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the latents that --faithful draws (default 0)")
    parser.add_argument("--faithful", action="store_true", help="upstream's behaviour in every point of FIDELITY.md")
    parser.add_argument("--debug", action="store_true", help="write a contact sheet (.png) beside the video")
    parser.add_argument("--force", action="store_true", help="make all parts of the video anew, even if they are there")
    parser.add_argument("--clean", action="store_true", help="remove stage 2's folder of this speech in the end")
    cli.add_device_argument(parser)
    options = parser.parse_args(arguments)
    options.reference = options.reference or ("same" if options.faithful else "auto")
    return options


@dataclass(frozen=True)
class Talk:
    """What is asked for, with its files read. n_frames: of the result."""

    options: argparse.Namespace
    video: VideoInfo
    speech: Speech
    edit: store.EditResult
    n_frames: int
    pack: packs.Pack
    result_path: Path
    key: str

    @property
    def parts_key(self) -> str:
        """Parts that are made for a sheet have more beside them."""
        return self.sheet_key if self.options.debug else self.key

    @property
    def sheet_key(self) -> str:
        return f"{self.key} and a sheet"


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    check_numbers(options)
    with reading(store.edit_dir(options.intermediate_dir, options.video_path, options.audio_path)) as directory:
        talk = open_talk(options, directory)
        if options.force or not is_up_to_date(talk.result_path, talk.key, options.debug):
            write_result(talk)
        else:
            from utils.files.work_folder import drop_parts

            drop_parts(talk.result_path, talk.key, talk.sheet_key)
            print(f"{talk.result_path} is up to date")
        if options.clean:
            store.remove_edit(directory)


def open_talk(options: argparse.Namespace, edit_dir: Path) -> Talk:
    """Read and check what is given, and say which networks serve; they are loaded once frames are asked for."""
    from utils.media.speech import Speech
    from utils.media.video import probe_video
    from utils.results.edit_check import count_frames, open_edit, require_rate

    video = probe_video(options.video_path)
    speech = Speech.open(options.audio_path)
    edit = open_edit(edit_dir, video)
    require_rate(options.fps, video, edit)
    n_frames = count_frames(edit, speech.n_samples, options.faithful)
    result_path = store.talk_path(options.result_dir, options.video_path, options.audio_path)
    require_writable(result_path.parent)
    pack = packs.resolve_pack(
        unet=options.unet_model_path, vae=options.vae_model_path, whisper=options.whisper_model_path
    )
    print(packs.describe(pack))
    options.batch_size = options.batch_size or cli.resolve_batch_size(cli.resolve_device(options.gpu_id))
    return Talk(options, video, speech, edit, n_frames, pack, result_path, result_key(options, pack, edit))


def result_key(options: argparse.Namespace, pack: packs.Pack, edit: store.EditResult) -> str:
    """What the video is made of; every option counts but those in NOT_IN_KEY."""
    import torch

    from utils.results.content_key import content_key, pack_paths

    device = cli.resolve_device(options.gpu_id)
    values = {name: value for name, value in vars(options).items() if name not in NOT_IN_KEY}
    values |= {"pack": pack.name, "size": pack.image_size, "device": device.type, "threads": torch.get_num_threads()}
    values["dtype"] = str(resolve_dtype(options, device))
    weights = pack_paths(pack, without=("audio2motion", "hubert", "face_model", "recon", "dwpose"))
    given = {"speech": options.audio_path, "clip": options.video_path, "edit": edit.directory}
    return content_key(values, given | weights)


def is_up_to_date(result_path: Path, key: str, with_sheet: bool) -> bool:
    from utils.media.video_parts import read_tag

    return read_tag(result_path, KEY_TAG) == key and (not with_sheet or result_path.with_suffix(".png").is_file())


def check_numbers(options: argparse.Namespace) -> None:
    if options.batch_size is not None and options.batch_size < 1:
        raise BadInput("batch size not possible", None, "--batch_size of at least 1", str(options.batch_size))
    if options.vae == "tiny" and options.vae_model_path is None:
        advice = "give --vae_model_path FOLDER, such as a download of madebyollin/taesd"
        raise BadInput("tiny VAE without weights", None, "a folder of diffusers' AutoencoderTiny", "none", advice)


def until_the_end(speech: Speech, n_frames: int, fps: Fraction) -> Speech:
    """The speech, and some of the silence after it if the video goes on. What follows sounds like its end."""
    n_silent = min(math.ceil(n_frames * SAMPLE_RATE / fps) - speech.n_samples, SILENCE_HEARD)
    return replace(speech, n_silent=max(0, n_silent))


def make_frames(talk: Talk, parts: Sequence[range]) -> Iterator[TalkingFrame]:
    """Load the networks; the frames of ``parts`` are decoded, generated and pasted as they are asked for."""
    import torch

    from models.generation.edited_clip import choose_shown, source_frames
    from models.generation.face_parsing import FaceParsing
    from models.generation.talking_face import load_talking_face, talking_frames
    from models.generation.talking_video import windows_of_parts
    from utils.media.windows import needed_rows, stream_windows

    options, pack, edit, n_frames = talk.options, talk.pack, talk.edit, talk.n_frames
    device = cli.resolve_device(options.gpu_id)
    dtype = resolve_dtype(options, device)
    size = pack.image_size if options.img_size is None else options.img_size
    sampling = torch.Generator().manual_seed(options.seed) if options.faithful else None
    talking_face, encoder = load_talking_face(
        pack.unet, pack.vae, pack.whisper, size, device, dtype, sampling, pack.refiner, options.vae == "tiny"
    )
    parse_face = FaceParsing.load(pack.face_parsing, device) if pack.face_parsing else None
    fps = exact_rate(edit.record.fps)
    speech = until_the_end(talk.speech, n_frames, fps)
    states = encoder.encode_segments(speech.blocks, needed_rows(parts, speech.n_rows, fps))
    windows = stream_windows(states, n_frames, fps, options.batch_size)
    windows = windows_of_parts(windows, parts, options.batch_size, sampling, options.seed)
    references, rows = None, [None] * n_frames
    mode = resolve_reference(options, pack)
    if mode != "same" and edit.valid[:n_frames].any():
        side = talking_face.fine_size if mode == "composed" else size
        references, rows = choose_shown(edit, options.video_path, n_frames, side, mode == "composed")
    sources = source_frames(edit, options.video_path, rows, options.enable_pose_driven, parts)
    return talking_frames(sources, windows, talking_face, parse_face, options.batch_size, options.faithful, references)


def resolve_reference(options: argparse.Namespace, pack: packs.Pack) -> str:
    """What --reference names; auto: what the generator was trained with."""
    if options.reference != "auto":
        return options.reference
    return "composed" if pack.refiner else "open"


def resolve_dtype(options: argparse.Namespace, device: torch.device) -> torch.dtype:
    """What --dtype names; auto: the device's fastest faithful one, and float32 where upstream's is asked for."""
    import torch

    if options.dtype != "auto":
        return getattr(torch, options.dtype)
    return torch.float32 if options.faithful else cli.resolve_dtype(device)


def write_result(talk: Talk) -> None:
    """Make those parts of the video that no earlier run has left, and join all."""
    from utils.files.digests import require_unchanged
    from utils.files.work_folder import work_folder
    from utils.imaging.contact_sheet import spread_frames
    from utils.media.video_parts import has_part, part_path, split_frames

    start = time.perf_counter()
    options, edit, n_frames = talk.options, talk.edit, talk.n_frames
    shown = spread_frames(n_frames) if options.debug else []
    with work_folder(talk.result_path, talk.parts_key, options.force) as folder:
        parts = split_frames(n_frames, options.batch_size)
        left = [part for part in parts if not has_part(folder, part)]
        n_drawn = sum(map(len, left))
        if left:
            from models.generation.talking_video import write_parts

            write_parts(folder, left, make_frames(talk, left), edit.record.fps, talk.video.picture, shown)
        require_unchanged(talk.speech.path, talk.speech.digest)
        if edit.record.source_digest:
            require_unchanged(talk.video.path, edit.record.source_digest)
        put_together(talk, folder, [part_path(folder, part) for part in parts], shown)
    speed = n_drawn / (time.perf_counter() - start)
    n_untouched = int((~edit.valid[:n_frames]).sum())
    found = f", {n_frames - n_drawn} of them found" if n_drawn < n_frames else ""
    print(f"{talk.result_path}: {n_frames} frames{found}, {n_untouched} passed through untouched, {speed:.1f} frames/s")


def put_together(talk: Talk, folder: Path, parts: Sequence[Path], shown: Sequence[int]) -> None:
    """Join the parts with the speech, draw the sheet of the frames that are shown, and put both in place."""
    from utils.media.video_parts import join_parts

    joined = folder / talk.result_path.name
    tags = describe_result(talk.pack) | {KEY_TAG: talk.key}
    goes_on = talk.edit.record.length == "silence"
    join_parts(joined, parts, talk.edit.record.fps, talk.speech.path, tags, fill_sound=goes_on)
    if shown:
        from models.generation.talking_video import write_sheet

        sheet = joined.with_suffix(".png")
        write_sheet(sheet, folder, shown)
        sheet.replace(talk.result_path.with_suffix(".png"))
    joined.replace(talk.result_path)


def describe_result(pack: packs.Pack) -> dict[str, str]:
    """The mp4's metadata: that mouth and speech are synthetic, and what made them."""
    from utils.files.digests import sha256
    from utils.weights.checkpoints import weights_file

    digest = sha256(weights_file(pack.unet))[:12]
    return {
        "title": "Talking video with synthetic mouth and speech",
        "comment": f"Mouth and speech are synthetic, made by joygen {VERSION}, weights {pack.name} (unet {digest})",
    }


if __name__ == "__main__":
    cli.run(main)
