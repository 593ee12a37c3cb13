"""Decoding of sound: formats, rates, time stamps, damage."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.helpers import media
from utils.core.errors import BadInput
from utils.core.types import SAMPLE_RATE
from utils.media import audio as audio_module
from utils.media.audio import AudioEncoder, has_audio, load_waveform, write_flac, write_mp3

TIMES = [0.1, 0.35, 0.8]


def encode(path: Path, sound: np.ndarray, codec: str, rate: int, start: int = 0, gap: tuple[int, int] = (0, 0)) -> Path:
    """One mono sound track; ``start`` and ``gap`` (position, length) in samples move the time stamps."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        for first in range(0, len(sound), 960):
            frame = av.AudioFrame.from_ndarray(sound[None, first : first + 960], format="fltp", layout="mono")
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = start + first + (gap[1] if first >= gap[0] else 0)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_wav_at_16_khz_is_read_sample_by_sample(tmp_path):
    sound = media.speech_like(0.5)
    stored = (sound * 32767).astype("<i2")
    wave = load_waveform(media.write_wav(tmp_path / "a.wav", sound))
    assert wave.dtype == np.float32
    np.testing.assert_array_equal(wave, stored.astype(np.float32) / 32768)


@pytest.mark.parametrize("rate", [1, 999, 2**31 - 1])
def test_a_rate_that_no_sound_has(tmp_path, rate):
    path = media.write_wav(tmp_path / "a.wav", np.zeros(16_000), rate)
    with pytest.raises(BadInput, match=f"impossible rate.*found {rate};"):
        load_waveform(path)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 384_000])
def test_resampling_keeps_length_and_level(tmp_path, rate):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    wave = load_waveform(media.write_wav(tmp_path / "a.wav", tone, rate))
    assert len(wave) == pytest.approx(16_000, abs=16)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(wave)) / 16_000)
    assert np.abs(wave - expected)[200:-200].max() < 0.01


def test_stereo_becomes_the_mean_of_both(tmp_path):
    left, right = media.speech_like(0.3), np.zeros(4800, np.float32)
    wave = load_waveform(media.write_wav(tmp_path / "a.wav", np.stack([left, right])))
    np.testing.assert_allclose(wave, left / 2, atol=2e-4)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.mp3", "libmp3lame", 44_100),
        ("a.m4a", "aac", 48_000),
        ("a.opus", "libopus", 48_000),
        ("a.flac", "flac", 44_100),
    ],
)
def test_compressed_files_keep_their_timing(tmp_path, name, codec, rate):
    path = encode(tmp_path / name, media.clicks(1.0, TIMES, rate), codec, rate)
    wave = load_waveform(path, 48_000)
    assert media.click_times(wave, 48_000) == pytest.approx(TIMES, abs=0.005)
    assert len(wave) / 48_000 == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
@pytest.mark.parametrize("sound_start", [0.0, 0.25, 0.9])
def test_sound_that_starts_after_the_pictures(tmp_path, name, sound_start):
    path = media.write_clip(
        tmp_path / name, media.numbered_frames(40), sound=media.clicks(0.5, [0.1, 0.3]), sound_start=sound_start
    )
    expected = [sound_start + 0.1, sound_start + 0.3]
    assert media.click_times(load_waveform(path, 48_000), 48_000) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_sound_that_starts_before_the_pictures(tmp_path, name):
    times = [0.5 + index / 25 for index in range(20)]
    path = media.write_clip(
        tmp_path / name, media.numbered_frames(20), times=times, sound=media.clicks(1.3, [0.2, 0.7, 1.1])
    )
    assert media.click_times(load_waveform(path, 48_000), 48_000) == pytest.approx([0.2, 0.6], abs=0.01)


def test_sound_alone_starts_at_once_whatever_its_clock_says(tmp_path):
    path = encode(tmp_path / "late.mka", media.clicks(0.5, [0.1]), "flac", 48_000, start=2 * 48_000)
    assert media.click_times(load_waveform(path, 48_000), 48_000) == pytest.approx([0.1], abs=0.005)


def test_gap_becomes_silence(tmp_path):
    path = encode(tmp_path / "gap.mka", media.clicks(1.0, TIMES), "flac", 48_000, gap=(24_000, 48_000))
    expected = [0.1, 0.35, 1.8]
    assert media.click_times(load_waveform(path, 48_000), 48_000) == pytest.approx(expected, abs=0.005)


