"""models/lipsync/av_agreement.py and av_fit.py: synthetic speakers whose mouths follow channels of their sound."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.audio.speech_encoder import KEPT_STATES, SpeechEncoder
from models.lipsync.av_agreement import (
    CONTEXT,
    MIN_FRAMES,
    AvModel,
    agreement,
    encoder_features,
    mouth_curves,
    rolled,
)
from models.lipsync.av_fit import N_COMPONENTS, SpeakingClip, fit_av_model, fit_projection
from tests.helpers.media import speech_like
from utils.core.errors import BadInput
from utils.core.types import SAMPLES_PER_FRAME
from utils.imaging.landmarks import LOWER_INNER_LIP, MOUTH_CORNERS, OUTER_EYE_CORNERS
from utils.metrics.ridge import context_windows
from utils.weights.checkpoints import save_weights

N_CHANNELS = 20


def made_clip(
    name: str, speaker: str, seed: int, delay: int = 2, n: int = 300, channels: int = N_CHANNELS
) -> SpeakingClip:
    """The mouth opens with channel 5 and widens with channel 7, ``delay`` frames later, and with noise of its own."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, channels)).astype(np.float32)
    curves = 0.1 + 0.02 * np.roll(features[:, [5, 7]], delay, axis=0) + [0.01, 0.02] * rng.normal(size=(n, 2))
    return SpeakingClip(name, speaker, features, curves, np.ones(n, bool))


def fitted(clips: list[SpeakingClip]) -> AvModel:
    return fit_av_model(clips, fit_projection(clips))


@pytest.fixture(scope="module")
def clips():
    return [made_clip(f"clip{i}", f"speaker{i // 2}", seed=i) for i in range(6)]


def test_a_mouth_in_time_agrees_and_one_out_of_time_does_not(clips):
    model = fitted(clips)
    new = made_clip("new", "new", seed=20)
    predicted = model.predict([new.features])
    found = agreement(new.curves, predicted)
    assert found.best.r == found.in_sync == pytest.approx(np.average(found.parts, weights=(2, 1)))
    assert found.best.lag == 0
    assert found.parts[0] > 0.8 > found.parts[1] > 0.6
    late = agreement(np.roll(new.curves, 3, axis=0), predicted)
    assert (late.best.lag, late.best.r > 0.75) == (3, True)  # lips later than the sound
    assert all(abs(agreement(new.curves, wrong).in_sync) < 0.2 for wrong in rolled(predicted))


def test_one_lag_is_common_to_both_curves(clips):
    new = made_clip("new", "new", seed=22)
    predicted = fitted(clips).predict([new.features])
    torn = np.column_stack([np.roll(new.curves[:, 0], 4), new.curves[:, 1]])
    found = agreement(torn, predicted)
    assert (found.best.lag, found.parts[0] > 0.8, abs(found.parts[1]) < 0.2) == (4, True, True)


def test_the_opening_alone_is_compared_with_a_model_of_one_curve(clips):
    found = agreement(clips[0].curves[:, :1], clips[0].curves[:, :1])
    assert (found.best.r, found.best.lag, found.parts) == (pytest.approx(1), 0, (pytest.approx(1),))


def test_a_speaker_left_out_leaves_no_trace(clips):
    """Weights without a speaker equal those of a fit on the others' clips."""
    projection = fit_projection(clips)
    model = fit_av_model(clips, projection)
    others = fit_av_model([clip for clip in clips if clip.speaker != "speaker1"], projection)
    new = made_clip("new", "new", seed=21)
    without = model.predict([new.features], without="speaker1")
    np.testing.assert_allclose(without, others.predict([new.features]), atol=1e-5)
    assert not np.allclose(without, model.predict([new.features]), rtol=1e-4)
    assert model.speaker_of("new", "clip3") == "speaker1"
    assert model.speaker_of("new") == ""


