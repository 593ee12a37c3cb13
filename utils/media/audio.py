"""Decoding of speech and encoding of the output's sound track (PyAV)."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from utils.core.errors import BadInput, printable
from utils.core.types import SAMPLE_RATE
from utils.files.atomic import atomic_path

AAC_RATE = 48_000  # Hz
LOWEST_RATE, HIGHEST_RATE = 1000, 1_000_000  # Hz; other rates come from damaged headers
AAC_BITS_PER_SECOND = 128_000
MP3_BITS_PER_SECOND = 48_000
SYNC_TOLERANCE = 0.02  # seconds, half a video frame: sound further from its time stamp is moved
START_TOLERANCE = 0.001  # seconds, the unit of time stamps in Matroska; for the first sound
LONGEST_GAP = 600.0  # seconds; a larger step in time stamps is a leap
_INT16_SCALE = 32768.0
_WARM_UP = 0.5  # seconds decoded before a start in the middle of a file
_AUDIO_ADVICE = "give a file with a sound track (wav, mp3, m4a, mp4 ...)"
_log = logging.getLogger(__name__)


def load_waveform(path: Path, sample_rate: int = SAMPLE_RATE, longest: int | None = None) -> np.ndarray:
    """Decode a file's first sound track to float32 [n], mono, in [-1, 1); no more than ``longest`` samples.

    Sample 0 belongs to the first frame of the file's video, if it has one; gaps are silent. Samples pass through
    16-bit integers, as they do in the reference's intermediate wav file.
    Raises BadInput for a missing or unreadable file, or one without sound.
    """
    samples = bytearray()  # one allocation, returned to the system as a whole
    for block in waveform_blocks(path, sample_rate):
        samples += block.data
        if longest is not None and len(samples) >= longest * np.float32().nbytes:
            break
    if not samples:
        raise BadInput("no sound could be decoded", path, "at least one sample", "none", _AUDIO_ADVICE)
    return np.frombuffer(samples, np.float32)[:longest]


def waveform_blocks(path: Path, sample_rate: int = SAMPLE_RATE) -> Iterator[np.ndarray]:
    """The samples of load_waveform in blocks, for long files."""
    for block in _sound_blocks(path, "s16", "mono", sample_rate):
        yield block[0].astype(np.float32) / _INT16_SCALE


def write_mp3(path: Path, wave: np.ndarray, sample_rate: int = SAMPLE_RATE) -> None:
    """Encode float32 [n], mono, in [-1, 1) as MP3, whole or not at all."""
    _write_sound(path, "mp3", wave.astype(np.float32), "fltp", sample_rate, bit_rate=MP3_BITS_PER_SECOND)


def write_flac(path: Path, samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> None:
    """Encode int16 [n], mono, as FLAC, without loss, whole or not at all."""
    _write_sound(path, "flac", samples.astype(np.int16), "s16", sample_rate)


def _write_sound(path: Path, codec: str, samples: np.ndarray, sample_format: str, rate: int, **options: Any) -> None:
    with atomic_path(path) as temporary, av.open(media_name(temporary), "w", format=codec) as container:
        stream: Any = container.add_stream(codec, rate=rate, layout="mono", format=sample_format, **options)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format=sample_format, layout="mono")
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def media_name(path: Path) -> str:
    """A path that FFmpeg takes for a file: "12:30.mp4" alone would be a network protocol."""
    return f"file:{path}"


def open_media(path: Path) -> av.container.InputContainer:
    """Open a media file for reading; raises BadInput if it is missing or not media."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "a link that leads nowhere" if path.is_symlink() else "nothing"
        raise BadInput("media file missing", path, "a video or audio file", found, "check the path")
    try:
        return av.open(media_name(path), metadata_errors="ignore")
    except av.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        advice = "the file is damaged or of an unknown type; convert or download it again"
        if isinstance(error, PermissionError):
            advice = "let it be read"
        raise BadInput("media file cannot be opened", path, "a readable container", reason, advice) from error


def require_media(path: Path) -> None:
    """Raise BadInput unless a file is there and can be opened, as open_media does."""
    open_media(path).close()


def has_audio(path: Path) -> bool:
    with open_media(path) as container:
        return bool(container.streams.audio)


def video_streams(container: av.container.InputContainer) -> list[av.VideoStream]:
    """A file's video streams without cover pictures."""
    cover = av.stream.Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & cover]


