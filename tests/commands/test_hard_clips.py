"""The three stages on unusual clips and speeches: small, with real faces, and with tiny untrained networks.

JOYGEN_MEDIA=FOLDER runs the same over the clips of FOLDER/hard and FOLDER/talk.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import inference_audio2motion
import inference_edit_expression
import inference_joygen
from tests.helpers import media, talking_clip
from utils.core.errors import BadInput
from utils.media.audio import load_waveform
from utils.media.timeline import SETTLE_SECONDS
from utils.media.video import VideoWriter, probe_video, read_frames
from utils.results import store
from utils.results.edit_check import require_rate

SPEECH_SECONDS = 0.3
SIZE = 160  # pixels, of the portrait
N_CLIP = 6  # frames
NTSC = Fraction(30_000, 1001)
MEDIA_DIR = os.environ.get("JOYGEN_MEDIA")
MEDIA_CLIPS = [path for part in ("hard", "talk") if MEDIA_DIR for path in sorted((Path(MEDIA_DIR) / part).iterdir())]


@dataclass(frozen=True)
class Result:
    """A written video: decoded frames, their rate, seconds of sound, and stage 2's result."""

    path: Path
    n_frames: int
    fps: Fraction
    sound_seconds: float
    edit: store.EditResult


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    talking_clip.save_networks(folder)
    return folder


@pytest.fixture
def talk(networks, tmp_path) -> Callable[..., Result]:
    """Run all three stages as their scripts do."""

    def run(clip: Path, speech: Path, *flags: str) -> Result:
        results = tmp_path / "the results"
        motion_path = results / "a2m" / f"{speech.stem}.npy"
        cpu = ["--gpu_id", "-1"]
        inference_audio2motion.main(
            ["--drv_aud", str(speech), "--result_dir", str(motion_path.parent), f"--exp_file={motion_path.name}", *cpu]
        )
        inference_edit_expression.main(
            ["--infer_video_path", str(clip), "--infer_exp_coeff_path", str(motion_path),
             "--infer_result_dir", str(results / "edit"), *flags, *cpu]
        )  # fmt: skip
        names = {"unet_model_path": "unet", "vae_model_path": "vae", "whisper_model_path": "whisper.pt"}
        weights = [text for flag, name in names.items() for text in (f"--{flag}", str(networks / name))]
        inference_joygen.main(
            ["--audio_path", str(speech), "--video_path", str(clip), "--intermediate_dir", str(results / "edit"),
             "--result_dir", str(results), "--img_size", "64", "--reference", "open", "--enable_pose_driven",
             *weights, *cpu]
        )  # fmt: skip
        return opened(store.talk_path(results, clip, speech), store.edit_dir(results / "edit", clip, speech))

    return run


def opened(path: Path, edit_dir: Path) -> Result:
    """The result, after checks that hold for every result."""
    video, edit = probe_video(path), store.load_edit(edit_dir)
    n_frames = sum(1 for _ in read_frames(path, float(video.fps)))
    one_frame = float(1 / video.fps)
    assert video.fps == Fraction(edit.record.fps).limit_denominator(1001)
    assert video.duration == pytest.approx(n_frames * one_frame, abs=1e-3)
    with av.open(str(path)) as container:
        images, sound = container.streams
        assert (images.codec_context.name, sound.codec_context.name) == ("h264", "aac")
        assert abs(float(images.start_time * images.time_base - sound.start_time * sound.time_base)) < one_frame
        sound_seconds = float(sound.duration * sound.time_base)
    assert sound_seconds == pytest.approx(n_frames * one_frame, abs=one_frame)
    return Result(path, n_frames, video.fps, sound_seconds, edit)


@pytest.fixture
def speech(tmp_path) -> Path:
    return media.write_wav(tmp_path / "speech.wav", media.speech_like(SPEECH_SECONDS))


def face_clip(path: Path, n_frames: int = N_CLIP, **options: object) -> Path:
    return media.write_clip(path, media.face_frames(n_frames, SIZE), **options)


def truncated(folder: Path) -> Path:
    """A file cut in half; its header still states the whole length."""
    whole = face_clip(folder / "whole.mkv", 20, options={"g": "2", "bf": "0"})
    path = folder / "truncated.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return path


def lying_header(folder: Path) -> Path:
    """An mp4 whose headers state a hundred times its length."""
    path = face_clip(folder / "lying.mp4")
    content = bytearray(path.read_bytes())
    for name, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        at = content.index(name) + offset
        struct.pack_into(">I", content, at, 100 * struct.unpack_from(">I", content, at)[0])
    path.write_bytes(content)
    return path


def odd_frames() -> list[np.ndarray]:
    return [frame[:-1, :-3] for frame in media.face_frames(N_CLIP, SIZE)]


