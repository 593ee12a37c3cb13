"""Whisper-tiny states and windows against the reference (whisper.npz)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.audio.whisper_encoder import WhisperEncoder, log_mel_spectrogram
from utils.media.windows import stream_windows, upstream_window_count, window_rows

CLIPS = ("4s", "37s")
EVERY_CLIP_AND_RATE = [(clip, fps) for clip in CLIPS for fps in (25, 30)]


@pytest.fixture(scope="module")
def recording(parity):
    return parity("whisper")


def waveform(recording, clip: str) -> np.ndarray:
    return recording[f"in_{clip}_wav_int16"].astype(np.float32) / 32768


@pytest.fixture(scope="module")
def states(recording, filled, manifest, tmp_path_factory):
    """The states of both clips by the filled tiny.pt, opened as the real one is."""
    path = tmp_path_factory.mktemp("whisper") / "tiny.pt"
    torch.save({"dims": manifest("whisper_tiny")["dims"], "model_state_dict": filled("whisper_tiny")}, path)
    encoder = WhisperEncoder.load(path)
    return {clip: encoder.encode(waveform(recording, clip)) for clip in CLIPS}


@pytest.mark.parametrize("clip", CLIPS)
def test_log_mel(recording, clip):
    log_mel = log_mel_spectrogram(waveform(recording, clip)).numpy()
    assert log_mel.shape == tuple(recording[f"{clip}_mel_shape"])
    columns = recording[f"{clip}_mel_frame_index"]
    np.testing.assert_allclose(log_mel[:, columns], recording[f"{clip}_mel"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("clip", CLIPS)
def test_states_of_every_layer(recording, states, clip):
    assert states[clip].shape == tuple(recording[f"{clip}_feat_shape"])
    rows = recording[f"{clip}_feat_index"]
    np.testing.assert_allclose(states[clip][rows, :, ::6], recording[f"{clip}_feat"], rtol=0, atol=5e-4)


@pytest.mark.parametrize(("clip", "fps"), EVERY_CLIP_AND_RATE)
def test_rows_of_every_window(recording, clip, fps):
    n_rows, expected = int(recording[f"{clip}_feat_shape"][0]), recording[f"{clip}_fps{fps}_frame_index"]
    assert upstream_window_count(n_rows, fps) == len(expected) == recording[f"{clip}_fps{fps}_n_chunks"]
    np.testing.assert_array_equal(window_rows(len(expected), fps).clamp(0, n_rows - 1), expected)


@pytest.mark.parametrize(("clip", "fps"), EVERY_CLIP_AND_RATE)
def test_windows(recording, states, clip, fps):
    ids = recording[f"{clip}_fps{fps}_chunk_ids"]
    windows = torch.cat([*stream_windows([states[clip]], int(ids.max()) + 1, fps)])[ids]
    assert windows.shape[1:] == tuple(recording[f"{clip}_fps{fps}_chunk_shape"])
    np.testing.assert_allclose(windows[:, :, ::24], recording[f"{clip}_fps{fps}_chunks"], rtol=0, atol=5e-4)
