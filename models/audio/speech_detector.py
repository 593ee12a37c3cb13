"""Sound to the probability that somebody speaks, for every 32 ms: Silero's voice activity detector.

The network (utils/weights/speech_wheel.py) carries a memory from chunk to chunk, and a minute of music or noise deafens
it to the speech that follows. Windows therefore start afresh, and what they say of their first half is dropped:

    window 0  ----====
    window 1      ----====             4 s kept (=) after 4 s of warming up (-), which are zeros before the wave
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn import functional

from utils.core.types import SAMPLE_RATE
from utils.weights.checkpoints import load_strict
from utils.weights.speech_wheel import DETECTOR_PATH, read_speech_detector, wheel_file

CHUNK_SAMPLES = 512
CONTEXT_SAMPLES = 64  # of the chunk before, which a chunk is read with
MIRRORED_SAMPLES = 64  # behind a chunk
KEPT_CHUNKS = WARM_UP_CHUNKS = 4 * SAMPLE_RATE // CHUNK_SAMPLES
_WINDOWS_PER_BLOCK = 8  # bounds memory on long waves

SPECTRUM_WINDOW, SPECTRUM_STEP, N_BINS = 256, 128, 129  # samples, bins
WIDTH = 128
_LAYERS = ((N_BINS, 128, 1), (128, 64, 2), (64, 64, 2), (64, WIDTH, 1))  # inputs, outputs, stride


class SpeechDetector(nn.Module):
    """The detector for 16 kHz, ready for inference."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = nn.Conv1d(1, 2 * N_BINS, SPECTRUM_WINDOW, SPECTRUM_STEP, bias=False)
        self.encoder = nn.ModuleList(nn.Conv1d(n_in, n_out, 3, stride, padding=1) for n_in, n_out, stride in _LAYERS)
        self.memory = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.decision = nn.Conv1d(WIDTH, 1, 1)

    @classmethod
    def load(cls) -> SpeechDetector:
        """Open the installed wheel, on the CPU. Raises BadInput if it is missing, another version or damaged."""
        network = cls()
        load_strict(network, read_speech_detector(), wheel_file(DETECTOR_PATH))
        return network.eval()

    def forward(self, windows: Float[Tensor, "b n"]) -> Float[Tensor, "b c"]:
        """Probability of speech in every chunk of independent windows; CONTEXT_SAMPLES come before the first chunk."""
        chunks = windows.unfold(1, CONTEXT_SAMPLES + CHUNK_SAMPLES, CHUNK_SAMPLES)
        samples = functional.pad(chunks.flatten(0, 1)[:, None], (0, MIRRORED_SAMPLES), mode="reflect")
        real, imaginary = self.spectrum(samples).chunk(2, dim=1)
        hidden = (real.square() + imaginary.square()).sqrt()
        for layer in self.encoder:
            hidden = layer(hidden).relu()  # four steps in time become one
        states, _ = self.memory(hidden[..., 0].unflatten(0, chunks.shape[:2]))
        decision: Tensor = self.decision(states.relu().transpose(1, 2))
        return decision[:, 0].sigmoid()

    @torch.inference_mode()
    def probabilities(self, wave: Float[np.ndarray, " n"], gain: float = 1.0) -> Float32[np.ndarray, " c"]:
        """Of every CHUNK_SAMPLES of a 16 kHz wave in [-1, 1), the last filled up with zeros, amplified by ``gain``."""
        found = np.zeros(-(-len(wave) // CHUNK_SAMPLES), np.float32)  # filled in place: parts would fragment memory
        size = CONTEXT_SAMPLES + (WARM_UP_CHUNKS + KEPT_CHUNKS) * CHUNK_SAMPLES
        for start in range(0, len(found), KEPT_CHUNKS * _WINDOWS_PER_BLOCK):
            place = found[start : start + KEPT_CHUNKS * _WINDOWS_PER_BLOCK]
            first = (start - WARM_UP_CHUNKS) * CHUNK_SAMPLES - CONTEXT_SAMPLES
            last = (start + -(-len(place) // KEPT_CHUNKS) * KEPT_CHUNKS) * CHUNK_SAMPLES
            block = torch.from_numpy(samples_between(wave, first, last)) * gain
            kept = self(block.unfold(0, size, KEPT_CHUNKS * CHUNK_SAMPLES))[:, WARM_UP_CHUNKS:]
            place[:] = kept.flatten().numpy()[: len(place)]
        return found


def samples_between(wave: Float[np.ndarray, " n"], first: int, last: int) -> Float32[np.ndarray, " m"]:
    """Samples ``first`` (may be negative) to ``last`` - 1, zeros beyond the wave."""
    inside = wave[max(0, first) : last].astype(np.float32)
    before = max(0, -first)
    return np.pad(inside, (before, last - first - before - len(inside)))