def require_decoder(stream: av.AudioStream | av.VideoStream, path: Path) -> None:
    """Raise BadInput for a stream of a codec unknown to FFmpeg."""
    if getattr(stream, "codec_context", None) is None:  # though its type says otherwise
        advice = "convert or download the file again"
        raise BadInput(f"{stream.type} of an unknown codec", path, "one that FFmpeg decodes", "another", advice)


def start_seconds(stream: av.AudioStream | av.VideoStream) -> float | None:
    """Start time of a stream by its own clock."""
    if stream.start_time is None or stream.time_base is None:
        return None
    return float(stream.start_time * stream.time_base)


def decode_tolerantly(container: av.container.InputContainer, stream: av.AudioStream | av.VideoStream) -> Iterator[Any]:
    """Every decodable frame of a stream; damaged parts are left out, with a warning.

    Raises MemoryError if FFmpeg runs out of memory, which is no damage.
    """
    damage = ""

    def attempt(step: Callable[[], Any], otherwise: Any) -> Any:
        nonlocal damage
        try:
            return step()
        except av.EOFError:
            return otherwise
        except av.FFmpegError as error:
            if error.errno == errno.ENOMEM or (is_short_of_memory(error) and not stream.codec_context.is_open):
                raise MemoryError(f"no memory to decode {stream.type}") from error
            damage = error.strerror or type(error).__name__
            return otherwise

    n_frames = 0
    packets = container.demux(stream)
    while (packet := attempt(lambda: next(packets, None), None)) is not None:
        for frame in attempt(packet.decode, []):
            n_frames += 1
            yield frame
    yield from attempt(lambda: stream.codec_context.decode(None), [])  # frames left in the decoder after a read error
    if damage and n_frames:
        name = printable(container.name.removeprefix("file:"))
        _log.warning("%s: parts of the %s are damaged (%s)", name, stream.type, damage)


def is_short_of_memory(error: av.FFmpegError) -> bool:
    """Whether FFmpeg ran out of memory: for buffers, or (EAGAIN, a BlockingIOError) for a thread's stack."""
    return error.errno in (errno.ENOMEM, errno.EAGAIN)


class AudioEncoder:
    """AAC track of an output container, fed from a sound file from ``start`` seconds on.

    ``fill``: silence follows the end of the file.
    """

    def __init__(
        self, container: av.container.OutputContainer, source_path: Path, start: float = 0.0, fill: bool = False
    ) -> None:
        with open_media(source_path) as source:
            layout = "mono" if _sound_stream(source, source_path).channels == 1 else "stereo"
        self._container = container
        self._stream = container.add_stream("aac", rate=AAC_RATE, layout=layout, bit_rate=AAC_BITS_PER_SECOND)
        self._layout, self._fill = layout, fill
        self._blocks = _sound_blocks(source_path, "fltp", layout, AAC_RATE, start)
        self._waiting = np.zeros((0, 0), np.float32)  # [channel, sample], decoded but not due yet
        self._n_samples = 0

    def advance(self, seconds: float) -> None:
        """Encode sound until the track reaches ``seconds`` (never beyond) or, without ``fill``, the file ends."""
        n_wanted = round(seconds * AAC_RATE)
        while self._n_samples < n_wanted:
            if self._waiting.shape[1] == 0:
                block = next(self._blocks, None)
                if block is None and self._fill:
                    n_silent = min(n_wanted - self._n_samples, AAC_RATE)
                    block = np.zeros((1 if self._layout == "mono" else 2, n_silent), np.float32)
                if block is None:
                    return
                self._waiting = block
                continue  # a block may be empty: the resampler delays sound
            n_due = min(n_wanted - self._n_samples, self._waiting.shape[1])
            self._encode(self._waiting[:, :n_due])
            self._waiting = self._waiting[:, n_due:]

    def close(self) -> None:
        self._blocks.close()
        self._container.mux(self._stream.encode(None))

    def _encode(self, samples: np.ndarray) -> None:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._layout)
        frame.sample_rate = AAC_RATE
        frame.pts, frame.time_base = self._n_samples, Fraction(1, AAC_RATE)
        self._n_samples += samples.shape[1]
        self._container.mux(self._stream.encode(frame))


def _sound_stream(container: av.container.InputContainer, path: Path) -> av.AudioStream:
    if not container.streams.audio:
        raise BadInput("no sound track", path, "an audio stream", "none", _AUDIO_ADVICE)
    stream = container.streams.audio[0]
    require_decoder(stream, path)
    rate = stream.codec_context.sample_rate  # 0: unknown before decoding
    if rate and not LOWEST_RATE <= rate <= HIGHEST_RATE:
        expected, advice = f"{LOWEST_RATE} to {HIGHEST_RATE} samples/s", "convert or download the file again"
        raise BadInput("sound of an impossible rate", path, expected, str(rate), advice)
    return stream


