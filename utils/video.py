"""Decoding and encoding of video (PyAV): constant frame rate, upright, streamed, bounded memory."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from utils.audio import AudioEncoder, open_media
from utils.errors import BadInput
from utils.store import atomic_path
from utils.types import MOTION_FPS, VideoInfo

X264_CRF = 18
REVERSE_BLOCK = 48  # frames held at once while a clip plays backwards
_SEEK_MARGIN = 0.5  # seconds before a wanted frame where decoding starts
_BT709, _LIMITED_RANGE = 1, 1  # H.264 colour codes (ITU-T H.273)
_log = logging.getLogger(__name__)


def probe_video(path: Path) -> VideoInfo:
    """Read a clip's display size, rate and length. Raises BadInput without a decodable video stream."""
    with open_media(path) as container:
        stream = _video_stream(container, path)
        frame = next(_decodable(container, stream), None)
        if frame is None:
            raise BadInput(
                "no video frame can be decoded", path, "at least one frame", "none", "convert the file"
            )
        height, width = _upright_rgb(frame).shape[:2]
        fps = Fraction(stream.average_rate or stream.guessed_rate or MOTION_FPS)
        if stream.duration is not None:
            duration = float(stream.duration * stream.time_base)
        else:
            duration = (container.duration or 0) / av.time_base
        return VideoInfo(path, width, height, fps, duration, bool(container.streams.audio))


def read_frames(
    path: Path, fps: float = MOTION_FPS, start: int = 0, stop: int | None = None
) -> Iterator[np.ndarray]:
    """Yield upright uint8 RGB [H, W, 3] frames ``start`` to ``stop`` of the clip played at a constant ``fps``.

    A source frame at time t (from the first frame on) is shown from output frame round(t * fps) until the next
    one; gaps of variable-rate clips repeat the last frame. A damaged end cuts the clip short with a warning.
    """
    shown: np.ndarray | None = None
    next_index = start
    with open_media(path) as container:
        stream = _video_stream(container, path)
        stream.thread_type = "AUTO"
        first_time = _first_time(path)
        if start:
            seek_time = max(first_time, first_time + start / fps - _SEEK_MARGIN)
            container.seek(int(seek_time / stream.time_base), stream=stream)
        end_slot = 0
        for frame in _decodable(container, stream):
            time = (
                float(frame.pts * stream.time_base) - first_time if frame.pts is not None else end_slot / fps
            )
            slot = int(time * fps + 0.5)
            while shown is not None and next_index < slot:
                if stop is not None and next_index >= stop:
                    return
                yield shown
                next_index += 1
            shown = _upright_rgb(frame)
            duration = float(frame.duration * stream.time_base) if frame.duration else 1 / fps
            end_slot = max(slot + 1, int((time + duration) * fps + 0.5))
        while shown is not None and next_index < (end_slot if stop is None else min(stop, end_slot)):
            yield shown
            next_index += 1


def read_frames_at(path: Path, indices: Sequence[int], fps: float = MOTION_FPS) -> Iterator[np.ndarray]:
    """Yield the frames named by ``indices`` in that order, holding at most REVERSE_BLOCK of them.

    Runs that go forwards are streamed; runs that go backwards are decoded block by block and reversed.
    """
    position = 0
    while position < len(indices):
        run = _run_length(indices, position)
        low, high = sorted((indices[position], indices[position + run - 1]))
        if indices[position] <= indices[position + run - 1]:
            yield from _checked(path, fps, low, high)
        else:
            for block_high in range(high, low - 1, -REVERSE_BLOCK):
                block = list(_checked(path, fps, max(low, block_high - REVERSE_BLOCK + 1), block_high))
                yield from reversed(block)
        position += run


def _run_length(indices: Sequence[int], position: int) -> int:
    """Length of the longest run from ``position`` that goes steadily up or steadily down by one."""
    if position + 1 >= len(indices) or abs(indices[position + 1] - indices[position]) != 1:
        return 1
    step = indices[position + 1] - indices[position]
    length = 2
    while (
        position + length < len(indices)
        and indices[position + length] - indices[position + length - 1] == step
    ):
        length += 1
    return length


def _checked(path: Path, fps: float, low: int, high: int) -> Iterator[np.ndarray]:
    count = 0
    for frame in read_frames(path, fps, low, high + 1):
        count += 1
        yield frame
    if count != high + 1 - low:
        found = f"{low + count}"
        raise BadInput(
            "clip is shorter than its track", path, f"{high + 1} frames", found, "run stage 2 again"
        )


class VideoWriter:
    """H.264/AAC mp4 written frame by frame under a temporary name; renamed when the ``with`` block ends well."""

    def __init__(
        self,
        path: Path,
        fps: float = MOTION_FPS,
        audio_path: Path | None = None,
        metadata: Mapping[str, str] | None = None,
        crf: int = X264_CRF,
    ) -> None:
        self._path, self._audio_path = path, audio_path
        self._fps, self._crf = Fraction(fps).limit_denominator(1001), crf
        self._metadata = dict(metadata or {})
        self._stack = contextlib.ExitStack()
        self._audio: AudioEncoder | None = None
        self._n_frames = 0

    def __enter__(self) -> VideoWriter:
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self._path))
            self._container = stack.enter_context(
                av.open(str(temporary), "w", options={"movflags": "+faststart"})
            )
            self._container.metadata.update(self._metadata)
            self._stream = self._container.add_stream(
                "libx264", rate=self._fps, options={"crf": str(self._crf)}
            )
            if self._audio_path is not None:
                self._audio = AudioEncoder(self._container, self._audio_path)
            self._stack = stack.pop_all()
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append uint8 RGB [H, W, 3]; all frames must have one size. An odd side grows by one repeated line."""
        height, width = frame.shape[:2]
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._n_frames == 0:
            self._describe_stream(frame)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        picture.pts, picture.time_base = self._n_frames, 1 / self._fps
        self._container.mux(self._stream.encode(picture))
        self._n_frames += 1
        if self._audio:
            self._audio.advance(float(self._n_frames / self._fps))

    def _describe_stream(self, frame: np.ndarray) -> None:
        self._stream.height, self._stream.width = frame.shape[:2]
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is not None:
                self._stack.__exit__(kind, error, trace)
                return
            self._container.mux(self._stream.encode(None))
            if self._audio:
                self._audio.close()


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    if not container.streams.video:
        raise BadInput("no video stream", path, "a video", "sound only", "give a clip that shows a face")
    return container.streams.video[0]


def _first_time(path: Path) -> float:
    """Seconds of the first decodable frame, the origin of the clip's own time."""
    with open_media(path) as container:
        stream = _video_stream(container, path)
        frame = next(_decodable(container, stream), None)
        if frame is None:
            raise BadInput(
                "no video frame can be decoded", path, "at least one frame", "none", "convert the file"
            )
        return float(frame.pts * stream.time_base) if frame.pts is not None else 0.0


def _decodable(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """All frames up to the end of the file or of its readable part."""
    try:
        yield from container.decode(stream)
    except av.FFmpegError as error:
        _log.warning("%s: decoding stopped early (%s)", container.name, error.strerror)


def _upright_rgb(frame: av.VideoFrame) -> np.ndarray:
    image = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90))) if frame.rotation else image
