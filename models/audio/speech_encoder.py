"""Speech to the states of a Whisper-tiny encoder, 50 per second: what the motion network takes as features.

The encoder (utils/weights/speech_wheel.py) reads 8 s of sound at mean 0 and deviation 1. Windows overlap, and only the
middle half of each is kept, so that every state has at least 2 s of sound on both sides wherever the wave has them:

    window 0  --======--
    window 1      --======--             4 s kept (=), 2 s on both sides (-) that are zeros beyond the wave
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from models.audio.whisper_encoder import Blocks, EncoderDims, WhisperEncoder, log_mel_spectrogram
from utils.core.types import SAMPLES_PER_FEATURE
from utils.weights.checkpoints import load_strict
from utils.weights.speech_wheel import ENCODER_PATH, N_HEADS, N_POSITIONS, read_speech_encoder, wheel_file

BLOCKS = (2, 3)  # whose outputs tell most about lips, counted from 1; the fourth and last serves another task
WIDTH = 384
KEPT_STATES = N_POSITIONS // 2
MARGIN_STATES = (N_POSITIONS - KEPT_STATES) // 2
WINDOW_SAMPLES = N_POSITIONS * SAMPLES_PER_FEATURE
VARIANCE_FLOOR = 1e-7


class SpeechEncoder:
    """The encoder, ready for inference."""

    n_states, width = len(BLOCKS), WIDTH  # per 20 ms
    n_channels = n_states * width

    def __init__(self, network: WhisperEncoder) -> None:
        self.network = network.eval()
        del self.network.encoder.blocks[max(BLOCKS) :]

    @classmethod
    def load(cls, device: torch.device | str = "cpu") -> SpeechEncoder:
        """Open the installed wheel. Raises BadInput if it is missing, another version or damaged."""
        network = WhisperEncoder(EncoderDims(n_audio_ctx=N_POSITIONS, n_audio_head=N_HEADS, n_audio_state=WIDTH))
        load_strict(network.encoder, read_speech_encoder(), wheel_file(ENCODER_PATH))
        return cls(network.to(device))

    def encode(self, wave: Float[np.ndarray, " n"]) -> Float[np.ndarray, "t 768"]:
        """States of a 16-kHz mono wave in [-1, 1): float32, those of the two blocks side by side; see n_states."""
        return np.concatenate(list(self.encode_chunks(wave)))

    def encode_chunks(self, wave: Float[np.ndarray, " n"]) -> Iterator[Float[np.ndarray, "t 768"]]:
        """The steps of ``encode``, 4 s at a time, for long waves."""
        for states in self.encode_segments(wave):
            yield states.flatten(1).cpu().numpy()

    def encode_segments(
        self, wave: Float[np.ndarray, " n"] | Blocks, needed_rows: Sequence[range] | None = None
    ) -> Iterator[Float[Tensor, "t 2 384"]]:
        """The same states, float32 on the encoder's device, 4 s at a time; see WhisperEncoder.encode_segments."""
        weight, pieces = self.network.encoder.conv1.weight, wave if callable(wave) else lambda: iter([wave])
        for number, (window, n_rows) in enumerate(_windows(pieces())):
            start = number * KEPT_STATES
            if needed_rows is not None and not any(start < r.stop and r.start < start + n_rows for r in needed_rows):
                yield weight.new_zeros((n_rows, self.n_states, self.width), dtype=torch.float32)
                continue
            with torch.inference_mode():
                states = self.network(log_mel_spectrogram(window)[None].to(weight))[0]
            yield states[MARGIN_STATES : MARGIN_STATES + n_rows, list(BLOCKS)].float()


def load_audio_encoder(path: Path | None, device: torch.device | str = "cpu") -> WhisperEncoder | SpeechEncoder:
    """The encoder of a Whisper container, or of the installed wheel if ``path`` is None."""
    return SpeechEncoder.load(device) if path is None else WhisperEncoder.load(path, device)


def n_states(n_samples: int) -> int:
    """Steps of 20 ms; the last may be partly sound."""
    return -(-n_samples // SAMPLES_PER_FEATURE)


def at_level(wave: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The samples at mean 0 and deviation 1, as the wheel's _whisper_features.py prepares them; silence stays 0."""
    level = np.sqrt(wave.var(dtype=np.float64) + VARIANCE_FLOOR)
    return ((wave - wave.mean(dtype=np.float64)) / level).astype(np.float32)


def sound_window(wave: Float[np.ndarray, " n"], first: int) -> Float[np.ndarray, " w"]:
    """8 s of sound from step ``first`` on; its samples are levelled, and beyond the wave it is 0."""
    start = first * SAMPLES_PER_FEATURE
    return _window(wave[max(0, start) : start + WINDOW_SAMPLES], max(0, -start))


def _window(samples: Float[np.ndarray, " n"], n_before: int) -> Float[np.ndarray, " w"]:
    """A window of these samples, levelled, with zeros before and after them."""
    return np.pad(at_level(samples), (n_before, WINDOW_SAMPLES - n_before - len(samples)))


def _windows(pieces: Iterable[np.ndarray]) -> Iterator[tuple[Float[np.ndarray, " w"], int]]:
    """The 8-s windows of a wave given in pieces, and the number of states that are kept of each.

    Their samples are levelled; beyond the wave they are 0.
    """
    margin, step = MARGIN_STATES * SAMPLES_PER_FEATURE, KEPT_STATES * SAMPLES_PER_FEATURE
    coming = iter(pieces)
    kept, before, is_over = np.zeros(0, np.float32), margin, False  # before: samples of the next window before the wave
    while True:
        while len(kept) < WINDOW_SAMPLES - before and not is_over:
            piece = next(coming, None)
            is_over = piece is None
            kept = kept if piece is None else np.concatenate([kept, piece])
        n_left = len(kept) - (margin - before)  # from the first kept state on
        if n_left <= 0:
            return
        yield _window(kept[: WINDOW_SAMPLES - before], before), min(KEPT_STATES, n_states(n_left))
        kept, before = kept[max(0, step - before) :], max(0, before - step)
