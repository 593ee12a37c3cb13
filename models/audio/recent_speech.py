"""States of the newest sound, as if nothing after it were known yet: the features of streaming.

SpeechEncoder's windows have sound on both sides of what is kept. Here a window ends where the known sound does:

    ----------------------====|     8 s of sound, zeros before the wave; the last states (=) are kept
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float

from models.audio.speech_encoder import BLOCKS, SpeechEncoder, sound_window
from models.audio.whisper_encoder import log_mel_spectrogram
from utils.weights.speech_wheel import N_POSITIONS

_WINDOWS_AT_ONCE = 4


def recent_states(
    encoder: SpeechEncoder, wave: Float[np.ndarray, " n"], ends: Sequence[int], n_kept: int
) -> Iterator[Float[np.ndarray, "k 768"]]:
    """For each end, a step of 20 ms, the ``n_kept`` states before it (at most 400), float32.

    The wave is 16 kHz, mono, in [-1, 1). An end after the wave's (by less than 8 s) means that its silence is known.
    """
    weight = encoder.network.encoder.conv1.weight
    for first in range(0, len(ends), _WINDOWS_AT_ONCE):
        windows = [sound_window(wave, end - N_POSITIONS) for end in ends[first : first + _WINDOWS_AT_ONCE]]
        log_mels = torch.stack([log_mel_spectrogram(window) for window in windows])
        with torch.inference_mode():
            states = encoder.network(log_mels.to(weight))[:, -n_kept:, list(BLOCKS)]
        yield from states.flatten(2).float().cpu().numpy()
