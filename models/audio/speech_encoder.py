"""Speech to the states of a Whisper-tiny encoder, 50 per second: what the motion network takes as features.

The encoder (utils/weights/speech_wheel.py) reads 8 s of sound at mean 0 and deviation 1. Windows overlap, and only the
middle half of each is kept, so that every state has at least 2 s of sound on both sides wherever the wave has them:

    window 0  --======--
    window 1      --======--             4 s kept (=), 2 s on both sides (-) that are zeros beyond the wave
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float

from models.audio.whisper_encoder import EncoderDims, WhisperEncoder, log_mel_spectrogram
from utils.core.types import SAMPLES_PER_FEATURE
from utils.weights.checkpoints import load_strict
from utils.weights.speech_wheel import ENCODER_PATH, N_HEADS, N_POSITIONS, read_speech_encoder, wheel_file

BLOCKS = (2, 3)  # whose outputs tell most about lips, counted from 1; the fourth and last serves another task
WIDTH = 384
KEPT_STATES = N_POSITIONS // 2
MARGIN_STATES = (N_POSITIONS - KEPT_STATES) // 2
VARIANCE_FLOOR = 1e-7


class SpeechEncoder:
    """The encoder, ready for inference."""

    def __init__(self, network: WhisperEncoder) -> None:
        self.network = network.eval()
        del self.network.encoder.blocks[max(BLOCKS) :]

    n_channels = len(BLOCKS) * WIDTH

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
        weight = self.network.encoder.conv1.weight
        for start in range(0, n_states(len(wave)), KEPT_STATES):
            log_mel = log_mel_spectrogram(sound_window(wave, start - MARGIN_STATES))
            with torch.inference_mode():
                states = self.network(log_mel[None].to(weight))[0, MARGIN_STATES : MARGIN_STATES + KEPT_STATES]
            kept = states[: n_states(len(wave)) - start, list(BLOCKS)]
            yield kept.flatten(1).float().cpu().numpy()


def n_states(n_samples: int) -> int:
    """Steps of 20 ms; the last may be partly sound."""
    return -(-n_samples // SAMPLES_PER_FEATURE)


def at_level(wave: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The samples at mean 0 and deviation 1, as the wheel's _whisper_features.py prepares them; silence stays 0."""
    level = np.sqrt(wave.var(dtype=np.float64) + VARIANCE_FLOOR)
    return ((wave - wave.mean(dtype=np.float64)) / level).astype(np.float32)


def sound_window(wave: Float[np.ndarray, " n"], first: int) -> Float[np.ndarray, " w"]:
    """8 s of sound from step ``first`` on; its samples are levelled, and beyond the wave it is 0."""
    start, n_samples = first * SAMPLES_PER_FEATURE, N_POSITIONS * SAMPLES_PER_FEATURE
    samples = at_level(wave[max(0, start) : start + n_samples])
    before = max(0, -start)
    return np.pad(samples, (before, n_samples - before - len(samples)))
