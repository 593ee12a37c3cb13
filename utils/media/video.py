"""Decoding and encoding of video (PyAV): constant frame rate, upright, streamed, bounded memory."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from utils.core.errors import BadInput
from utils.core.types import MOTION_FPS, PictureFormat, VideoInfo
from utils.files.atomic import atomic_path
from utils.media.audio import AudioEncoder, decode_tolerantly, is_short_of_memory, media_name, open_media
from utils.media.timeline import monotonic_runs
from utils.media.video_parts import failing_readably
from utils.media.video_timing import constant_rate, timed_frames, video_stream

X264_CRF = 18
X264_PRESET = "fast"  # a fifth less work than x264's own choice, the same PSNR, files 4 % larger
ONE_THREAD_PIXELS = 512 * 512  # of a frame; up to here the threads of x264 and swscale cost more than they gain
X264_REPEATABLE = "mbtree=0"  # macroblock-tree rate control varies from run to run on some processors
REVERSE_BLOCK = 48  # frames held at once for a falling run
# swscale's default rounds every channel down, by 1.2 grey levels on average; these flags keep the mean to 0.1.
_EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_MATRICES = (1, 4, 7, 9)  # ITU-T H.273 codes that swscale knows by the same number; BT.601 serves for the rest
_BT601 = 5  # swscale's own number
_UNTAGGED, _BT601_CODES = 2, (2, 5, 6)  # H.273 codes that mean BT.601 to swscale
_NAMED_CODES = {1, *range(4, 19)}  # H.273 codes of matrix, primaries or transfer that an encoder accepts
_LIMITED_RANGE = 1  # FFmpeg's code; swscale reads full-range sources well but writes them 0.9 grey levels off


VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".ts")


def videos_in(folder: Path) -> list[Path]:
    """Videos of a folder, sorted by name, known by their suffix. Hidden files (unfinished ones) are left out."""
    named = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in named if path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir())


def probe_video(path: Path) -> VideoInfo:
    """Read a clip's display size, constant rate and length. Raises BadInput without a decodable video stream."""
    with open_media(path) as container:
        stream = video_stream(container, path)
        frame = next(decode_tolerantly(container, stream), None)
        if frame is None:
            raise BadInput("no video frame can be decoded", path, "at least one frame", "none", "convert the file")
        height, width = _upright_rgb(frame, path).shape[:2]
        if stream.duration is not None and stream.time_base is not None:
            duration = float(stream.duration * stream.time_base)
        else:
            duration = (container.duration or 0) / av.time_base
        has_audio = bool(container.streams.audio)
        return VideoInfo(path, width, height, constant_rate(path), duration, has_audio, _picture_format(stream, frame))