def _sound_blocks(
    path: Path, sample_format: str, layout: str, sample_rate: int, start: float = 0.0
) -> Generator[np.ndarray, None, None]:
    """Decoded and resampled sound [channel, sample], placed by its time stamps, from ``start`` on.

    video        |---------------------------
    sound              |======|   |=========      a late start and a gap become silence,
    sound    ====|======|                         sound before the video is left out
    """
    with open_media(path) as container:
        stream = _sound_stream(container, path)
        resample = _Resampler(sample_format, layout, sample_rate)
        placement = _Placement(container, sample_rate, start)
        for frame in _decode_from(container, stream, placement.origin):
            gap = placement.gap(frame.time)
            if gap > 0:
                yield placement.count(np.repeat(resample.silence, gap, axis=1))
            yield placement.count(resample(frame)[:, max(0, -gap) :])
        yield resample(None)


def _decode_from(
    container: av.container.InputContainer, stream: av.AudioStream, origin: float | None
) -> Iterator[av.AudioFrame]:
    """Frames of a stream from one before ``origin`` (by its own clock) on; from the start if seeking fails.

    Frames before ``origin`` only warm the decoder up: the caller drops them.
    """
    begins = start_seconds(stream)
    if origin is None or begins is None or stream.time_base is None or origin - _WARM_UP <= begins:
        yield from decode_tolerantly(container, stream)
        return
    with contextlib.suppress(av.FFmpegError):  # decoding then begins at the start
        container.seek(int((origin - _WARM_UP) / stream.time_base), stream=stream)
    frames = decode_tolerantly(container, stream)
    first = next(frames, None)
    if first is not None and first.time is not None and first.time <= origin:
        yield from itertools.chain([first], frames)
        return
    with contextlib.suppress(av.FFmpegError):
        container.seek(int(begins / stream.time_base), stream=stream)
    yield from decode_tolerantly(container, stream)


class _Placement:
    """Compares the samples so far with time stamps. Sample 0 belongs ``start`` seconds into the file."""

    def __init__(self, container: av.container.InputContainer, sample_rate: int, start: float = 0.0) -> None:
        self._rate, self._start, self._n_samples = sample_rate, start, 0
        streams = video_streams(container) or (container.streams.audio if start else [])
        begins = start_seconds(streams[0]) if streams else None
        self.origin = None if begins is None else begins + start  # seconds by the file's clock
        # seconds; larger gaps are wrong time stamps. A damaged header may state a wrong length
        self._longest_gap = min((container.duration or 0) / av.time_base + 1.0, LONGEST_GAP)

    def gap(self, time: float | None) -> int:
        """Samples missing before ``time``; negative: first samples that come too early."""
        if time is None:
            return 0
        if self.origin is None:
            self.origin = time + self._start
        gap = time - self.origin - self._n_samples / self._rate
        tolerance = SYNC_TOLERANCE if self._n_samples else 0 if self._start else START_TOLERANCE
        if abs(gap) <= tolerance:  # 0 where the sound is cut: exact to the sample
            return 0
        if (gap < 0 and self._n_samples) or gap > self._longest_gap:  # the time stamps started over
            self.origin += gap
            return 0
        return round(gap * self._rate)

    def count(self, block: np.ndarray) -> np.ndarray:
        self._n_samples += block.shape[1]
        return block


class _Resampler:
    """Converts decoded frames to [channel, sample] of one format; the stream may change its own format."""

    def __init__(self, sample_format: str, layout: str, sample_rate: int) -> None:
        self._wanted = sample_format, layout, sample_rate
        self._inner: av.AudioResampler | None = None
        self._kind: tuple[str, str, int] | None = None
        n_channels = 1 if layout == "mono" else 2
        self.silence = np.zeros((n_channels, 1), np.int16 if sample_format == "s16" else np.float32)

    def __call__(self, frame: av.AudioFrame | None) -> np.ndarray:
        """Samples that are ready after this frame; None: the rest."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate) if frame else None
        made: list[av.AudioFrame] = []
        if self._inner is not None and kind != self._kind:
            made += self._inner.resample(None)
            self._inner = None
        if frame is not None:
            if self._inner is None:
                self._inner, self._kind = av.AudioResampler(*self._wanted), kind
            frame.pts = None
            made += self._inner.resample(frame)
        return np.concatenate([self.silence[:, :0], *(piece.to_ndarray() for piece in made)], axis=1)
