"""models/lipsync/av_agreement.py: synthetic speakers whose mouths open with a band of their sound."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from models.lipsync.av_agreement import (
    MIN_FRAMES,
    N_BANDS,
    AvModel,
    SpeakingClip,
    agreement,
    fit_av_model,
    rolled,
    sound_features,
)
from tests.helpers.media import speech_like
from utils.core.errors import BadInput
from utils.metrics.ridge import context_windows
from utils.weights.checkpoints import save_weights


def made_clip(name: str, speaker: str, seed: int, delay: int = 2, n: int = 300) -> SpeakingClip:
    """The mouth opens with band 5, ``delay`` frames later, and with noise of its own."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, N_BANDS)).astype(np.float32)
    opening = 0.1 + 0.02 * np.roll(features[:, 5], delay) + 0.01 * rng.normal(size=n)
    return SpeakingClip(name, speaker, features, opening, np.ones(n, bool))


@pytest.fixture(scope="module")
def clips():
    return [made_clip(f"clip{i}", f"speaker{i // 2}", seed=i) for i in range(6)]


def test_a_mouth_in_time_agrees_and_one_out_of_time_does_not(clips):
    model = fit_av_model(clips)
    new = made_clip("new", "new", seed=20)
    predicted = model.predict(new.features)
    found = agreement(new.opening, predicted)
    assert found.best.r == pytest.approx(found.in_sync)
    assert found.best.lag == 0
    assert found.in_sync > 0.8
    late = agreement(np.roll(new.opening, 3), predicted)
    assert (late.best.lag, late.best.r > 0.8) == (3, True)  # lips later than the sound
    assert all(abs(agreement(new.opening, wrong).in_sync) < 0.2 for wrong in rolled(predicted))


def test_a_speaker_left_out_leaves_no_trace(clips):
    """Weights without a speaker equal those of a fit on the others' clips."""
    model = fit_av_model(clips)
    others = fit_av_model([clip for clip in clips if clip.speaker != "speaker1"])
    new = made_clip("new", "new", seed=21)
    without = model.predict(new.features, without="speaker1")
    assert np.corrcoef(without, others.predict(new.features))[0, 1] > 0.9999
    assert not np.allclose(without, model.predict(new.features), rtol=1e-4)
    assert model.speaker_of("new", "clip3") == "speaker1"
    assert model.speaker_of("new") == ""


def test_frames_without_a_face_do_not_count(clips):
    spoilt = replace(clips[0], opening=clips[0].opening.copy(), valid=clips[0].valid.copy())
    spoilt.opening[100:150], spoilt.valid[100:150] = 9.0, False
    left = fit_av_model([spoilt, *clips[1:]]).predict(clips[2].features)
    assert np.corrcoef(left, fit_av_model(clips).predict(clips[2].features))[0, 1] > 0.99
    opening = np.where(spoilt.valid, spoilt.opening, np.nan)
    assert agreement(opening, left).in_sync == pytest.approx(agreement(clips[0].opening, left).in_sync, abs=0.1)


def test_too_little_has_no_score():
    ones = np.arange(MIN_FRAMES, dtype=float)
    assert agreement(ones[1:], ones) is None
    assert agreement(np.where(ones < 3, np.nan, ones), ones) is None
    assert agreement(ones, ones).best.r == pytest.approx(1)


def test_file_round_trip(tmp_path, clips):
    model = fit_av_model(clips)
    path = tmp_path / "av.safetensors"
    model.save(path, {"note": "made up"})
    stored = AvModel.load(path)
    assert dict(stored.clips) == dict(model.clips)
    assert list(stored.weights) == ["", "speaker0", "speaker1", "speaker2"]
    np.testing.assert_allclose(
        stored.predict(clips[0].features, "speaker0"), model.predict(clips[0].features, "speaker0"), atol=5e-3
    )


def test_another_file_is_refused(tmp_path):
    import torch

    path = tmp_path / "other.safetensors"
    save_weights(path, {"weights": torch.zeros(1, 3)})
    with pytest.raises(BadInput, match="not a model of audio-visual agreement"):
        AvModel.load(path)
    save_weights(path, {"weights": torch.zeros(1, 3), "scale": torch.ones(3)}, {"speakers": "[]", "clips": "{}"})
    with pytest.raises(BadInput, match="another shape"):
        AvModel.load(path)


def test_sound_features_last_as_long_as_the_video():
    wave = speech_like(2.0)
    features = sound_features(wave, 60)
    assert features.shape == (60, N_BANDS)
    np.testing.assert_allclose(features[:40], sound_features(wave, 40), atol=1e-6)
    assert (features[55:] == features.min()).all()  # silence
    louder = sound_features(wave * 0.5, 40)
    np.testing.assert_allclose(louder - features[:40], np.log10(0.5), atol=0.01)
    assert np.ptp(features) <= 3.0 + 1e-5


def test_a_long_sound_is_predicted_in_blocks(clips):
    model, features = fit_av_model(clips), np.random.default_rng(0).random((6000, 20), np.float32)
    whole = context_windows(features) / model.scale @ model.weights[""].astype(np.float64)
    tracemalloc.start()
    predicted = model.predict(features)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(predicted, whole, rtol=1e-12, atol=1e-12)
    assert peak < 10 * 2**20  # bytes; all windows together are 33 MB