def read_frames(path: Path, fps: float = MOTION_FPS, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
    """Yield upright uint8 RGB [H, W, 3] frames ``start`` to ``stop`` of the clip played at a constant ``fps``.

    A source frame at time t (from the stream's start on) is shown from output frame round(t * fps) until the next
    one; gaps of variable-rate clips repeat the last frame. A damaged end cuts the clip short with a warning. Where the
    size changes on the way, frames are brought to that of the first.
    """
    next_index, shown, size = start, None, _stored_size(path)
    for timed in timed_frames(path, fps, start):
        end = timed.slot if stop is None else min(stop, timed.slot)
        while shown is not None and next_index < end:
            yield _upright_rgb(shown.frame, path, size)
            next_index += 1
        if stop is not None and next_index >= stop:
            return
        shown = timed
    while shown is not None and next_index < (shown.end if stop is None else min(stop, shown.end)):
        yield _upright_rgb(shown.frame, path, size)
        next_index += 1


def read_frames_at(path: Path, indices: Sequence[int], fps: float = MOTION_FPS) -> Iterator[np.ndarray]:
    """Yield the frames named by ``indices`` in that order, holding at most REVERSE_BLOCK of them.

    Rising runs are streamed; falling ones are decoded block by block and reversed.
    Raises BadInput when the clip has no such frame.
    """
    for run in monotonic_runs(indices, REVERSE_BLOCK):
        yield from (_forwards if run[0] <= run[-1] else _backwards)(path, fps, run)


def _forwards(path: Path, fps: float, run: Sequence[int]) -> Iterator[np.ndarray]:
    n_times = Counter(run)
    for number, frame in _numbered(path, fps, run[0], run[-1]):
        for n_left in reversed(range(n_times[number])):
            yield frame.copy() if n_left else frame


def _backwards(path: Path, fps: float, run: Sequence[int]) -> Iterator[np.ndarray]:
    wanted = set(run)
    kept = {number: frame for number, frame in _numbered(path, fps, run[-1], run[0]) if number in wanted}
    for number, following in itertools.zip_longest(run, run[1:]):
        yield kept[number].copy() if following == number else kept.pop(number)


def _numbered(path: Path, fps: float, low: int, high: int) -> Iterator[tuple[int, np.ndarray]]:
    """Frames low to high, with their numbers; raises BadInput if the clip ends before."""
    count = 0
    for count, frame in enumerate(read_frames(path, fps, low, high + 1), 1):
        yield low + count - 1, frame
    if low + count <= high:
        found = f"{low + count}" if count else f"at most {low}"
        raise BadInput("clip is shorter than its track", path, f"{high + 1} frames", found, "run stage 2 again")


class VideoWriter:
    """H.264/AAC mp4 written frame by frame under a temporary name; renamed when the ``with`` block ends well.

    ``picture``: colours and pixel shape to keep, those of the source clip; without it BT.709 and square pixels.
    ``audio_start``: seconds into the sound file that belong to the first frame.
    """

    def __init__(
        self,
        path: Path,
        fps: float = MOTION_FPS,
        audio_path: Path | None = None,
        metadata: Mapping[str, str] | None = None,
        crf: int = X264_CRF,
        picture: PictureFormat | None = None,
        audio_start: float = 0.0,
    ) -> None:
        self._path, self._audio_path, self._audio_start = path, audio_path, audio_start
        self._fps, self._crf = Fraction(fps).limit_denominator(1001), crf
        self._metadata = dict(metadata or {})
        self._picture = picture or PictureFormat()
        self._stack = contextlib.ExitStack()
        self._audio: AudioEncoder | None = None
        self._reformatter = VideoReformatter()
        self._shape: tuple[int, ...] = ()
        self._n_frames = 0

    def __enter__(self) -> VideoWriter:
        with contextlib.ExitStack() as stack:
            stack.enter_context(failing_readably(self._path))
            temporary = stack.enter_context(atomic_path(self._path))
            self._container = stack.enter_context(
                av.open(media_name(temporary), "w", options={"movflags": "+faststart"})
            )
            self._container.metadata.update(self._metadata)
            options = {"crf": str(self._crf), "preset": X264_PRESET, "x264-params": X264_REPEATABLE}
            self._stream = self._container.add_stream("libx264", rate=self._fps, options=options)
            if self._audio_path is not None:
                self._audio = AudioEncoder(self._container, self._audio_path, self._audio_start)
            self._stack = stack.pop_all()
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append uint8 RGB [H, W, 3]; an odd side grows by one repeated line.

        Raises ValueError if the size is not that of the first frame.
        """
        if frame.shape != (self._shape or frame.shape):
            raise ValueError(f"frame of shape {frame.shape} in a video of {self._shape}")
        height, width = frame.shape[:2]
        if self._n_frames == 0:
            self._shape = frame.shape
            self._describe_stream(height + height % 2, width + width % 2)
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"),
            format="yuv420p",
            dst_colorspace=self._picture.matrix if self._picture.matrix in _MATRICES else _BT601,
            dst_color_range=_LIMITED_RANGE,
            interpolation=_EXACT,
            threads=_n_threads(frame.shape[1], frame.shape[0]),
        )
        picture.pts, picture.time_base = self._n_frames, 1 / self._fps
        self._container.mux(self._stream.encode(picture))
        self._n_frames += 1
        if self._audio:
            self._audio.advance(float(self._n_frames / self._fps))

    def _describe_stream(self, height: int, width: int) -> None:
        context = self._stream.codec_context
        context.height, context.width, context.pix_fmt = height, width, "yuv420p"
        context.thread_count = _n_threads(width, height)
        context.colorspace = self._picture.matrix
        context.color_primaries, context.color_trc = self._picture.primaries, self._picture.transfer
        context.color_range = _LIMITED_RANGE
        context.sample_aspect_ratio = self._picture.pixel_aspect

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is not None:
                self._stack.__exit__(kind, error, trace)
                return
            if self._n_frames == 0:
                raise ValueError(f"no frame was written to {self._path}")
            self._container.mux(self._stream.encode(None))
            if self._audio:
                self._audio.close()


def _n_threads(width: int, height: int) -> int:
    """Threads for converting or encoding frames; 0: FFmpeg's choice."""
    return int(width * height <= ONE_THREAD_PIXELS)


def _picture_format(stream: av.VideoStream, frame: av.VideoFrame) -> PictureFormat:
    aspect = stream.sample_aspect_ratio or Fraction(1)
    if _display_axes(frame)[0, 0] == 0:
        aspect = 1 / aspect
    if frame.format.is_rgb:
        return PictureFormat(pixel_aspect=aspect)
    codes = (frame.colorspace, frame.color_primaries, frame.color_trc)
    matrix, primaries, transfer = (code if code in _NAMED_CODES else _UNTAGGED for code in codes)
    return PictureFormat(matrix, primaries, transfer, aspect)


def _stored_size(path: Path) -> tuple[int, int]:
    """Width and height of the first frame that can be decoded, before it is turned."""
    status = path.stat() if path.is_file() else None
    return _size_of(path, status and (status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=32)
def _size_of(path: Path, _state: object) -> tuple[int, int]:
    with open_media(path) as container:
        frame = next(decode_tolerantly(container, video_stream(container, path)), None)
        return (frame.width, frame.height) if frame else (0, 0)


def _upright_rgb(frame: av.VideoFrame, path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """The upright frame, uint8 RGB [H, W, 3], scaled to ``size`` (as stored, before turning) if given."""
    is_known = frame.format.is_rgb or frame.colorspace in (*_MATRICES, *_BT601_CODES)
    matrix = None if is_known else _BT601
    width, height = size or (frame.width, frame.height)
    try:
        image = frame.to_ndarray(
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=matrix,
            dst_colorspace=matrix,
            interpolation=_EXACT,
            threads=_n_threads(width, height),
        )
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, av.FFmpegError) and is_short_of_memory(error):
            raise MemoryError("no memory to convert a frame") from error
        reason = str(error) or type(error).__name__
        raise BadInput("frame cannot be converted to RGB", path, "a usual kind of pixels", reason) from error
    (x_to_x, x_to_y), (y_to_x, y_to_y) = _display_axes(frame)
    if x_to_x == 0:
        image, x_to_x, y_to_y = image.transpose(1, 0, 2), y_to_x, x_to_y
    return np.ascontiguousarray(image[:: y_to_y or 1, :: x_to_x or 1])


def _display_axes(frame: av.VideoFrame) -> np.ndarray:
    """Directions of the stored x and y axes on the screen, int [2, 2]: turns by right angles and mirrors."""
    side_data: Mapping = frame.side_data
    if "DISPLAYMATRIX" not in side_data:
        return np.eye(2, dtype=int)
    axes = np.frombuffer(side_data["DISPLAYMATRIX"], np.int32, 9).reshape(3, 3)[:2, :2]
    on_axis = np.abs(axes) == np.abs(axes).max(axis=1, keepdims=True)
    return np.sign(axes) * on_axis
