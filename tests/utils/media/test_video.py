"""Decoding: order, rate, colour, orientation, seeking, damage. Encoding: colour, sync, atomicity."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.helpers import media
from utils.core.errors import BadInput
from utils.core.types import PictureFormat
from utils.media import video as video_module
from utils.media import video_timing
from utils.media.audio import load_waveform
from utils.media.timeline import ping_pong
from utils.media.video import REVERSE_BLOCK, VideoWriter, probe_video, read_frames, read_frames_at, videos_in

ROOT = Path(__file__).resolve().parents[3]
ONE_FRAME = 1 / 25  # seconds
BT601 = (6, 6, 6, 1)
BT709 = (1, 1, 1, 1)
BT709_FULL = (1, 1, 1, 2)


def numbers(path: Path, **options: object) -> list[int]:
    return [media.number_of(frame) for frame in read_frames(path, **options)]


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory) -> Path:
    """200 numbered frames, one key frame, B-frames that refer to each other."""
    path = tmp_path_factory.mktemp("clips") / "long.mp4"
    options = {"g": "250", "bf": "4", "b-pyramid": "normal", "sc_threshold": "0"}
    return media.write_clip(path, media.numbered_frames(200), options=options)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.avi", "a.ts"])
def test_every_frame_in_order_in_every_container(tmp_path, name):
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    options = {"bf": "2"} if codec == "mpeg4" else {}
    path = media.write_clip(tmp_path / name, media.numbered_frames(20), codec=codec, options=options)
    assert numbers(path) == list(range(20))
    assert numbers(path, start=7, stop=12) == list(range(7, 12))


@pytest.mark.parametrize(("fps", "n_source", "n_expected"), [(60, 60, 25), (50, 50, 25), (12.5, 10, 20), (30, 30, 25)])
def test_other_rates_become_25(tmp_path, fps, n_source, n_expected):
    path = media.write_clip(tmp_path / "clip.mp4", media.numbered_frames(n_source), fps=fps)
    shown = numbers(path)
    assert abs(len(shown) - n_expected) <= 1
    wanted_time = np.arange(len(shown)) * ONE_FRAME
    assert np.abs(np.array(shown) / fps - wanted_time).max() <= max(ONE_FRAME, 1 / fps) / 2 + 1e-6


def test_ntsc_rate_keeps_its_length(tmp_path):
    rate = Fraction(30_000, 1001)
    path = media.write_clip(tmp_path / "clip.mp4", media.numbered_frames(90), fps=rate)
    assert probe_video(path).fps == rate
    assert len(numbers(path)) == 75


def test_variable_rate_repeats_frames_over_gaps(tmp_path):
    times = [0, 0.04, 0.08, 0.28, 0.32, 0.44]
    path = media.write_clip(tmp_path / "clip.mp4", media.numbered_frames(6), times=times)
    assert numbers(path) == [0, 1, 2, 2, 2, 2, 2, 3, 4, 4, 4, 5]
    assert numbers(path, start=5, stop=9) == [2, 2, 3, 4]


def test_repeated_frames_are_separate_arrays(tmp_path):
    path = media.write_clip(tmp_path / "clip.mp4", media.numbered_frames(2), times=[0, 0.12])
    for images in (list(read_frames(path)), list(read_frames_at(path, [1, 1, 1, 0, 0]))):
        images[0][:] = 0
        assert images[1].max() > 0


def test_clip_that_starts_late_counts_from_its_start(tmp_path):
    times = [1.0 + index * ONE_FRAME for index in range(10)]
    for name in ("clip.mp4", "clip.mkv"):
        path = media.write_clip(tmp_path / name, media.numbered_frames(10), times=times)
        assert numbers(path) == list(range(10))
        assert numbers(path, start=4) == list(range(4, 10))


@pytest.mark.parametrize("start", [1, 3, 60, 137, 199])
def test_entering_a_long_group_of_pictures(long_clip, start):
    assert numbers(long_clip, start=start, stop=start + 3) == list(range(start, min(start + 3, 200)))


def test_entering_at_every_frame_of_open_groups(tmp_path):
    options = {"g": "6", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}
    path = media.write_clip(tmp_path / "clip.mp4", media.numbered_frames(40), fps=5, options=options)
    for start in range(0, 200, 7):
        assert numbers(path, start=start, stop=start + 1) == [start // 5]


def test_ping_pong_order(long_clip):
    order = ping_pong(150, 330).tolist()
    assert [media.number_of(frame) for frame in read_frames_at(long_clip, order)] == order


@pytest.mark.parametrize(
    "order", [[], [5], [0, 0, 1, 1, 2], [9, 9, 8, 8], [3, 150, 4, 2, 7], [100, 97, 95, 95, 40, 41], [7, 7, 7]]
)
def test_any_order(long_clip, order):
    assert [media.number_of(frame) for frame in read_frames_at(long_clip, order)] == order


def test_ping_pong_enters_the_clip_once_per_stretch(long_clip, monkeypatch):
    entries = []

    def counted(path, fps, start=0, stop=None):
        entries.append((start, stop))
        return read_frames(path, fps, start, stop)

    monkeypatch.setattr(video_module, "read_frames", counted)
    n_frames = 2 * REVERSE_BLOCK
    assert len(list(read_frames_at(long_clip, ping_pong(n_frames, 4 * n_frames).tolist()))) == 4 * n_frames
    forwards = [entry for entry in entries if entry[1] - entry[0] > REVERSE_BLOCK]
    assert len(forwards) == 2
    assert len(entries) - len(forwards) <= 2 * (n_frames // REVERSE_BLOCK + 1)
    assert all(stop - start <= REVERSE_BLOCK for start, stop in entries if (start, stop) not in forwards)


def test_clip_shorter_than_asked(long_clip):
    for order in ([198, 199, 200], [205, 204], [400]):
        with pytest.raises(BadInput, match=r"long\.mp4.*expected \d+ frames"):
            list(read_frames_at(long_clip, order))


def test_reading_stops_early_without_decoding_the_rest(long_clip, monkeypatch):
    decoded = []
    decode = video_timing.decode_tolerantly
    monkeypatch.setattr(
        video_timing, "decode_tolerantly", lambda *of: (decoded.append(1) or frame for frame in decode(*of))
    )
    assert numbers(long_clip, stop=10) == list(range(10))
    assert len(decoded) < 15


def test_entering_a_broadcast_between_its_key_frames(tmp_path):
    """A seek in a transport stream may lead to an intra frame whose followers refer to earlier frames."""
    times = [index / 25 + (5 if index >= 30 else 0) for index in range(60)]
    path = media.write_clip(tmp_path / "clip.ts", media.numbered_frames(60), times=times)
    for start in range(1, 30):
        assert numbers(path, start=start, stop=start + 1) == [start]


def test_time_stamps_that_start_over_or_leap(tmp_path):
    frames = media.numbered_frames(60)
    parts = [media.write_clip(tmp_path / f"{row}.ts", frames[row : row + 30]).read_bytes() for row in (0, 30)]
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    leaps = {"joined.ts": (0, 0), "broadcast.ts": (30, 100), "film.mkv": (30, 36_000), "late start.mkv": (1, 1000)}
    for name, (row, leap) in leaps.items():
        if leap:
            times = [index / 25 + (leap if index >= row else 0) for index in range(60)]
            media.write_clip(tmp_path / name, frames, times=times)
        assert numbers(tmp_path / name, stop=1000) == list(range(60)), name
        order = [50, 3, 2, 1, 40, 41]
        assert [media.number_of(frame) for frame in read_frames_at(tmp_path / name, order)] == order, name


def test_a_long_gap_is_no_leap(tmp_path):
    times = [index / 25 + (20 if index >= 30 else 0) for index in range(60)]
    for name in ("gap.mp4", "gap.mkv"):
        shown = numbers(media.write_clip(tmp_path / name, media.numbered_frames(60), times=times))
        assert shown == [*range(29), *[29] * 501, *range(30, 60)]


def test_rate_that_stands_for_a_clip_s_own(tmp_path):
    frames = media.numbered_frames(60)
    even = {
        rate: media.write_clip(tmp_path / f"{float(rate)}.mp4", frames, fps=rate)
        for rate in (24, 50, Fraction(30_000, 1001))
    }
    assert {rate: probe_video(path).fps for rate, path in even.items()} == {rate: rate for rate in even}
    for name in ("uneven.mp4", "uneven.mkv"):  # the nominal rate; the mean is 15 or less
        times = np.cumsum([0, *[0.04, 0.12] * 30])[:60]
        path = media.write_clip(tmp_path / name, frames, times=times)
        assert probe_video(path).fps == pytest.approx(25, rel=0.01)
        assert sorted(set(numbers(path, fps=probe_video(path).fps))) == list(range(60))
    phone = np.arange(60) / 30 + np.random.default_rng(0).uniform(-0.003, 0.003, 60).clip(0)
    path = media.write_clip(tmp_path / "phone.mkv", frames, fps=30, times=phone)
    assert probe_video(path).fps == pytest.approx(30, rel=0.02)
    assert len(numbers(path, fps=probe_video(path).fps)) == pytest.approx(60, abs=1)


@pytest.mark.parametrize("colour", [None, BT601, BT709, BT709_FULL], ids=["untagged", "bt601", "bt709", "full range"])
def test_colour_survives_decoding_and_encoding(tmp_path, colour):
    image = media.smooth_picture(192, 128)
    source = media.write_clip(tmp_path / "source.mp4", [image] * 3, colour=colour, options={"crf": "0"})
    decoded = next(read_frames(source)).astype(float)
    assert np.abs((decoded - image).mean(axis=(0, 1))).max() < 0.3
    assert np.abs(decoded - image).mean() < 1.5

    info = probe_video(source)
    with VideoWriter(tmp_path / "copy.mp4", crf=0, picture=info.picture) as writer:
        for frame in read_frames(source):
            writer.write(frame)
    copied = next(read_frames(tmp_path / "copy.mp4")).astype(float)
    assert np.abs((copied - decoded).mean(axis=(0, 1))).max() < 0.3
    assert np.abs(copied - decoded).mean() < 1.5
    assert probe_video(tmp_path / "copy.mp4").picture == info.picture


def test_untagged_clip_is_copied_number_by_number(tmp_path):
    """Source and copy look the same with any matrix that a player assumes for an untagged clip."""
    image = media.smooth_picture(192, 128)
    source = media.write_clip(tmp_path / "source.mp4", [image] * 3, options={"crf": "0"})
    with VideoWriter(tmp_path / "copy.mp4", crf=0, picture=probe_video(source).picture) as writer:
        for frame in read_frames(source):
            writer.write(frame)
    luma = []
    for path in (source, tmp_path / "copy.mp4"):
        with av.open(str(path)) as container:
            luma.append(next(container.decode(video=0)).to_ndarray().astype(float))
    assert np.abs((luma[1] - luma[0]).mean()) < 0.2
    assert np.abs(luma[1] - luma[0]).mean() < 1


def test_output_without_a_source_is_tagged_bt709(tmp_path):
    with VideoWriter(tmp_path / "a.mp4") as writer:
        writer.write(media.smooth_picture(64, 48))
    assert probe_video(tmp_path / "a.mp4").picture == PictureFormat(1, 1, 1, Fraction(1))


@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv422p10le", "yuv420p10le", "yuvj420p"])
def test_other_pixel_formats(tmp_path, pix_fmt):
    image = media.smooth_picture(192, 128)
    colour = BT709_FULL if pix_fmt == "yuvj420p" else BT709
    path = media.write_clip(tmp_path / "clip.mp4", [image] * 2, pix_fmt=pix_fmt, colour=colour, options={"crf": "0"})
    assert np.abs(next(read_frames(path)).astype(float) - image).mean() < 2


def test_alpha_and_rgb_sources(tmp_path):
    image = media.smooth_picture(192, 128)
    for codec, pix_fmt in (("qtrle", "argb"), ("png", "rgba"), ("libx264rgb", "rgb24")):
        path = media.write_clip(tmp_path / f"{codec}.mov", [image] * 2, codec=codec, pix_fmt=pix_fmt, options={})
        frame = next(read_frames(path))
        assert frame.shape == (128, 192, 3)
        assert np.abs(frame.astype(float) - image).mean() < 2
        assert probe_video(path).picture.matrix == 1


def test_size_that_changes_on_the_way(tmp_path):
    """As in broadcasts and calls: every frame has the size of the first, wherever decoding begins."""
    first = media.write_clip(tmp_path / "first.ts", media.numbered_frames(20, 64, 48))
    second = media.write_clip(tmp_path / "second.ts", media.numbered_frames(40, 96, 64)[20:])
    path = tmp_path / "both.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    frames = list(read_frames(path))
    assert {frame.shape for frame in frames} == {(48, 64, 3)}
    assert [media.number_of(frame) for frame in frames] == list(range(40))
    assert [media.number_of(frame) for frame in read_frames(path, start=28)] == list(range(28, 40))


@pytest.mark.parametrize("turn", list(media.TURNS))
def test_display_matrix_is_obeyed(tmp_path, turn):
    image = media.smooth_picture(192, 128)
    path = media.write_clip(tmp_path / "clip.mp4", [image] * 2, turn=turn, options={"crf": "0"})
    upright = np.fliplr(image) if turn == "mirror" else np.rot90(image, turn // 90)
    frame = next(read_frames(path))
    assert np.abs(frame.astype(float) - upright).mean() < 2
    info = probe_video(path)
    assert (info.height, info.width) == upright.shape[:2]


def test_pixel_shape_is_kept(tmp_path):
    image = media.smooth_picture(192, 128)
    for turn, expected in ((None, Fraction(4, 3)), (90, Fraction(3, 4))):
        path = media.write_clip(tmp_path / f"{turn}.mp4", [image] * 2, pixel_aspect=Fraction(4, 3), turn=turn)
        info = probe_video(path)
        assert info.picture.pixel_aspect == expected
        with VideoWriter(tmp_path / "copy.mp4", picture=info.picture) as writer:
            writer.write(next(read_frames(path)))
        assert probe_video(tmp_path / "copy.mp4").picture.pixel_aspect == expected


def test_odd_sizes_grow_by_a_line(tmp_path):
    image = media.smooth_picture(129, 95)
    with VideoWriter(tmp_path / "a.mp4", crf=0) as writer:
        writer.write(image)
    frame = next(read_frames(tmp_path / "a.mp4"))
    assert frame.shape == (96, 130, 3)
    assert np.abs(frame[:95, :129].astype(float) - image).mean() < 2
    path = media.write_clip(tmp_path / "odd.mp4", [image] * 2, pix_fmt="yuv444p")
    assert next(read_frames(path)).shape == (95, 129, 3)


def test_probe(tmp_path):
    path = media.write_clip(
        tmp_path / "my clip (1) it's.mp4", media.numbered_frames(10), sound=media.speech_like(0.4, 48_000)
    )
    info = probe_video(path)
    assert (info.width, info.height, info.fps, info.has_audio) == (64, 48, 25, True)
    assert info.duration == pytest.approx(0.4, abs=ONE_FRAME)
    assert not probe_video(media.write_clip(tmp_path / "mute.mp4", media.numbered_frames(2))).has_audio


@pytest.mark.parametrize("name", ["whole.mkv", "whole.mp4"])
def test_truncated_clip_gives_what_is_left(tmp_path, caplog, name):
    """With a warning, since the rest decodes without an error. The mp4's index comes first."""
    is_mp4 = name.endswith("mp4")
    whole = media.write_clip(
        tmp_path / name,
        media.numbered_frames(60),
        sound=media.speech_like(3, 48_000) if is_mp4 else None,
        options={"g": "10", "bf": "0"},
        file_options={"movflags": "+faststart"} if is_mp4 else {},
    )
    assert numbers(whole) == list(range(60))
    assert not caplog.messages
    content = whole.read_bytes()
    cut = tmp_path / f"cut{whole.suffix}"
    cut.write_bytes(content[: len(content) * 6 // 10])
    shown = numbers(cut)
    assert 20 <= len(shown) < 60
    assert shown == list(range(len(shown)))
    assert f"{cut}: the video ends after {len(shown) / 25:.1f} s; its header says 2.4 s" in caplog.messages


def test_damage_in_the_middle_keeps_the_time_line(tmp_path):
    path = media.write_clip(tmp_path / "clip.ts", media.numbered_frames(60), options={"g": "10", "bf": "0"})
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(content)
    shown = np.array(numbers(path))
    assert len(shown) == 60
    assert (shown == np.arange(60)).sum() > 40


def test_files_without_pictures(tmp_path):
    (tmp_path / "text.mp4").write_text("not a film")
    (tmp_path / "empty.mp4").write_bytes(b"")
    sound = media.write_wav(tmp_path / "sound.wav", media.speech_like(0.2))
    for path in (tmp_path / "text.mp4", tmp_path / "empty.mp4", tmp_path / "missing.mp4", tmp_path, sound):
        for read in (probe_video, lambda name: next(read_frames(name))):
            with pytest.raises(BadInput) as caught:
                read(path)
            assert str(path) in str(caught.value)


def test_cover_of_a_song_is_no_video(tmp_path):
    path = media.write_song_with_cover(tmp_path / "song.mp3", media.speech_like(0.3, 44_100), 44_100)
    with av.open(str(path)) as container:
        assert container.streams.video
    with pytest.raises(BadInput, match="no video stream"):
        probe_video(path)
    assert len(load_waveform(path)) == pytest.approx(0.3 * 16_000, rel=0.2)


def sound_of(path: Path, rate: int = 48_000) -> np.ndarray:
    return load_waveform(path, rate)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_written_sound_stays_in_step_with_the_pictures(tmp_path, rate, channels):
    times = [0.2, 0.6, 0.9]
    wav = media.write_wav(tmp_path / "clicks.wav", np.tile(media.clicks(1.2, times, rate), (channels, 1)), rate)
    with VideoWriter(tmp_path / "out.mp4", audio_path=wav) as writer:
        for index in range(30):
            writer.write(media.numbered_frames(30)[index])
    assert media.click_times(sound_of(tmp_path / "out.mp4"), 48_000) == pytest.approx(times, abs=0.005)
    assert numbers(tmp_path / "out.mp4") == list(range(30))


@pytest.mark.parametrize(("sound_seconds", "n_frames"), [(0.5, 25), (2.0, 25), (1.0, 25), (1.02, 26)])
def test_sound_ends_with_the_shorter_of_both(tmp_path, sound_seconds, n_frames):
    wav = media.write_wav(tmp_path / "a.wav", media.speech_like(sound_seconds))
    with VideoWriter(tmp_path / "out.mp4", audio_path=wav) as writer:
        for frame in media.numbered_frames(n_frames):
            writer.write(frame)
    with av.open(str(tmp_path / "out.mp4")) as container:
        audio, video = container.streams.audio[0], container.streams.video[0]
        assert float(video.duration * video.time_base) == pytest.approx(n_frames / 25, abs=1e-3)
        shorter = min(sound_seconds, n_frames / 25)
        assert float(audio.duration * audio.time_base) == pytest.approx(shorter, abs=ONE_FRAME)
        assert audio.codec_context.name == "aac"
        assert video.codec_context.name == "h264"
    assert len(sound_of(tmp_path / "out.mp4")) / 48_000 == pytest.approx(shorter, abs=ONE_FRAME)


def test_sound_of_a_clip_that_starts_later_than_its_pictures(tmp_path):
    clip = media.write_clip(
        tmp_path / "late.mp4", media.numbered_frames(25), sound=media.clicks(0.6, [0.1, 0.4]), sound_start=0.4
    )
    with VideoWriter(tmp_path / "out.mp4", audio_path=clip) as writer:
        for frame in read_frames(clip):
            writer.write(frame)
    assert media.click_times(sound_of(tmp_path / "out.mp4"), 48_000) == pytest.approx([0.5, 0.8], abs=0.01)


def test_metadata_is_written(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", metadata={"comment": "synthetic", "title": "ä"}) as writer:
        writer.write(media.numbered_frames(1)[0])
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert (container.metadata["comment"], container.metadata["title"]) == ("synthetic", "ä")


def test_failure_leaves_nothing_and_keeps_the_old_result(tmp_path):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"the result of last week")
    with pytest.raises(RuntimeError, match="half way"), VideoWriter(target) as writer:
        for frame in media.numbered_frames(5):
            writer.write(frame)
        assert target.read_bytes() == b"the result of last week"
        raise RuntimeError("half way")
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert target.read_bytes() == b"the result of last week"


def test_writer_refuses_nothing_another_size_and_a_mute_sound_file(tmp_path):
    with pytest.raises(ValueError, match="no frame"), VideoWriter(tmp_path / "a.mp4"):
        pass
    first, other = media.numbered_frames(1)[0], media.numbered_frames(1, 32)[0]
    with pytest.raises(ValueError, match="shape"), VideoWriter(tmp_path / "a.mp4") as writer:
        writer.write(first)
        writer.write(other)
    mute = media.write_clip(tmp_path / "mute.mp4", [first] * 2)
    with pytest.raises(BadInput, match="no sound track"), VideoWriter(tmp_path / "a.mp4", audio_path=mute):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["mute.mp4"]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from utils.core import cli
from utils.media.video import VideoWriter

def main(_):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    with VideoWriter(Path(sys.argv[1])) as writer:
        for shift in range(20):
            writer.write(np.roll(noise, shift, 0))

cli.run(main)
"""


def test_full_disk_is_a_failure_in_one_line(tmp_path):
    target = tmp_path / "new" / "out.mp4"
    command = [sys.executable, "-c", FULL_DISK, str(target)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 1, result.stderr
    assert result.stderr.startswith(f"error: video could not be written ({target})")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_same_frames_are_encoded_the_same_way(tmp_path):
    frames = [media.smooth_picture(160, 120, seed) for seed in range(3)] * 12
    files = []
    for name in ("first.mp4", "second.mp4"):
        with VideoWriter(tmp_path / name) as writer:
            for frame in frames:
                writer.write(frame)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_files_of_other_kinds_hidden_ones_and_folders_are_none(tmp_path: Path) -> None:
    for name in ("b.MP4", "a.ts", "c.mpg", ".partial-x.mp4", "._a.ts", "notes.txt", "mp4"):
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "gone.mkv").symlink_to(tmp_path / "nowhere.mkv")  # an error when it is opened
    assert [path.name for path in videos_in(tmp_path)] == ["a.ts", "b.MP4", "c.mpg", "gone.mkv"]
