"""Videos written in parts, each a file of its own, and joined without encoding again.

part 00000  |I P B P ... P|            every part begins with a key frame, and no frame refers to another part
part 00001                |I P B ... P|
result      |I P B P ... P|I P B ... P|
sound       |=========================|   encoded when the parts are joined
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av

from utils.core.errors import StageFailure
from utils.core.types import MOTION_FPS
from utils.files.atomic import atomic_path
from utils.media.audio import AudioEncoder, is_short_of_memory, media_name

PART_FRAMES = 240  # about x264's distance of key frames


def split_frames(n_frames: int, batch_size: int) -> list[range]:
    """The frames of each part; all parts but the last are whole batches, so that batches are the same in every run."""
    length = max(1, round(PART_FRAMES / batch_size)) * batch_size
    return [range(start, min(start + length, n_frames)) for start in range(0, n_frames, length)]


def part_path(folder: Path, frames: range) -> Path:
    return folder / f"{frames.start:08d}.mp4"


def has_part(folder: Path, frames: range) -> bool:
    """Whether the part with these frames exists and is complete."""
    path = part_path(folder, frames)
    if not path.is_file():
        return False
    try:
        with av.open(media_name(path)) as container:
            if not container.streams.video:
                return False
            packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
            return len(packets) == len(frames) and not any(packet.is_corrupt for packet in packets)
    except av.FFmpegError:
        return False


def join_parts(
    path: Path,
    parts: Sequence[Path],
    fps: float = MOTION_FPS,
    audio_path: Path | None = None,
    metadata: Mapping[str, str] | None = None,
    audio_start: float = 0.0,
    fill_sound: bool = False,
) -> None:
    """Write one mp4 of all parts, whole or not at all; the arguments are those of utils.media.video.VideoWriter.

    fill_sound: if the sound ends before the video, silence follows.
    """
    rate = Fraction(fps).limit_denominator(1001)
    delay = max(_decoding_delay(part, rate) for part in parts)
    with failing_readably(path), atomic_path(path) as temporary, contextlib.ExitStack() as stack:
        output = stack.enter_context(av.open(media_name(temporary), "w", options={"movflags": "+faststart"}))
        output.metadata.update(metadata or {})
        with av.open(media_name(parts[0])) as first:
            stream = output.add_stream_from_template(first.streams.video[0])
        audio = None if audio_path is None else AudioEncoder(output, audio_path, audio_start, fill_sound)
        n_frames = 0
        for part in parts:
            start = n_frames
            for packet in _packets(part, rate):
                packet.pts, packet.dts, packet.duration = start + (packet.pts or 0), n_frames - delay, 1
                packet.stream = stream
                output.mux(packet)
                n_frames += 1
                if audio:
                    audio.advance(float(n_frames / rate))
        if audio:
            audio.close()


def read_tag(path: Path, name: str) -> str | None:
    """A metadata tag of a video; None if it lacks the tag or cannot be read."""
    if not path.is_file():
        return None
    try:
        with av.open(media_name(path), metadata_errors="ignore") as container:
            return container.metadata.get(name)
    except av.FFmpegError:
        return None


@contextlib.contextmanager
def failing_readably(path: Path) -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        if is_short_of_memory(error):
            raise MemoryError("no memory to encode video") from error
        reason = error.strerror or type(error).__name__
        raise StageFailure(f"video could not be written ({path}): {reason}; check the free space") from error


def _packets(part: Path, rate: Fraction) -> Generator[av.Packet, None, None]:
    """A part's packets in decoding order, their times counted in frames."""
    with av.open(media_name(part)) as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.dts is None:  # the demuxer's empty last packet
                continue
            ticks = packet.time_base * rate
            packet.pts, packet.dts = round((packet.pts or 0) * ticks), round(packet.dts * ticks)
            packet.time_base = 1 / rate
            yield packet


def _decoding_delay(part: Path, rate: Fraction) -> int:
    """Frames by which decoding of a part runs ahead of presentation."""
    packets = _packets(part, rate)
    first = next(packets, None)
    packets.close()
    return 0 if first is None else -(first.dts or 0)
