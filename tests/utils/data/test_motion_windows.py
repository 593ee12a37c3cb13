"""Windows cut from clips, and their augmentation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from utils.core.errors import BadInput
from utils.data import motion_dataset as md
from utils.data import motion_windows as mw

N_FRAMES = 60


@pytest.fixture
def clip() -> md.MotionClip:
    """All values are times: expression in frames, sound in samples, pitch and blinks in 50-Hz steps."""
    frames = np.arange(N_FRAMES, dtype=np.float32)
    return md.MotionClip(
        name="clip",
        speaker="someone",
        wave=np.arange(N_FRAMES * 640, dtype=np.float32),
        expression=np.repeat(frames[:, None], 64, axis=1),
        identity=np.zeros((N_FRAMES, 80), np.float32),
        valid=np.ones(N_FRAMES, bool),
        f0=np.arange(2 * N_FRAMES, dtype=np.float32),
        blink=np.arange(2 * N_FRAMES),
        mouth_amp=0.5,
    )


def test_window_takes_sound_and_motion_of_one_time(clip) -> None:
    window = mw.cut_window(clip, start=10, n_frames=8)
    np.testing.assert_array_equal(window.expression[:, 0], np.arange(10, 18))
    assert window.wave[640] == 10 * 640  # after one frame of margin
    assert len(window.wave) == 10 * 640
    np.testing.assert_array_equal(window.f0, np.arange(20, 36))
    assert window.rate == 16_000
    assert window.mask.all()


def test_lag_shifts_the_sound(clip) -> None:
    """Lips that lag by 2 frames belong to the sound 2 frames earlier."""
    window = mw.cut_window(replace(clip, lag=2.0), start=10, n_frames=8)
    assert window.expression[0, 0] == 10
    assert window.wave[640] == 8 * 640
    assert window.f0[0] == 16
    assert window.blink[0] == 20  # blinks are not shifted


def test_speed_stretches_sound_and_motion_alike(clip) -> None:
    window = mw.cut_window(clip, start=10, n_frames=20, speed=1.1)
    np.testing.assert_allclose(window.expression[:, 0], 10 + 1.1 * np.arange(20), rtol=1e-5)
    assert len(window.wave) / window.rate == pytest.approx(22 / 25, abs=1e-3)
    np.testing.assert_allclose(window.f0 / 1.1, 20 + 1.1 * np.arange(40), atol=0.51)


def test_beyond_the_clip_is_silence(clip) -> None:
    window = mw.cut_window(clip, start=56, n_frames=8)
    assert window.mask.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert (window.wave[5 * 640 :] == 0).all()
    early = mw.cut_window(replace(clip, lag=3.0), start=0, n_frames=8)
    assert (early.wave[: 4 * 640] == 0).all()
    assert early.wave[4 * 640 + 1] == 1
    assert (early.f0[:6] == 0).all()


def test_invalid_frames_are_masked(clip) -> None:
    valid = clip.valid.copy()
    valid[12] = False
    assert mw.cut_window(replace(clip, valid=valid), 10, 8).mask.tolist() == [1, 0, 0, 1, 1, 1, 1, 1]


def test_without_augmentation_windows_are_parts_of_clips(clip) -> None:
    sampler = mw.WindowSampler([clip], 16, mw.AugmentationConfig())
    window = sampler.draw(np.random.default_rng(0))
    start = window.expression[0, 0]
    np.testing.assert_allclose(window.expression[:, 0], start + np.arange(16), rtol=1e-5)
    np.testing.assert_allclose(window.wave[640], start * 640, atol=1)


def test_same_seed_same_windows(clip) -> None:
    settings = mw.AugmentationConfig(gain_db=6, noise_probability=1, speed=0.1, mirror_probability=0.5)
    sampler = mw.WindowSampler([clip], 16, settings, mirror_expression=-np.eye(64, dtype=np.float32))
    first, second = (sampler.draw(np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.wave, second.wave)
    np.testing.assert_array_equal(first.expression, second.expression)


def test_mirror(clip) -> None:
    settings = mw.AugmentationConfig(mirror_probability=1.0)
    with pytest.raises(BadInput, match="mirror_exp"):
        mw.WindowSampler([clip], 16, settings)
    sampler = mw.WindowSampler([clip], 16, settings, mirror_expression=-np.eye(64, dtype=np.float32))
    assert (sampler.draw(np.random.default_rng(0)).expression <= 0).all()


def test_weights_steer_the_draw(clip) -> None:
    other = replace(clip, name="other", weight=3.0, mouth_amp=0.9)
    sampler = mw.WindowSampler([clip, other], 16, mw.AugmentationConfig())
    rng = np.random.default_rng(0)
    sampled = [sampler.draw(rng).mouth_amp for _ in range(400)]
    assert sampled.count(0.9) / 400 == pytest.approx(0.75, abs=0.06)


def test_noise_has_its_ratio() -> None:
    wave = np.sin(np.arange(32_000) / 7).astype(np.float32)
    noise = mw.add_noise(wave, 10.0, np.random.default_rng(0)) - wave
    assert 10 * np.log10(np.mean(wave**2) / np.mean(noise**2)) == pytest.approx(10, abs=0.01)
    assert (mw.add_noise(0 * wave, 10.0, np.random.default_rng(0)) == 0).all()


def test_masks_touch_what_they_may() -> None:
    features = np.random.default_rng(0).normal(size=(200, 13)).astype(np.float32)
    rng = np.random.default_rng(1)
    np.testing.assert_array_equal(mw.mask_features(features, mw.AugmentationConfig(), rng), features)
    masked = mw.mask_features(features, mw.AugmentationConfig(time_masks=3), rng)
    assert 0 < (masked != features).any(axis=1).sum() <= 60
    shifted = mw.mask_features(features, mw.AugmentationConfig(channel=0.2), rng)
    np.testing.assert_allclose(np.ptp(shifted - features, axis=0), 0, atol=1e-5)
