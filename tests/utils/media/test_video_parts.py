"""Videos in parts: frames of each part, valid parts, and joined parts equal to one video."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.helpers import media
from utils.media.video import VideoWriter, read_frames
from utils.media.video_parts import has_part, join_parts, part_path, read_tag, split_frames

LENGTHS = (12, 2, 1, 3)  # frames: with and without B-frames


@pytest.mark.parametrize(
    ("n_frames", "batch_size", "lengths"),
    [(1, 8, [1]), (240, 8, [240]), (250, 8, [240, 10]), (700, 7, [238, 238, 224]), (900, 500, [500, 400])],
)
def test_parts_are_whole_batches(n_frames, batch_size, lengths):
    parts = split_frames(n_frames, batch_size)
    assert [len(part) for part in parts] == lengths
    assert [index for part in parts for index in part] == list(range(n_frames))
    assert all(part.start % batch_size == 0 for part in parts)


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return [media.smooth_picture(96, 64, seed) for seed in range(3)] * (sum(LENGTHS) // 3)


def write_video(path: Path, frames: list[np.ndarray], fps: float | Fraction, sound: Path | None = None) -> Path:
    with VideoWriter(path, fps, sound) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def write_parts(folder: Path, frames: list[np.ndarray], fps: float | Fraction) -> list[Path]:
    ends = np.cumsum(LENGTHS)
    parts = [range(end - length, end) for end, length in zip(ends, LENGTHS, strict=True)]
    for part in parts:
        assert not has_part(folder, part)
        write_video(part_path(folder, part), frames[part.start : part.stop], fps)
        assert has_part(folder, part)
    return [part_path(folder, part) for part in parts]


@pytest.mark.parametrize("fps", [25, Fraction(30000, 1001)])
def test_joined_parts_are_one_video(tmp_path, frames, fps):
    sound = media.write_wav(tmp_path / "sound.wav", np.sin(np.arange(9000) / 5).astype(np.float32) / 2)
    parts = write_parts(tmp_path, frames, fps)
    join_parts(tmp_path / "joined.mp4", parts, fps, sound, {"title": "one"})
    write_video(tmp_path / "whole.mp4", frames, fps, sound)
    joined, whole = facts_of(tmp_path / "joined.mp4"), facts_of(tmp_path / "whole.mp4")
    assert joined == whole
    pairs = zip(read_frames(tmp_path / "joined.mp4", float(fps)), frames, strict=True)
    assert max(np.abs(one.astype(int) - other).mean() for one, other in pairs) < 4
    assert read_tag(tmp_path / "joined.mp4", "title") == "one"


def facts_of(path: Path) -> dict[str, object]:
    with av.open(str(path)) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        facts = {
            "times": [frame.time for frame in container.decode(video)],
            "rate": video.average_rate,
            "frames": (video.frames, sound.frames),
            "ends": (video.duration * video.time_base, sound.duration * sound.time_base),
            "starts": (video.start_time, sound.start_time),
            "colours": (video.codec_context.color_range, video.codec_context.colorspace),
        }
    with av.open(str(path)) as container:
        decoding_times = [
            packet.dts for packet in container.demux(container.streams.video[0]) if packet.dts is not None
        ]
    assert decoding_times == sorted(set(decoding_times))
    return facts


def test_a_damaged_part_is_none(tmp_path, frames):
    part = range(0, 6)
    path = write_video(part_path(tmp_path, part), frames[:6], 25)
    assert not has_part(tmp_path, range(0, 5))
    path.write_bytes(path.read_bytes()[:-100])
    assert not has_part(tmp_path, part)
    path.write_bytes(b"")
    assert not has_part(tmp_path, part)


def test_tags_of_what_is_no_video(tmp_path, frames):
    assert read_tag(tmp_path / "absent.mp4", "title") is None
    (tmp_path / "text.mp4").write_text("text")
    assert read_tag(tmp_path / "text.mp4", "title") is None
    assert read_tag(write_video(tmp_path / "plain.mp4", frames[:2], 25), "title") is None
