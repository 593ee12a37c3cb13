"""The wheel's encoder against its own graph in ONNX Runtime, and states of waves of any length."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from models.audio.audio_features import AUDIO_DIMS, speech_features
from models.audio.speech_encoder import KEPT_STATES, SpeechEncoder, at_level, n_states
from models.audio.whisper_encoder import log_mel_spectrogram
from utils.core.types import SAMPLE_RATE
from utils.media.audio import load_waveform
from utils.weights.speech_wheel import ENCODER_PATH, wheel_file

BLOCK_OUTPUTS = {2: "add_268", 3: "add_390"}
SECONDS = 8
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def encoder() -> SpeechEncoder:
    return SpeechEncoder.load()


def wheel_features() -> ModuleType:
    """The wheel's own preparation of sound."""
    path = wheel_file(ENCODER_PATH).parents[1] / "_whisper_features.py"
    spec = importlib.util.spec_from_file_location("wheel_features", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """20 s of real speech."""
    wave = load_waveform(ROOT / "demo" / "xinwen_5s.mp3")
    return np.resize(wave, 20 * SAMPLE_RATE)


def test_sound_is_prepared_as_the_wheel_does(speech):
    window = speech[: SECONDS * SAMPLE_RATE]
    expected = wheel_features().compute_whisper_log_mel_features(window)
    found = log_mel_spectrogram(at_level(window)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_states_are_those_of_the_graph(encoder, speech):
    """But for the graph's rounding of activations to 8 bits: correlation over all states of a block."""
    model = onnx.load(wheel_file(ENCODER_PATH))
    for name in BLOCK_OUTPUTS.values():
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    log_mel = log_mel_spectrogram(at_level(speech[: SECONDS * SAMPLE_RATE]))[None]
    expected = session.run(list(BLOCK_OUTPUTS.values()), {"input_features": log_mel.numpy()})
    with torch.inference_mode():
        found = encoder.network(log_mel)[0].numpy()
    for block, one in zip(BLOCK_OUTPUTS, expected, strict=True):
        assert np.corrcoef(found[:, block].ravel(), one[0].ravel())[0, 1] > {2: 0.98, 3: 0.87}[block]


def test_every_state_is_from_the_middle_of_a_window(encoder, speech):
    """The states after 8 s are those of a wave that begins 4 s later: windows lie on multiples of 4 s."""
    whole = encoder.encode(speech)
    later = encoder.encode(speech[4 * SAMPLE_RATE :])
    assert whole.shape == (1000, AUDIO_DIMS["whisper"])
    np.testing.assert_allclose(later[KEPT_STATES:600], whole[2 * KEPT_STATES : 800], atol=1e-4)


def test_windows_meet_without_a_jump(encoder, speech):
    """Neighbouring states are as alike where two windows meet as within a window."""
    states = encoder.encode(speech)
    alike = np.array([np.corrcoef(a, b)[0, 1] for a, b in itertools.pairwise(states)])
    meeting = alike[KEPT_STATES - 1 :: KEPT_STATES]
    assert len(meeting) == 4
    assert meeting.mean() > alike.mean() - 0.2, (meeting, alike.mean())


def test_loudness_does_not_matter(encoder, speech):
    loud, soft = encoder.encode(speech[:80_000]), encoder.encode(0.03 * speech[:80_000])
    np.testing.assert_allclose(loud, soft, atol=0.05)


@pytest.mark.parametrize("n_samples", [1, 319, 320, 1600, 64_000, 64_001])
def test_waves_of_any_length(encoder, speech, n_samples):
    states = encoder.encode(speech[:n_samples])
    assert states.shape == (n_states(n_samples), encoder.n_channels) and states.dtype == np.float32
    assert np.isfinite(states).all()


def test_silence_has_finite_states(encoder):
    assert np.isfinite(encoder.encode(np.zeros(16_000, np.float32))).all()


def test_long_waves_come_in_chunks(encoder, speech):
    chunks = [len(chunk) for chunk in encoder.encode_chunks(speech[: 10 * SAMPLE_RATE])]
    assert chunks == [KEPT_STATES, KEPT_STATES, 100]


def test_features_are_states_padded_with_zeros(encoder, speech):
    wave = speech[:50_000]
    features = speech_features(wave, "whisper", with_pitch=False).audio
    assert features.shape == (160, AUDIO_DIMS["whisper"])
    np.testing.assert_array_equal(features[: n_states(len(wave))], encoder.encode(wave))
    assert not features[n_states(len(wave)) :].any()


def test_a_wave_in_pieces_has_the_same_states(encoder, speech):
    whole = torch.cat(list(encoder.encode_segments(speech)))
    assert whole.shape[1:] == (encoder.n_states, encoder.width)
    np.testing.assert_array_equal(whole.flatten(1).numpy(), encoder.encode(speech))
    pieces = np.array_split(speech, 37)
    assert torch.equal(torch.cat(list(encoder.encode_segments(lambda: iter(pieces)))), whole)


def test_segments_that_nobody_needs_are_zeros(encoder, speech):
    whole = list(encoder.encode_segments(speech))
    some = list(encoder.encode_segments(speech, [range(KEPT_STATES + 5, KEPT_STATES + 9)]))
    assert [len(part) for part in some] == [len(part) for part in whole]
    assert torch.equal(some[1], whole[1])
    assert not any(part.any() for number, part in enumerate(some) if number != 1)
