"""Stage 3: clip + speech + stage 2's result → the video with the new mouth."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch

from models.generation.face_crops import choose_mouth_pictures, choose_reference_frames, source_frames
from models.generation.face_parsing import FaceParsing
from models.generation.talking_face import TalkingFrame, load_talking_face, talking_frames
from models.generation.talking_video import windows_of_parts, write_parts, write_sheet
from models.pipeline.options import TalkOptions
from models.pipeline.resume import make_unless_current, result_key
from utils.core.monitor import Monitor
from utils.core.types import SAMPLE_RATE, VERSION, VideoInfo
from utils.files.atomic import require_writable
from utils.files.digests import require_unchanged, sha256
from utils.files.work_folder import reading, work_folder
from utils.imaging.contact_sheet import spread_frames
from utils.media.speech import Speech
from utils.media.timeline import exact_rate
from utils.media.video import probe_video
from utils.media.video_parts import has_part, join_parts, part_path, read_tag, split_frames
from utils.media.windows import needed_rows, stream_windows
from utils.results import store
from utils.results.edit_check import count_frames, open_edit, require_rate
from utils.weights.checkpoints import weights_file
from utils.weights.packs import Pack, describe

KEY_TAG = "description"  # the video's metadata tag that holds its key
SAMPLES_AFTER_SPEECH = SAMPLE_RATE  # silence that is encoded after the speech; later states repeat the last


@dataclass(frozen=True)
class TalkResult:
    """The video of stage 3, its frames, and how many of them passed through untouched."""

    path: Path
    n_frames: int
    n_untouched: int


@dataclass(frozen=True)
class Talk:
    """A run of stage 3: its options and files that have been read. n_frames: of the result."""

    options: TalkOptions
    monitor: Monitor
    video: VideoInfo
    speech: Speech
    edit: store.EditResult
    n_frames: int
    pack: Pack
    batch_size: int
    result_path: Path
    key: str

    @property
    def parts_key(self) -> str:
        """Parts that are made for a contact sheet have more beside them."""
        return self.sheet_key if self.options.debug else self.key

    @property
    def sheet_key(self) -> str:
        return f"{self.key} and a sheet"

    @property
    def is_current(self) -> bool:
        """Whether the video, and the contact sheet if one is wanted, are there and up to date."""
        has_sheet = not self.options.debug or self.result_path.with_suffix(".png").is_file()
        return read_tag(self.result_path, KEY_TAG) == self.key and has_sheet

    @property
    def n_untouched(self) -> int:
        return int((~self.edit.valid[: self.n_frames]).sum())


def draw_talk(options: TalkOptions, monitor: Monitor) -> TalkResult:
    """Generate the new mouth of every frame and write the video with the speech.

    A result that is up to date is kept; a run that was stopped is resumed. Raises BadInput where nothing can be made.
    """
    with reading(store.edit_dir(options.edit_dir, options.video_path, options.audio_path)) as directory:
        talk = open_talk(options, directory, monitor)
        is_current = not options.force and talk.is_current
        part_keys = [talk.key, talk.sheet_key]
        make_unless_current(talk.result_path, is_current, lambda: write_result(talk), part_keys, monitor)
        if options.clean:
            store.remove_edit(directory)
    return TalkResult(talk.result_path, talk.n_frames, talk.n_untouched)


def open_talk(options: TalkOptions, edit_dir: Path, monitor: Monitor) -> Talk:
    """Read and check the inputs, and say which networks serve; they are loaded once frames are needed."""
    video = probe_video(options.video_path)
    speech = Speech.open(options.audio_path)
    edit = open_edit(edit_dir, video)
    require_rate(options.fps, video, edit)
    n_frames = count_frames(edit, speech.n_samples, options.faithful)
    result_path = store.talk_path(options.result_dir, options.video_path, options.audio_path)
    require_writable(result_path.parent)
    pack, batch_size = options.resolve_pack(), options.resolve_batch_size()
    monitor.say(describe(pack))
    key = talk_key(options, pack, edit)
    return Talk(options, monitor, video, speech, edit, n_frames, pack, batch_size, result_path, key)


def talk_key(options: TalkOptions, pack: Pack, edit: store.EditResult) -> str:
    """The key of the video."""
    resolved = {
        "image_size": options.resolve_image_size(pack),
        "batch_size": options.resolve_batch_size(),
        "dtype": str(options.resolve_dtype()),
        "reference": options.resolve_reference(pack),
    }
    inputs = {"speech": options.audio_path, "clip": options.video_path, "edit": edit.directory}
    return result_key(options, pack, ("whisper", "vae", "unet", "refiner", "face_parsing"), inputs, resolved)


def write_result(talk: Talk) -> None:
    """Make the parts of the video that no earlier run has left, and join all."""
    start = time.perf_counter()
    options, edit, n_frames = talk.options, talk.edit, talk.n_frames
    sheet_frames = spread_frames(n_frames) if options.debug else []
    with work_folder(talk.result_path, talk.parts_key, options.force) as folder:
        parts = split_frames(n_frames, talk.batch_size)
        left = [part for part in parts if not has_part(folder, part)]
        n_made = sum(map(len, left))
        if left:
            frames = make_frames(talk, left)
            write_parts(folder, left, frames, edit.record.fps, talk.video.picture, talk.monitor, sheet_frames)
        require_unchanged(talk.speech.path, talk.speech.digest)
        if edit.record.source_digest:
            require_unchanged(talk.video.path, edit.record.source_digest)
        put_together(talk, folder, [part_path(folder, part) for part in parts], sheet_frames)
    speed = n_made / (time.perf_counter() - start)
    resumed = f", {n_frames - n_made} of them from an earlier run" if n_made < n_frames else ""
    talk.monitor.say(
        f"{talk.result_path}: {n_frames} frames{resumed}, {talk.n_untouched} passed through untouched, "
        f"{speed:.1f} frames/s"
    )


def make_frames(talk: Talk, parts: Sequence[range]) -> Iterator[TalkingFrame]:
    """Load the networks; the frames of ``parts`` are decoded, generated and pasted as they are consumed."""
    options, pack, edit, n_frames = talk.options, talk.pack, talk.edit, talk.n_frames
    size, batch_size = options.resolve_image_size(pack), talk.batch_size
    sampling = torch.Generator().manual_seed(options.seed) if options.faithful else None
    talking_face, encoder = load_talking_face(
        pack.unet,
        pack.vae,
        pack.whisper,
        size,
        options.device,
        options.resolve_dtype(),
        sampling,
        pack.refiner,
        options.vae == "tiny",
    )
    parse_face = FaceParsing.load(pack.face_parsing, options.device) if pack.face_parsing else None
    fps = exact_rate(edit.record.fps)
    speech = until_the_end(talk.speech, n_frames, fps)
    states = encoder.encode_segments(speech.blocks, needed_rows(parts, speech.n_rows, fps))
    windows = windows_of_parts(
        stream_windows(states, n_frames, fps, batch_size), parts, batch_size, sampling, options.seed
    )
    references, mouths = None, None
    mode = options.resolve_reference(pack)
    if mode == "composed":
        mouths = choose_mouth_pictures(edit, options.video_path, n_frames)
    elif mode == "open" and edit.valid[:n_frames].any():
        references = choose_reference_frames(edit, options.video_path, n_frames, size)
    sources = source_frames(edit, options.video_path, n_frames, options.pose_driven, parts, references, mouths)
    faces = None if references is None else references.faces
    return talking_frames(sources, windows, talking_face, parse_face, batch_size, options.faithful, faces)


def until_the_end(speech: Speech, n_frames: int, fps: Fraction) -> Speech:
    """The speech, and some of the silence after it if the video is longer; later states repeat the last."""
    n_silent = min(math.ceil(n_frames * SAMPLE_RATE / fps) - speech.n_samples, SAMPLES_AFTER_SPEECH)
    return replace(speech, n_silent=max(0, n_silent))


def put_together(talk: Talk, folder: Path, parts: Sequence[Path], sheet_frames: Sequence[int]) -> None:
    """Join the parts with the speech, make the contact sheet, and put both in place."""
    joined = folder / talk.result_path.name
    tags = describe_result(talk.pack) | {KEY_TAG: talk.key}
    is_longer = talk.edit.record.length == "silence"
    join_parts(joined, parts, talk.edit.record.fps, talk.speech.path, tags, fill_sound=is_longer)
    if sheet_frames:
        sheet = joined.with_suffix(".png")
        write_sheet(sheet, folder, sheet_frames)
        sheet.replace(talk.result_path.with_suffix(".png"))
    joined.replace(talk.result_path)


def describe_result(pack: Pack) -> dict[str, str]:
    """The mp4's metadata: that mouth and speech are synthetic, and what made them."""
    digest = sha256(weights_file(pack.unet))[:12]
    return {
        "title": "Talking video with synthetic mouth and speech",
        "comment": f"Mouth and speech are synthetic, made by joygen {VERSION}, weights {pack.name} (unet {digest})",
    }
