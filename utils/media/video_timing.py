"""Presentation times of a video's frames: time stamps, leaps in them, seeking (PyAV)."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av

from utils.core.errors import BadInput, printable
from utils.core.types import MOTION_FPS
from utils.media.audio import (
    LONGEST_GAP,
    decode_tolerantly,
    open_media,
    require_decoder,
    start_seconds,
    video_streams,
)

LARGEST_DENOMINATOR = 1001  # of 30000/1001, the rates of NTSC
FASTEST = 250  # frames per second; a larger value is the unit of a clock
LONGEST_GAP_OF_BROADCAST = 10.0  # seconds, in formats whose stamps may start over (FFmpeg's TS_DISCONT)
_STEP_BACK = 0.5  # seconds; larger steps back mean restarted time stamps
_N_MEASURED = 250  # frames whose distances give the rate of a file that contradicts itself
_SEEK_MARGINS = (0.5, 4.0, math.inf)  # seconds before a wanted frame; tried until decoding starts early enough
_MISSING_END = 0.5  # seconds by which a header may exceed the video
_REORDER_DELAY = 0.2  # seconds, largest delay of the first frame in containers that count in decoding order

_log = logging.getLogger(__name__)


def video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    streams = video_streams(container)
    if not streams:
        raise BadInput("no video stream", path, "a video", "sound only", "give a clip that shows a face")
    require_decoder(streams[0], path)
    streams[0].thread_type = "AUTO"  # always: the result of decoding damaged frames can depend on it
    return streams[0]


def constant_rate(path: Path) -> Fraction:
    """Constant frame rate of a clip that keeps its own rate.

    For uneven frames this is the nominal rate, at which every frame is shown and gaps repeat a frame. A nominal rate
    that most frames contradict is a clock's unit; the median rate is used then. 25 if nothing is known.
    """
    with open_media(path) as container:
        stream = video_stream(container, path)
        mean, nominal = _plausible(stream.average_rate), _plausible(stream.guessed_rate)
        if nominal and mean and 0.9 < nominal / mean < 1.1:
            return nominal
        stamps = sorted(float(time) for time in itertools.islice(_packet_times(container, stream), _N_MEASURED))
    steps = sorted(later - earlier for earlier, later in itertools.pairwise(stamps) if later > earlier)
    usual = _plausible(Fraction(1 / steps[len(steps) // 2])) if steps else None
    if usual is None or (nominal and 0.75 < nominal / usual < 1.3):
        return nominal or mean or Fraction(MOTION_FPS)
    return usual


def _plausible(rate: Fraction | None) -> Fraction | None:
    if not rate or not 0 < rate <= FASTEST:
        return None
    return Fraction(rate).limit_denominator(LARGEST_DENOMINATOR) or None


def _packet_times(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[Fraction]:
    try:
        for packet in container.demux(stream):
            if packet.pts is not None and packet.time_base is not None:
                yield packet.pts * packet.time_base
    except av.FFmpegError:  # the readable part of a damaged file suffices
        return


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame that the output frames from ``slot`` to ``end`` (excluded) show."""

    frame: av.VideoFrame
    slot: int
    end: int


def timed_frames(path: Path, fps: float, start: int) -> Iterator[TimedFrame]:
    """Decoded frames, beginning with one shown at or before output frame ``start``."""
    may_seek = start > 0 and not has_leaps(path)
    for margin in _SEEK_MARGINS if may_seek else (math.inf,):
        with open_media(path) as container:
            frames = _decode_from(container, path, fps, start / fps - margin)
            first = next(frames, None)
            if margin == math.inf or (first is not None and first.slot <= start):
                yield from itertools.chain([first] if first else [], frames)
                return


def has_leaps(path: Path) -> bool:
    """Whether a clip's time stamps start over or leap, so that seeking by time fails."""
    status = path.stat()
    return _has_leaps(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=32)
def _has_leaps(path: Path, _size: int, _changed: int) -> bool:
    with open_media(path) as container:
        stream = video_stream(container, path)
        longest, last = _longest_gap(container), None
        for time in _packet_times(container, stream):
            if last is not None and not last - 2 * _STEP_BACK <= time <= last + longest:
                return True
            last = time
    return False


def _longest_gap(container: av.container.InputContainer) -> float:
    is_broadcast = container.format.flags & av.format.Flags.ts_discont.value  # type: ignore[operator]
    return LONGEST_GAP_OF_BROADCAST if is_broadcast else LONGEST_GAP


def _decode_from(
    container: av.container.InputContainer, path: Path, fps: float, seconds: float
) -> Iterator[TimedFrame]:
    """Decode from a key frame before ``seconds``, or from the start; yields nothing if seeking fails.

    Frames before the first key frame lack their references and are left out.
    """
    stream = video_stream(container, path)
    origin: float | None = None
    if seconds > 0:
        origin = _origin(path)
        if not _seek(container, stream, origin + seconds):
            return
    interval = 1 / float(_plausible(stream.average_rate) or _plausible(stream.guessed_rate) or fps)
    next_time: float | None = start_seconds(stream) or 0.0 if origin is None else None
    last_time: float | None = None
    longest_gap, frames = _longest_gap(container), decode_tolerantly(container, stream)
    for frame in frames if origin is None else itertools.dropwhile(lambda entered: not entered.key_frame, frames):
        time = next_time if frame.time is None else frame.time
        if time is None:  # without time stamps frames can only be counted from the start
            return
        if origin is None:
            origin = _origin_of(stream, time)
        elif last_time is not None and not last_time - _STEP_BACK <= time <= last_time + longest_gap:
            origin += time - (last_time + interval)
        length = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else interval
        last_time, next_time = time, time + length
        slot = _nearest((time - origin) * fps)
        yield TimedFrame(frame, slot, max(slot + 1, _nearest((next_time - origin) * fps)))
    if last_time is not None and next_time is not None:
        _warn_of_missing_end(container, stream, path, next_time)


def _warn_of_missing_end(
    container: av.container.InputContainer, stream: av.VideoStream, path: Path, end: float
) -> None:
    """Warn if the header states a longer video: a truncated file decodes without an error."""
    length, promised = end - (start_seconds(stream) or 0.0), 0.0
    if stream.duration is not None and stream.time_base is not None:
        promised = float(stream.duration * stream.time_base)
    elif len(container.streams) == 1:  # else it may be another stream that is longer; Matroska counts from 0
        length, promised = end, (container.duration or 0) / av.time_base
    if length < promised - _MISSING_END:
        _log.warning("%s: the video ends after %.1f s; its header says %.1f s", printable(path), length, promised)


def _seek(container: av.container.InputContainer, stream: av.VideoStream, seconds: float) -> bool:
    if stream.time_base is None:
        return False
    try:
        container.seek(int(seconds / stream.time_base), stream=stream)
    except av.FFmpegError:
        return False
    return True


def _origin(path: Path) -> float:
    """Time of output frame 0 by the stream's own clock."""
    with open_media(path) as container:
        stream = video_stream(container, path)
        frame = next(decode_tolerantly(container, stream), None)
        return 0.0 if frame is None or frame.time is None else _origin_of(stream, frame.time)


def _origin_of(stream: av.VideoStream, first_time: float) -> float:
    """Time of the first frame; start of the stream if its first frames cannot be decoded."""
    start = start_seconds(stream)
    return first_time if start is None or first_time - start < _REORDER_DELAY else start


def _nearest(number: float) -> int:
    return math.floor(number + 0.5)
