"""The encoder half of Whisper: waveform to the states of all its layers, 50 per second.

Built on openai-whisper's own AudioEncoder in any size, so that OpenAI's tiny.pt and a small encoder trained
by this project are the same code and the same file format. No text is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from utils.core.errors import BadInput
from utils.core.types import FEATURE_RATE, SAMPLE_RATE
from utils.weights.checkpoints import half_precision, load_strict, read_weights, save_checkpoint
from utils.weights.official_files import fetch_advice

# whisper/audio.py: 25-ms windows every 10 ms; the second convolution halves the rate to 50 Hz
N_FFT = 400
HOP_LENGTH = 160
MEL_PER_ROW = SAMPLE_RATE // HOP_LENGTH // FEATURE_RATE
MEL_BLOCK = 1_000  # mel frames transformed at a time: 10 s, some 5 MiB
MIN_SAMPLES = HOP_LENGTH * MEL_PER_ROW  # one row of states

Blocks = Callable[[], Iterator[np.ndarray]]  # returns an iterator over the pieces of a wave

# Upstream's padding of the last segment, after the logarithm. It is louder than silence, but JoyGen's
# weights were trained with it (MuseTalk's copy of whisper/transcribe.py pads the finished log-mel).
LOG_MEL_PADDING = 0.0

_TEXT_DIMS = ("n_vocab", "n_text_ctx", "n_text_state", "n_text_head", "n_text_layer")


@dataclass(frozen=True)
class EncoderDims:
    """Sizes of an encoder, named as in Whisper's container. Raises ValueError for sizes that are inconsistent."""

    n_audio_state: int = 384
    n_audio_head: int = 6
    n_audio_layer: int = 4
    n_audio_ctx: int = 1500  # rows of a segment: 30 s
    n_mels: int = 80

    def __post_init__(self) -> None:
        if any(not isinstance(size, int) or size < 1 for size in asdict(self).values()):
            raise ValueError(f"expected positive whole sizes, found {asdict(self)}")
        if self.n_mels not in (80, 128):
            raise ValueError(f"expected 80 or 128 mel bands, found {self.n_mels}")
        if self.n_audio_state % self.n_audio_head or self.n_audio_state % 2:
            raise ValueError(f"expected an even width that {self.n_audio_head} heads share, found {self.n_audio_state}")


class WhisperEncoder(nn.Module):
    """Whisper's audio encoder that returns the states of every layer."""

    def __init__(self, dims: EncoderDims) -> None:
        super().__init__()
        from whisper.model import AudioEncoder  # heavy: pulls in numba

        self.dims = dims
        self.encoder = AudioEncoder(
            dims.n_mels, dims.n_audio_ctx, dims.n_audio_state, dims.n_audio_head, dims.n_audio_layer
        )
        self.encoder.ln_post.requires_grad_(False)  # stored with the weights, but its output is not used

    @classmethod
    def create(cls, dims: EncoderDims, seed: int = 0) -> WhisperEncoder:
        """A new, untrained encoder; the same seed gives the same weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(dims)

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> WhisperEncoder:
        """Open Whisper's container, {"dims": sizes, "model_state_dict": weights}, as float32 in eval mode.

        Its decoder is ignored and may be missing. Raises BadInput for any other file.
        """
        content = read_weights(path)
        state = content.get("model_state_dict")
        if not isinstance(content.get("dims"), Mapping) or not isinstance(state, Mapping):
            found = "keys " + ", ".join(sorted(map(str, content))[:4])
            raise BadInput("not a Whisper checkpoint", path, "dims and model_state_dict", found, fetch_advice(path))
        encoder = cls(_read_dims(content["dims"], path))
        audio_part = {key: value for key, value in state.items() if not key.startswith("decoder.")}
        load_strict(encoder, audio_part, path)
        return encoder.to(device).eval()

    def save(self, path: Path) -> None:
        """Write Whisper's container in half precision, without a decoder; whole or not at all."""
        state = {key: value.detach().cpu() for key, value in self.state_dict().items()}
        dims = asdict(self.dims) | dict.fromkeys(_TEXT_DIMS, 0)
        save_checkpoint(path, {"dims": dims, "model_state_dict": half_precision(state)})

    @property
    def width(self) -> int:
        """Numbers of a state."""
        return self.dims.n_audio_state

    @property
    def n_states(self) -> int:
        """States per row: the input of the first block and the output of every block."""
        return self.dims.n_audio_layer + 1

    def forward(self, log_mel: Float[Tensor, "b c s"]) -> Float[Tensor, "b t l d"]:
        """States of whole segments (differentiable).

        log_mel: S = 2 * n_audio_ctx mel frames. Returns n_audio_ctx rows of n_states states, without the final
        layer norm: after the convolutions and positions, then after each block.
        """
        hidden = F.gelu(self.encoder.conv1(log_mel))
        hidden = F.gelu(self.encoder.conv2(hidden)).transpose(1, 2)
        hidden = hidden + self.encoder.positional_embedding.to(hidden.dtype)
        states = [hidden]
        for block in self.encoder.blocks:
            states.append(block(states[-1]))
        return torch.stack(states, dim=2)

    def encode(self, wave: Float[np.ndarray, " n"]) -> Float[Tensor, "t l d"]:
        """States of a whole 16-kHz mono waveform in [-1, 1): T = n // 320 rows, on the encoder's device.

        Raises BadInput for a waveform without a whole row.
        """
        return torch.cat(list(self.encode_segments(wave)))

    def encode_segments(
        self, wave: Float[np.ndarray, " n"] | Blocks, needed_rows: Sequence[range] | None = None
    ) -> Iterator[Float[Tensor, "t l d"]]:
        """The rows of ``encode`` segment by segment (n_audio_ctx rows, the last one less), for long audio.

        ``wave``: also a function that returns an iterator over its pieces. ``needed_rows``:
        a segment without any of these rows is all zeros. None: all rows.
        """
        weight, stop = self.encoder.conv1.weight, 0
        for segment, n_rows in log_mel_segments(log_mel_blocks(wave, self.dims.n_mels), self.dims.n_audio_ctx):
            start, stop = stop, stop + n_rows
            if needed_rows is not None and not any(rows.start < stop and start < rows.stop for rows in needed_rows):
                yield weight.new_zeros((n_rows, self.n_states, self.dims.n_audio_state), dtype=torch.float32)
                continue
            with torch.no_grad():
                states = self(segment[None].to(weight))[0, :n_rows].float()
            yield states


