"""Small generated clips and sounds of many containers, codecs, rates and orientations."""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np

N_BITS = 8  # of the number that a numbered frame carries
TIME_BASE = Fraction(1, 90_000)
TURNS = {  # degrees counterclockwise, or a mirror: a, b, c, d of the display matrix
    90: (0, -1, 1, 0),
    180: (-1, 0, 0, -1),
    270: (0, 1, -1, 0),
    "mirror": (-1, 0, 0, 1),
}


def numbered_frames(n_frames: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """uint8 RGB frames that carry their own number as eight black or white bars."""
    frames = []
    for number in range(n_frames):
        bars = [(number >> bit) & 1 for bit in range(N_BITS)]
        columns = np.repeat(np.array(bars, np.uint8) * 200 + 25, -(-width // N_BITS))[:width]
        frames.append(np.broadcast_to(columns[None, :, None], (height, width, 3)).copy())
    return frames


def number_of(frame: np.ndarray) -> int:
    """Numbers that numbered_frames wrote into a frame."""
    width = frame.shape[1]
    bar = -(-width // N_BITS)
    centres = np.minimum(np.arange(N_BITS) * bar + bar // 2, width - 1)
    bits = frame[frame.shape[0] // 2, centres].mean(axis=-1) > 125
    return int((bits << np.arange(N_BITS)).sum())


@cache
def portrait(size: int = 192) -> np.ndarray:
    """A real face, uint8 RGB [size, size, 3] (Eileen Collins, NASA, public domain)."""
    from PIL import Image
    from skimage.data import astronaut

    face = Image.fromarray(astronaut()[:300, 75:375])
    return np.asarray(face.resize((size, size), Image.Resampling.LANCZOS))


def face_frames(n_frames: int, size: int = 192) -> list[np.ndarray]:
    """The portrait, drifting by a pixel per frame."""
    return [np.roll(portrait(size), index % 6 - 3, axis=1) for index in range(n_frames)]


def blank_frames(n_frames: int, size: int = 192) -> list[np.ndarray]:
    return [np.full((size, size, 3), 90, np.uint8) for _ in range(n_frames)]


def smooth_picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Soft colour blobs over the whole range, uint8 RGB."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).standard_normal((height, width, 3))
    blobs = gaussian_filter(noise, (height / 12, width / 12, 0), mode="wrap")
    low, high = blobs.min((0, 1)), blobs.max((0, 1))
    return np.rint((blobs - low) / (high - low) * 255).astype(np.uint8)


def speech_like(seconds: float, rate: int = 16_000) -> np.ndarray:
    """A 120 Hz pulse train whose loudness varies four times a second, float32 mono."""
    time = np.arange(round(seconds * rate)) / rate
    buzz = np.sign(np.sin(2 * np.pi * 120 * time)) * (0.6 + 0.4 * np.sin(2 * np.pi * 700 * time))
    return (0.3 * buzz * np.sin(2 * np.pi * 2 * time) ** 2).astype(np.float32)


def clicks(seconds: float, times: Iterable[float], rate: int = 48_000) -> np.ndarray:
    """Silence with 5 ms bursts of 1 kHz at ``times``, float32 mono."""
    sound = np.zeros(round(seconds * rate), np.float32)
    burst = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(rate // 200) / rate)
    for time in times:
        sound[round(time * rate) :][: len(burst)] += burst[: len(sound) - round(time * rate)]
    return sound


def click_times(sound: np.ndarray, rate: int, threshold: float = 0.3) -> list[float]:
    """When bursts begin: the first loud sample after 50 ms of quiet, seconds."""
    loud = np.flatnonzero(np.abs(sound) > threshold)
    begins = loud[np.diff(loud, prepend=-rate) > rate // 20]
    return [float(index) / rate for index in begins]


def write_wav(path: Path, sound: np.ndarray, rate: int = 16_000) -> Path:
    """``sound``: float [n] or [channel, n] in [-1, 1)."""
    channels = np.atleast_2d(sound)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((channels.T * 32767).astype("<i2").tobytes())
    return path


def write_song_with_cover(path: Path, sound: np.ndarray, rate: int) -> Path:
    """An mp3 with an ID3 tag that holds an image."""
    from PIL import Image

    with av.open(str(path), "w", format="mp3", options={"id3v2_version": "0", "write_id3v1": "0"}) as container:
        stream = container.add_stream("libmp3lame", rate=rate, layout="mono")
        block = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="fltp", layout="mono")
        block.sample_rate = rate
        container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    picture = io.BytesIO()
    Image.fromarray(portrait(32)).save(picture, "jpeg")
    body = b"\0image/jpeg\0\x03\0" + picture.getvalue()
    tag = b"APIC" + struct.pack(">I", len(body)) + b"\0\0" + body
    size = bytes((len(tag) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\x03\0\0" + size + tag + path.read_bytes())
    return path


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray],
    fps: float | Fraction = 25,
    times: Sequence[float] | None = None,
    sound: np.ndarray | None = None,
    sound_rate: int = 48_000,
    sound_start: float = 0.0,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    colour: tuple[int, int, int, int] | None = None,
    pixel_aspect: Fraction | None = None,
    turn: int | str | None = None,
    file_options: Mapping[str, str] | None = None,
) -> Path:
    """Encode frames, at ``times`` (seconds) instead of a constant rate if given, with a mono sound track.

    ``colour``: matrix, primaries, transfer (ITU-T H.273) and range (1 limited, 2 full) to convert to and to tag.
    ``turn``: a key of TURNS; mp4 only.
    """
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w", options=dict(file_options or {})) as container:
        quality = {"crf": "12", "preset": "veryfast"} if codec == "libx264" else {}
        video = container.add_stream(codec, rate=rate, options={**quality, **(options or {})})
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = pix_fmt
        context = video.codec_context
        time_base = TIME_BASE if codec == "libx264" else 1 / rate
        context.time_base = time_base
        if pixel_aspect:
            context.sample_aspect_ratio = pixel_aspect
        if colour:
            context.colorspace, context.color_primaries, context.color_trc, context.color_range = colour
        if sound is not None:
            audio = container.add_stream(
                "pcm_s16le" if path.suffix == ".avi" else "aac", rate=sound_rate, layout="mono"
            )
        for index, frame in enumerate(frames):
            seconds = times[index] if times is not None else index / rate
            picture = _converted(frame, pix_fmt, colour)
            picture.pts, picture.time_base = round(seconds / time_base), time_base
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if sound is not None:
            for first in range(0, len(sound), 1024):
                block = av.AudioFrame.from_ndarray(sound[None, first : first + 1024], format="fltp", layout="mono")
                block.sample_rate, block.time_base = sound_rate, Fraction(1, sound_rate)
                block.pts = first + round(sound_start * sound_rate)
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    if turn is not None:
        _set_display_matrix(path, TURNS[turn])
    return path


def _converted(frame: np.ndarray, pix_fmt: str, colour: tuple[int, int, int, int] | None) -> av.VideoFrame:
    """RGB to the stream's pixels; the matrix is applied here, so that it does not come from the code under test."""
    if "yuv" not in pix_fmt:
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(format=pix_fmt)
    matrix, value_range = (colour[0], colour[3]) if colour else (2, 1)
    red_weight, blue_weight = (0.2126, 0.0722) if matrix == 1 else (0.299, 0.114)
    red, green, blue = np.moveaxis(frame / 255.0, -1, 0)
    luma = red_weight * red + (1 - red_weight - blue_weight) * green + blue_weight * blue
    chroma = (blue - luma) / (1 - blue_weight) / 2, (red - luma) / (1 - red_weight) / 2
    luma_scale, black, chroma_scale = (255, 0, 255) if value_range == 2 else (219, 16, 224)
    planes = np.stack([black + luma_scale * luma, *(128 + chroma_scale * plane for plane in chroma)])
    format_name = "yuvj444p" if pix_fmt.startswith("yuvj") else "yuv444p"
    full_size = av.VideoFrame.from_ndarray(np.rint(planes).clip(0, 255).astype(np.uint8), format=format_name)
    flags = av.video.reformatter.Interpolation
    return full_size.reformat(format=pix_fmt, interpolation=flags.BICUBIC | flags.ACCURATE_RND)


def _set_display_matrix(path: Path, axes: tuple[int, int, int, int]) -> None:
    """Write a display matrix into an mp4's first track header (version 0)."""
    content = bytearray(path.read_bytes())
    matrix_at = content.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in axes)
    struct.pack_into(">9i", content, matrix_at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