def linked(folder: Path) -> Path:
    path = folder / "a link.mp4"
    path.symlink_to(face_clip(folder / "its target.mp4").name)
    return path


CLIPS: dict[str, tuple[Fraction | int, Callable[[Path], Path]]] = {  # name: own rate, writer
    "60 fps": (60, lambda folder: face_clip(folder / "a.mp4", fps=60)),
    "29.97 fps": (NTSC, lambda folder: face_clip(folder / "a.mov", fps=NTSC)),
    "24 fps, 10 bit, HEVC": (
        24,
        lambda folder: face_clip(
            folder / "a.mkv", fps=24, codec="libx265", pix_fmt="yuv420p10le", options={"x265-params": "log-level=none"}
        ),
    ),
    "uneven times": (25, lambda folder: face_clip(folder / "a.mp4", times=[0, 0.04, 0.16, 0.2, 0.32, 0.36])),
    "stored upright": (25, lambda folder: face_clip(folder / "a.mp4", turn=180)),
    "odd size, yuv444": (25, lambda folder: media.write_clip(folder / "a.mp4", odd_frames(), pix_fmt="yuv444p")),
    "alpha": (25, lambda folder: face_clip(folder / "a.mov", codec="png", pix_fmt="rgba")),
    "VP9": (30, lambda folder: face_clip(folder / "a.webm", fps=30, codec="libvpx-vp9")),
    "one frame": (25, lambda folder: face_clip(folder / "a.mp4", 1)),
    "truncated": (25, truncated),
    "lying header": (25, lying_header),
    "link": (25, linked),
}


@pytest.mark.parametrize("name", CLIPS)
def test_clip_at_its_own_rate(talk, speech, tmp_path, name):
    rate, make = CLIPS[name]
    result = talk(make(tmp_path), speech, "--fps", "source")
    assert result.fps == rate
    assert result.n_frames == math.ceil(SPEECH_SECONDS * rate)
    assert result.edit.valid[: result.n_frames].mean() >= (0 if name == "stored upright" else 0.5)


@pytest.mark.parametrize("name", ['it\'s "my clip" (1).mp4', "new\nline.mp4", "-dash é 口.mp4", ".hidden.mp4"])
def test_names(talk, speech, tmp_path, name):
    sound = speech.rename(speech.with_name(f"{Path(name).stem}.wav"))
    result = talk(face_clip(tmp_path / name), sound)
    assert result.n_frames == math.ceil(SPEECH_SECONDS * 25)
    assert result.path.name == f"{Path(name).stem}#{Path(name).stem}.mp4"


def test_a_4k_frame(talk, speech, tmp_path):
    frame = np.full((2160, 3840, 3), 90, np.uint8)
    frame[400:1600, 1200:2400] = media.portrait(1200)
    result = talk(media.write_clip(tmp_path / "4k.mp4", [frame], options={"preset": "ultrafast"}), speech)
    assert result.n_frames == math.ceil(SPEECH_SECONDS * 25)
    assert (probe_video(result.path).width, probe_video(result.path).height) == (3840, 2160)
    assert result.edit.valid.all()


@pytest.mark.parametrize(
    ("length", "n_clip"), [("loop", 4), ("hold", 4), ("cut", 4), ("cut", 24), ("silence", 4), ("silence", 24)]
)
def test_length_of_the_result(talk, speech, tmp_path, length, n_clip):
    clip = face_clip(tmp_path / "clip.mp4", n_clip, fps=30)
    result = talk(clip, speech, "--fps", "source", "--length", length)
    n_speech = math.ceil(SPEECH_SECONDS * 30)
    expected = {"cut": min(n_speech, n_clip), "silence": max(n_speech, n_clip)}.get(length, n_speech)
    assert result.n_frames == expected
    if length == "silence" and n_clip > n_speech:
        sound = load_waveform(result.path, 48_000)
        assert np.abs(sound[: round(SPEECH_SECONDS * 48_000)]).max() > 0.1
        assert np.abs(sound[round((SPEECH_SECONDS + 0.05) * 48_000) :]).max() < 0.01
        expressions = result.edit.coeffs.all()[:, 80:144]
        n_moving = len(np.load(result.path.parent / "a2m" / "speech.npy")) * 30 / 25 + SETTLE_SECONDS * 30
        still = expressions[math.ceil(n_moving) :]
        assert len(still) >= 1
        np.testing.assert_allclose(still, np.broadcast_to(still[-1], still.shape), atol=1e-5)