def test_frames_without_a_face_do_not_count(clips):
    spoilt = replace(clips[0], curves=clips[0].curves.copy(), valid=clips[0].valid.copy())
    spoilt.curves[100:150], spoilt.valid[100:150] = 9.0, False
    left = fitted([spoilt, *clips[1:]]).predict([clips[2].features])
    whole = fitted(clips).predict([clips[2].features])
    assert np.corrcoef(left[:, 0], whole[:, 0])[0, 1] > 0.99
    curves = np.where(spoilt.valid[:, None], spoilt.curves, np.nan)
    own = fitted(clips[1:]).predict([clips[0].features])
    assert agreement(curves, own).in_sync == pytest.approx(agreement(clips[0].curves, own).in_sync, abs=0.15)


def test_too_little_has_no_score():
    ones = np.arange(MIN_FRAMES, dtype=float)[:, None]
    assert agreement(ones[1:], ones) is None
    assert agreement(np.where(ones < 3, np.nan, ones), ones) is None
    assert agreement(ones, ones).best.r == pytest.approx(1)


def test_file_round_trip(tmp_path):
    wide = [made_clip(f"clip{i}", f"speaker{i // 2}", seed=i, channels=SpeechEncoder.n_channels) for i in range(6)]
    model = fitted(wide)
    assert model.projection.shape == (SpeechEncoder.n_channels, N_COMPONENTS)
    path = tmp_path / "av.safetensors"
    model.save(path, {"note": "made up"})
    stored = AvModel.load(path)
    assert dict(stored.clips) == dict(model.clips)
    assert list(stored.weights) == ["", "speaker0", "speaker1", "speaker2"]
    sound = [wide[0].features]
    np.testing.assert_allclose(stored.predict(sound, "speaker0"), model.predict(sound, "speaker0"), atol=5e-3)


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_weights(path, {"weights": torch.zeros(1, 3)})
    with pytest.raises(BadInput, match="not a model of audio-visual agreement"):
        AvModel.load(path)
    words = {"speakers": "[]", "clips": "{}"}
    save_weights(path, {"weights": torch.zeros(1, 3), "scale": torch.ones(3)}, words)  # the former kind
    with pytest.raises(BadInput, match="not a model of audio-visual agreement"):
        AvModel.load(path)
    for shape in ((3, 4), (768, 4), (768,)):
        save_weights(path, {"weights": torch.zeros(1, 3), "projection": torch.ones(shape)}, words)
        with pytest.raises(BadInput, match="another shape"):
            AvModel.load(path)


def test_features_last_as_long_as_the_video():
    """Frames beyond the sound are those of silence; blocks are whole frames, and the pieces of one sequence."""
    encoder, wave = SpeechEncoder.load(), speech_like(5.0)
    blocks = list(encoder_features(encoder, wave, 150))
    assert [len(block) for block in blocks] == [KEPT_STATES // 2, 50]
    features = np.concatenate(blocks)
    states = encoder.encode(np.pad(wave, (0, SAMPLES_PER_FRAME * 25)))
    np.testing.assert_allclose(features, (states[::2] + states[1::2]) / 2, atol=1e-5)
    short = np.concatenate(list(encoder_features(encoder, wave, 50)))
    assert short.shape == (50, SpeechEncoder.n_channels)


def test_curves_of_a_mouth():
    face = np.zeros((1, 468, 3))
    face[:, OUTER_EYE_CORNERS[1], 0] = 100
    face[:, LOWER_INNER_LIP, 1] = 25
    face[:, MOUTH_CORNERS[1], 0] = 60
    np.testing.assert_allclose(mouth_curves(face), [[0.25, 0.6]])


def test_a_long_sound_is_predicted_from_its_blocks(clips):
    """As from all windows at once, without keeping the features."""
    model, features = fitted(clips), np.random.default_rng(0).random((20_000, N_CHANNELS), np.float32)
    windows = context_windows(features.astype(np.float64) @ model.projection, CONTEXT)
    taps = model.weights[""].astype(np.float64).swapaxes(0, 1)
    whole = windows @ taps.reshape(-1, 2)
    tracemalloc.start()
    predicted = model.predict(features[start : start + 100] for start in range(0, len(features), 100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(predicted, whole, atol=1e-9)
    assert peak < 16 * 2**20  # bytes; all windows together are 22 MB with 20 channels, 860 MB with 768
