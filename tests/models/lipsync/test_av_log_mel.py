"""models/lipsync/av_log_mel.py: the former model's file, features and windows."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from models.lipsync.av_log_mel import CONTEXT, N_BANDS, load_log_mel_model, log_mel_features
from tests.helpers.media import speech_like
from utils.core.errors import BadInput
from utils.metrics.ridge import context_windows
from utils.weights.checkpoints import read_arrays, read_metadata, save_weights
from utils.weights.packs import agreement_model, log_mel_agreement_model


def test_the_former_predictions_are_kept():
    """Weights of flattened windows, channels before frames, divided by each input's deviation."""
    arrays = read_arrays(log_mel_agreement_model())
    features = log_mel_features(speech_like(6.0), 150)
    expected = context_windows(features, CONTEXT) / arrays["scale"] @ arrays["weights"].astype(np.float64).T
    model = load_log_mel_model(log_mel_agreement_model())
    np.testing.assert_allclose(model.predict([features])[:, 0], expected[:, 0], atol=1e-4)
    number = 1 + json.loads(read_metadata(log_mel_agreement_model())["speakers"]).index("itref")
    assert model.speaker_of("itref") == "itref"
    np.testing.assert_allclose(model.predict([features], "itref")[:, 0], expected[:, number], atol=1e-4)


def test_another_file_is_refused(tmp_path):
    with pytest.raises(BadInput, match="not a model of audio-visual agreement"):
        load_log_mel_model(agreement_model())
    path = tmp_path / "other.safetensors"
    save_weights(path, {"weights": torch.zeros(1, 3), "scale": torch.ones(3)}, {"speakers": "[]", "clips": "{}"})
    with pytest.raises(BadInput, match="another shape"):
        load_log_mel_model(path)


def test_features_last_as_long_as_the_video():
    wave = speech_like(2.0)
    features = log_mel_features(wave, 60)
    assert features.shape == (60, N_BANDS)
    np.testing.assert_allclose(features[:40], log_mel_features(wave, 40), atol=1e-6)
    assert (features[55:] == features.min()).all()  # silence
    louder = log_mel_features(wave * 0.5, 40)
    np.testing.assert_allclose(louder - features[:40], np.log10(0.5), atol=0.01)
    assert np.ptp(features) <= 3.0 + 1e-5