def click_speech(folder: Path, kind: str) -> tuple[Path, float]:
    """A file with one click, and its time after the file's first frame or, without video, its first sample."""
    sound = media.clicks(0.4, [0.2])
    if kind == "late sound":
        path = media.write_clip(folder / "late.mp4", media.numbered_frames(20), sound=sound, sound_start=0.12)
        return path, 0.32
    if kind == "late video":
        times = [0.1 + index / 25 for index in range(20)]
        path = media.write_clip(folder / "early.mkv", media.numbered_frames(20), times=times, sound=sound)
        return path, 0.1
    path = folder / {"mp3": "click.mp3", "opus": "click.ogg", "5.1": "click.m4a"}[kind]
    codec, layout = {"mp3": ("libmp3lame", "mono"), "opus": ("libopus", "mono"), "5.1": ("aac", "5.1")}[kind]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48_000, layout=layout)
        channels = np.tile(sound, (6 if kind == "5.1" else 1, 1)).astype(np.float32)
        block = av.AudioFrame.from_ndarray(channels, format="fltp", layout=layout)
        block.sample_rate, block.time_base, block.pts = 48_000, Fraction(1, 48_000), 0
        resample = av.AudioResampler(stream.format.name, layout, 48_000)
        fifo = av.AudioFifo()
        for part in (*resample.resample(block), *resample.resample(None)):
            fifo.write(part)
        while (piece := fifo.read(stream.frame_size or 960, partial=True)) is not None:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path, 0.2


@pytest.mark.parametrize("kind", ["late sound", "late video", "mp3", "opus", "5.1"])
def test_sound_and_video_start_together(talk, tmp_path, kind):
    """The click keeps its time; a frame of this result lasts 0.017 s."""
    sound, time = click_speech(tmp_path, kind)
    result = talk(face_clip(tmp_path / "clip.mp4", fps=60), sound, "--fps", "source")
    times = media.click_times(load_waveform(result.path, 48_000), 48_000, threshold=0.15)
    assert times[0] == pytest.approx(time, abs=0.006)


def test_a_clip_without_a_face_is_refused(talk, speech, tmp_path):
    clip = media.write_clip(tmp_path / "wall.mp4", media.blank_frames(3))
    with pytest.raises(BadInput, match="no face found"):
        talk(clip, speech, "--fps", "source", "--length", "silence")


def test_speech_of_no_length_is_refused(talk, tmp_path):
    with pytest.raises(BadInput, match="no sound"):
        talk(face_clip(tmp_path / "clip.mp4", 1), media.write_wav(tmp_path / "nothing.wav", np.zeros(0)))


def test_rate_that_stage_2_did_not_make(talk, speech, tmp_path):
    clip = face_clip(tmp_path / "clip.mp4", 2, fps=30)
    video = probe_video(clip)
    for made, other in (("25", "source"), ("source", "25")):
        result = talk(clip, speech, "--fps", made)
        require_rate(None, video, result.edit)
        require_rate(made, video, result.edit)
        with pytest.raises(BadInput, match="another frame rate"):
            require_rate(other, video, result.edit)


def test_twenty_minutes_stay_in_step(tmp_path):
    """30 000 tiny frames and their sound are written and read in bounded memory; the last click keeps its time."""
    times = [0.5, 600.0, 1199.0]
    sound = media.write_wav(tmp_path / "long.wav", media.clicks(1200, times, 16_000), 16_000)
    frames = media.numbered_frames(100, 16, 16)
    with VideoWriter(tmp_path / "long.mp4", audio_path=sound, crf=30) as writer:
        for index in range(30_000):
            writer.write(frames[index // 300])
    assert probe_video(tmp_path / "long.mp4").duration == pytest.approx(1200, abs=1e-3)
    late: Iterator[np.ndarray] = read_frames(tmp_path / "long.mp4", start=29_900)
    assert sum(1 for _ in late) == 100
    assert media.click_times(load_waveform(tmp_path / "long.mp4", 16_000), 16_000) == pytest.approx(times, abs=0.01)


@pytest.mark.skipif(not MEDIA_CLIPS, reason="JOYGEN_MEDIA names no folder of clips")
@pytest.mark.parametrize("flags", [(), ("--fps", "source", "--length", "silence")], ids=["25 fps", "own rate"])
@pytest.mark.parametrize("clip", MEDIA_CLIPS, ids=lambda path: path.name)
def test_given_clips(talk, speech, clip, flags):
    try:
        fps, n_clip = probe_video(clip).fps if flags else 25, 0
        n_clip = sum(1 for _ in read_frames(clip, float(fps))) if flags else 0
        result = talk(clip, speech, *flags)
    except BadInput as error:
        assert "\n" not in str(error)
        assert "no_moov" in clip.name or "no face found" in str(error)
        return
    assert result.n_frames == max(n_clip, math.ceil(SPEECH_SECONDS * fps))