def test_time_stamps_that_start_over_lose_no_sound(tmp_path):
    first = encode(tmp_path / "a.ts", media.clicks(0.6, [0.2]), "aac", 48_000, start=480_000)
    second = encode(tmp_path / "b.ts", media.clicks(0.6, [0.2]), "aac", 48_000)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    wave = load_waveform(joined, 48_000)
    assert len(media.click_times(wave, 48_000)) == 2
    assert len(wave) / 48_000 == pytest.approx(1.2, abs=0.15)


def test_change_of_format_on_the_way(monkeypatch):
    """Two kinds of frames through one resampler, as broadcast streams have them."""
    resample = audio_module._Resampler("s16", "mono", 16_000)
    pieces = []
    for rate, layout in ((16_000, "mono"), (48_000, "stereo"), (16_000, "mono")):
        n_channels = 1 if layout == "mono" else 2
        block = np.full((n_channels, rate // 10), 0.25, np.float32)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
        frame.sample_rate = rate
        pieces.append(resample(frame))
    pieces.append(resample(None))
    wave = np.concatenate(pieces, axis=1)[0]
    assert len(wave) == pytest.approx(4800, abs=50)
    assert np.median(wave) == pytest.approx(0.25 * 32768, rel=0.02)


def test_truncated_file_gives_what_is_left(tmp_path):
    path = encode(tmp_path / "a.mp3", media.speech_like(2.0, 44_100), "libmp3lame", 44_100)
    content = path.read_bytes()
    cut = tmp_path / "cut.mp3"
    cut.write_bytes(content[: len(content) // 2])
    assert 0.7 < len(load_waveform(cut)) / 16_000 < 1.3


def test_damage_in_the_middle_loses_only_that(tmp_path, caplog):
    path = encode(tmp_path / "a.mp3", media.clicks(3.0, [0.2, 2.7], 44_100), "libmp3lame", 44_100)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 1500] = np.random.default_rng(0).bytes(1500)
    path.write_bytes(content)
    wave = load_waveform(path, 48_000)
    assert len(media.click_times(wave, 48_000)) >= 2


def test_files_without_sound(tmp_path):
    (tmp_path / "text.mp3").write_text("no sound")
    (tmp_path / "empty.wav").write_bytes(b"")
    header_only = media.write_wav(tmp_path / "header.wav", np.zeros(0))
    mute = media.write_clip(tmp_path / "mute.mp4", media.numbered_frames(2))
    for path in (tmp_path / "text.mp3", tmp_path / "empty.wav", tmp_path / "missing.wav", tmp_path, header_only, mute):
        with pytest.raises(BadInput) as caught:
            load_waveform(path)
        assert str(path) in str(caught.value)
    assert not has_audio(mute)
    assert has_audio(header_only)


def test_blocks_without_samples_are_passed_over(tmp_path: Path, monkeypatch) -> None:
    """The encoder refuses empty frames, but a resampler may return no samples yet."""
    tone = np.sin(np.arange(4800) / 10).astype(np.float32)[None]

    def blocks(*_):
        yield tone[:, :0]
        yield tone
        yield tone[:, :0]

    source = tmp_path / "tone.wav"
    media.write_wav(source, tone[0])
    monkeypatch.setattr("utils.media.audio._sound_blocks", blocks)
    with av.open(str(tmp_path / "out.mp4"), "w") as container:
        encoder = AudioEncoder(container, source)
        encoder.advance(1.0)
        encoder.close()
    monkeypatch.undo()
    assert len(load_waveform(tmp_path / "out.mp4", 48_000)) == pytest.approx(4800, abs=2048)


def test_mp3_sounds_like_what_went_in(tmp_path):
    wave = 0.4 * np.sin(2 * np.pi * 440 * np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    write_mp3(tmp_path / "tone.mp3", wave)
    decoded = load_waveform(tmp_path / "tone.mp3")
    assert abs(len(decoded) - len(wave)) <= 1152
    n_samples = min(len(decoded), len(wave))
    assert np.corrcoef(decoded[:n_samples], wave[:n_samples])[0, 1] > 0.99


@pytest.mark.parametrize("longest", [1, 5000, 10**9])
def test_no_more_of_a_sound_is_decoded_than_is_asked_for(tmp_path, longest):
    path = media.write_wav(tmp_path / "a.wav", media.speech_like(1.5))
    np.testing.assert_array_equal(load_waveform(path, longest=longest), load_waveform(path)[:longest])


def test_flac_keeps_every_sample(tmp_path):
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, 70_001, dtype=np.int16)
    write_flac(tmp_path / "noise.flac", samples)
    assert np.array_equal(load_waveform(tmp_path / "noise.flac") * 2**15, samples)
