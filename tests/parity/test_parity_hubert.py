"""HuBERT against the reference: chunks, lengths, and a wave's way to its expression."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.audio.audio_features import speech_features
from models.audio.hubert import HubertEncoder, build_hubert, mean_and_scale, standardised, wave_chunks
from models.motion.audio2motion_checkpoint import load_audio2motion

PREPROCESSOR = {
    "do_normalize": True,
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "feature_size": 1,
    "padding_side": "right",
    "padding_value": 0,
    "return_attention_mask": True,
    "sampling_rate": 16000,
}


@pytest.fixture(scope="module")
def recording(parity):
    return parity("hubert_chunks")


@pytest.fixture(scope="module")
def encoder(filled, manifest, tmp_path_factory) -> HubertEncoder:
    """The filled weights in the recogniser's file, opened from a folder like the published one."""
    folder = tmp_path_factory.mktemp("hubert")
    config = manifest("hubert_tiny")["config"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    state = {f"hubert.{key}": value for key, value in filled("hubert_tiny").items()}
    state["lm_head.weight"] = torch.zeros(config["vocab_size"], config["hidden_size"])
    state["lm_head.bias"] = torch.zeros(config["vocab_size"])
    torch.save(state, folder / "pytorch_model.bin")
    return HubertEncoder.load(folder)


def as_wave(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.float32) / 32768


def normalised(wave):
    """The whole wave with zero mean and unit variance."""
    return standardised(wave, *mean_and_scale(wave))


def test_normalized_input(recording) -> None:
    values = normalised(as_wave(recording["in_wav4s_int16"]))
    np.testing.assert_allclose(values[4000:4400], recording["input_values_head"], rtol=0, atol=1e-5)


def test_all_steps_of_a_short_clip(recording, encoder) -> None:
    states = encoder.encode(as_wave(recording["in_wav4s_int16"]))
    np.testing.assert_allclose(states, recording["features4s"], rtol=0, atol=1e-4)


def test_steps_of_three_chunks(recording, encoder) -> None:
    """45 s; the recorded steps include both sides of each chunk's edge."""
    index = recording["frame_index"]
    assert {999, 1000, 1999, 2000} <= set(index.tolist())
    states = encoder.encode(as_wave(recording["in_wav_int16"]))
    assert len(states) == recording["n_frames"][0]
    np.testing.assert_allclose(states[index], recording["features"], rtol=0, atol=1e-4)


def test_lengths(recording, encoder) -> None:
    """Every length of the reference, from the chunks and, where it is quick, from the network itself."""
    for n_samples, n_steps, expected in recording["length_table"]:
        assert n_steps == expected
        assert sum((len(chunk) - 80) // 320 for chunk in wave_chunks(np.zeros(n_samples, np.float32))) == n_steps
        if n_samples < 1000:
            assert len(encoder.encode(np.zeros(n_samples, np.float32))) == n_steps


def test_official_keys(manifest) -> None:
    """The full-size network has exactly the published tensors, under torch's newer names of the weight norm."""
    official = manifest("hubert_large_ls960_ft")
    with torch.device("meta"):
        network = build_hubert(official["config"])
    renamed = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    expected = {}
    for key, entry in official["keys"].items():
        owner, _, last = key.rpartition(".")
        expected[f"{owner}.{renamed[last]}" if last in renamed else key] = (tuple(entry["shape"]), entry["dtype"])
    found = {key: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for key, t in network.state_dict().items()}
    assert found == expected


def test_speech_to_motion(parity, filled, encoder, tmp_path: Path) -> None:
    """Waveform to coefficients through the very functions of the entry script."""
    torch.save({"state_dict": {"model": filled("a2m_pitch_tiny64")}}, tmp_path / "model_ckpt_steps_400000.ckpt")
    (tmp_path / "config.yaml").write_text("audio_type: hubert\nuse_pitch: true\nuse_mouth_amp_embed: true\n")
    network = load_audio2motion(tmp_path)
    expected = parity("a2m_end_to_end")
    features = speech_features(as_wave(expected["in_wav_int16"]), "hubert", hubert=encoder)
    np.testing.assert_allclose(features.audio, expected["hubert_audio_in"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(features.f0, expected["hubert_f0_in"][0], rtol=0, atol=1e-3)
    assert [len(features.audio), len(features.f0)] == list(expected["hubert_lengths"][:2])
    for key, temperature in (("t02", 0.2), ("t00", 0.0)):
        motion = network.predict(features, seed=0, temperature=temperature, mouth_amp=0.45)
        np.testing.assert_allclose(motion, expected[f"hubert_exp_{key}"], rtol=0, atol=2e-4)
    assert len(motion) == expected["hubert_lengths"][2]
