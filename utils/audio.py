"""Decoding of speech and encoding of the output's sound track (PyAV)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from utils.errors import BadInput
from utils.types import SAMPLE_RATE

AAC_RATE = 48_000  # Hz
AAC_BITS_PER_SECOND = 128_000
_INT16_SCALE = 32768.0
_AUDIO_ADVICE = "give a file with a sound track (wav, mp3, m4a, mp4 ...)"


def load_waveform(path: Path, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Decode a file's first sound track to float32 [n], mono, in [-1, 1).

    Samples pass through 16-bit integers, as they do in the reference's intermediate wav file.
    Raises BadInput for a missing or unreadable file, or one without sound.
    """
    chunks = [chunk.to_ndarray().reshape(-1) for chunk in _resampled(path, "s16", "mono", sample_rate)]
    samples = np.concatenate(chunks) if chunks else np.zeros(0, np.int16)
    if len(samples) == 0:
        raise BadInput("no sound could be decoded", path, "at least one sample", "none", _AUDIO_ADVICE)
    return samples.astype(np.float32) / _INT16_SCALE


def open_media(path: Path) -> av.container.InputContainer:
    """Open a media file for reading; raises BadInput if it is missing or not media."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise BadInput("media file missing", path, "a video or audio file", found, "check the path")
    try:
        return av.open(str(path), metadata_errors="ignore")
    except av.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        advice = "the file is damaged or of an unknown type; convert or download it again"
        raise BadInput("media file cannot be opened", path, "a readable container", reason, advice) from error


def has_audio(path: Path) -> bool:
    with open_media(path) as container:
        return bool(container.streams.audio)


class AudioEncoder:
    """Feeds one output container's AAC track from a sound file, a little at a time."""

    def __init__(self, container: av.container.OutputContainer, source_path: Path) -> None:
        with open_media(source_path) as source:
            if not source.streams.audio:
                raise BadInput("no sound track", source_path, "an audio stream", "none", _AUDIO_ADVICE)
            layout = "mono" if source.streams.audio[0].channels == 1 else "stereo"
        self._container = container
        self._stream = container.add_stream("aac", rate=AAC_RATE, layout=layout, bit_rate=AAC_BITS_PER_SECOND)
        self._frames = _resampled(source_path, "fltp", layout, AAC_RATE)
        self._n_samples = 0

    def advance(self, seconds: float) -> None:
        """Encode sound until the track reaches ``seconds`` or the file ends; never beyond ``seconds``."""
        n_wanted = round(seconds * AAC_RATE)
        while self._n_samples < n_wanted:
            frame = next(self._frames, None)
            if frame is None:
                return
            if self._n_samples + frame.samples > n_wanted:
                frame, rest = _split(frame, n_wanted - self._n_samples)
                self._frames = _chain(rest, self._frames)
            frame.pts = self._n_samples
            self._n_samples += frame.samples
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))


def _resampled(path: Path, sample_format: str, layout: str, sample_rate: int) -> Iterator[av.AudioFrame]:
    with open_media(path) as container:
        if not container.streams.audio:
            raise BadInput("no sound track", path, "an audio stream", "none", _AUDIO_ADVICE)
        resampler = av.AudioResampler(sample_format, layout, sample_rate)
        for frame in _decodable(container):
            frame.pts = None
            yield from resampler.resample(frame)
        yield from resampler.resample(None)


def _decodable(container: av.container.InputContainer) -> Iterator[av.AudioFrame]:
    """All frames up to the end of the file or of its readable part."""
    try:
        yield from container.decode(container.streams.audio[0])
    except av.FFmpegError:
        return


def _split(frame: av.AudioFrame, n_first: int) -> tuple[av.AudioFrame, av.AudioFrame]:
    """Cut a planar float frame in two."""
    samples = frame.to_ndarray()
    parts = []
    for piece in (samples[:, :n_first], samples[:, n_first:]):
        part = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(piece), format="fltp", layout=frame.layout.name
        )
        part.sample_rate = frame.sample_rate
        parts.append(part)
    return parts[0], parts[1]


def _chain(first: av.AudioFrame, rest: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    yield first
    yield from rest