def _read_dims(stored: Mapping[str, Any], path: Path) -> EncoderDims:
    names = [field.name for field in fields(EncoderDims)]
    missing = [name for name in names if name not in stored]
    if missing:
        raise BadInput("Whisper checkpoint without all its sizes", path, ", ".join(missing), "none", fetch_advice(path))
    try:
        return EncoderDims(**{name: stored[name] for name in names})
    except ValueError as error:
        raise BadInput(f"Whisper checkpoint with odd sizes, {error}", path, advice=fetch_advice(path)) from error


def log_mel_spectrogram(wave: Float[np.ndarray, " n"], n_mels: int = 80) -> Float[Tensor, "c t"]:
    """Whisper's log-mel of a 16-kHz mono waveform in [-1, 1), T = n // 160 frames, on the CPU.

    Values span 2 = 80 dB below the maximum of the WHOLE signal: one loud moment lifts the floor of the rest.
    Raises BadInput for fewer than 320 samples.
    """
    return torch.cat(list(log_mel_blocks(wave, n_mels)), dim=1)


def log_mel_blocks(wave: Float[np.ndarray, " n"] | Blocks, n_mels: int = 80) -> Iterator[Float[Tensor, "c t"]]:
    """The log-mel MEL_BLOCK frames at a time; pieces of a wave are read twice, as the maximum comes first."""
    pieces = wave if callable(wave) else lambda: iter([wave])
    loudest = torch.stack([block.max() for block in _power_blocks(pieces(), n_mels)]).max()
    for block in _power_blocks(pieces(), n_mels):
        yield (block.clamp(min=loudest - 8.0) + 4.0) / 4.0


def _power_blocks(pieces: Iterable[np.ndarray], n_mels: int) -> Iterator[Float[Tensor, "c t"]]:
    """log10 of the mel power, MEL_BLOCK frames at a time. The wave is mirrored at both ends, by half a window."""
    from whisper.audio import mel_filters

    half, n_samples, n_frames = N_FFT // 2, 0, 0
    filters, window = mel_filters("cpu", n_mels), torch.hann_window(N_FFT)

    def block_of(samples: Tensor) -> Tensor:
        spectrum = torch.stft(samples, N_FFT, HOP_LENGTH, window=window, center=False, return_complex=True)
        return (filters @ spectrum.abs().square()).clamp(min=1e-10).log10()

    needed, step = (MEL_BLOCK - 1) * HOP_LENGTH + N_FFT, MEL_BLOCK * HOP_LENGTH
    signal = torch.zeros(0)  # the wave from the next block's first window on; mirrored at the start of the wave
    for piece in _joined(pieces, step):
        start = torch.from_numpy(piece).float()
        if n_samples == 0 and len(start) > half:
            start = torch.cat([start[1 : half + 1].flip(0), start])
        signal, n_samples = torch.cat([signal, start]), n_samples + len(piece)
        while len(signal) >= needed:
            yield block_of(signal[:needed])
            signal, n_frames = signal[step:], n_frames + MEL_BLOCK
    if n_samples < MIN_SAMPLES:
        raise BadInput("audio is too short", expected=f"at least {MIN_SAMPLES} samples", found=str(n_samples))
    n_left = n_samples // HOP_LENGTH - n_frames
    if n_left:
        signal = torch.cat([signal, signal[-half - 1 : -1].flip(0)])
        yield block_of(signal[: (n_left - 1) * HOP_LENGTH + N_FFT])


def _joined(pieces: Iterable[np.ndarray], n_samples: int) -> Iterator[np.ndarray]:
    """Pieces of at least ``n_samples``, but for the last."""
    kept: list[np.ndarray] = []
    for piece in pieces:
        kept.append(piece)
        if sum(map(len, kept)) >= n_samples:
            yield np.concatenate(kept)
            kept = []
    if kept:
        yield np.concatenate(kept)


def log_mel_segments(
    blocks: Iterable[Float[Tensor, "c t"]], n_rows_per_segment: int = 1500, padding: float = LOG_MEL_PADDING
) -> Iterator[tuple[Float[Tensor, "c s"], int]]:
    """Cut a log-mel, given block by block, into equal segments with the number of real rows of states of each.

    The last one is filled up with ``padding``. A lone last mel frame makes no row and is dropped.
    """
    length = MEL_PER_ROW * n_rows_per_segment
    kept: Tensor | None = None
    for block in blocks:
        kept = block if kept is None else torch.cat([kept, block], dim=1)
        while kept.shape[1] >= length:
            yield kept[:, :length], n_rows_per_segment
            kept = kept[:, length:]
    if kept is not None and kept.shape[1] >= MEL_PER_ROW:
        yield F.pad(kept, (0, length - kept.shape[1]), value=padding), kept.shape[1] // MEL_PER_ROW
