"""Clips on disk, windows cut from them, and the disturbances of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from utils import motion_dataset as md
from utils.errors import BadInput

N_FRAMES = 60


def write_clip(data_dir: Path, name: str, n_frames: int = N_FRAMES) -> Path:
    rng = np.random.default_rng(len(name))
    folder = data_dir / name
    folder.mkdir(parents=True)
    np.save(folder / "coeffs.npy", rng.normal(size=(n_frames, 257)).astype(np.float32))
    np.save(folder / "valid.npy", np.ones(n_frames, bool))
    np.save(folder / "audio.npy", rng.integers(-3000, 3000, n_frames * 640).astype(np.int16))
    return folder


@pytest.fixture
def clip() -> md.MotionClip:
    """Everything counts time: expression in frames, sound in samples, pitch and blinks in 50-Hz steps."""
    frames = np.arange(N_FRAMES, dtype=np.float32)
    return md.MotionClip(
        name="clip",
        wave=np.arange(N_FRAMES * 640, dtype=np.float32),
        expression=np.repeat(frames[:, None], 64, axis=1),
        identity=np.zeros((N_FRAMES, 80), np.float32),
        valid=np.ones(N_FRAMES, bool),
        f0=np.arange(2 * N_FRAMES, dtype=np.float32),
        blink=np.arange(2 * N_FRAMES),
        mouth_amp=0.5,
    )


def test_clips_are_divided(tmp_path: Path) -> None:
    for name in ("a", "bb", "ccc", "dddd"):
        write_clip(tmp_path, name)
    (tmp_path / "lags.yaml").write_text("a: 1.5\nelsewhere: 2\n")
    (tmp_path / "weights.yaml").write_text("bb: 0\nccc: 3\n")
    config = md.MotionDataConfig(
        validation_clips=("a",), lag_table=tmp_path / "lags.yaml", weight_table=tmp_path / "weights.yaml"
    )
    training, validation = md.load_motion_clips(tmp_path, config)
    assert [clip.name for clip in training] == ["ccc", "dddd"]
    assert [clip.weight for clip in training] == [3, 1]
    assert [(clip.name, clip.lag) for clip in validation] == [("a", 1.5)]
    assert training[0].wave.dtype == np.float32
    assert np.abs(training[0].wave).max() < 1


def test_centred_clips_share_their_mean(tmp_path: Path) -> None:
    for name in ("a", "bb", "ccc"):
        write_clip(tmp_path, name)
    plain, _ = md.load_motion_clips(tmp_path, md.MotionDataConfig(validation_clips=("a",)))
    config = md.MotionDataConfig(validation_clips=("a",), center_expression=True)
    training, validation = md.load_motion_clips(tmp_path, config)
    overall = np.concatenate([clip.expression for clip in plain]).mean(axis=0)
    for clip in (*training, *validation):
        np.testing.assert_allclose(clip.expression.mean(axis=0), overall, atol=1e-5)


def test_unusable_data(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no clip with sound"):
        md.load_motion_clips(tmp_path, md.MotionDataConfig())
    folder = write_clip(tmp_path, "a")
    with pytest.raises(BadInput, match="validation clip is not there"):
        md.load_motion_clips(tmp_path, md.MotionDataConfig(validation_clips=("b",)))
    with pytest.raises(BadInput, match="no clip left to train on"):
        md.load_motion_clips(tmp_path, md.MotionDataConfig(validation_clips=("a",)))
    np.save(folder / "valid.npy", np.ones(3, bool))
    with pytest.raises(BadInput, match=r"valid\.npy"):
        md.load_motion_clips(tmp_path, md.MotionDataConfig())
    np.save(folder / "valid.npy", np.zeros(N_FRAMES, bool))
    with pytest.raises(BadInput, match="no face in clip"):
        md.load_motion_clips(tmp_path, md.MotionDataConfig())


@pytest.mark.parametrize("text", ["", "- a", "a: late", "a: ["])
def test_unusable_table(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match="table"):
        md.read_clip_table(path)


def test_window_takes_sound_and_motion_of_one_time(clip) -> None:
    window = md.cut_window(clip, start=10, n_frames=8)
    np.testing.assert_array_equal(window.expression[:, 0], np.arange(10, 18))
    assert window.wave[640] == 10 * 640  # after one frame of margin
    assert len(window.wave) == 10 * 640
    np.testing.assert_array_equal(window.f0, np.arange(20, 36))
    assert window.rate == 16_000
    assert window.mask.all()


def test_lag_shifts_the_sound(clip) -> None:
    """Lips that come 2 frames late belong to the sound of 2 frames ago."""
    window = md.cut_window(replace(clip, lag=2.0), start=10, n_frames=8)
    assert window.expression[0, 0] == 10
    assert window.wave[640] == 8 * 640
    assert window.f0[0] == 16
    assert window.blink[0] == 20  # eyes keep their own time


def test_speed_stretches_sound_and_motion_alike(clip) -> None:
    window = md.cut_window(clip, start=10, n_frames=20, speed=1.1)
    np.testing.assert_allclose(window.expression[:, 0], 10 + 1.1 * np.arange(20), rtol=1e-5)
    assert len(window.wave) / window.rate == pytest.approx(22 / 25, abs=1e-3)
    np.testing.assert_allclose(window.f0 / 1.1, 20 + 1.1 * np.arange(40), atol=0.51)


def test_beyond_the_clip_is_silence(clip) -> None:
    window = md.cut_window(clip, start=56, n_frames=8)
    assert window.mask.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert (window.wave[5 * 640 :] == 0).all()
    early = md.cut_window(replace(clip, lag=3.0), start=0, n_frames=8)
    assert (early.wave[: 4 * 640] == 0).all()
    assert early.wave[4 * 640 + 1] == 1
    assert (early.f0[:6] == 0).all()


def test_invalid_frames_are_masked(clip) -> None:
    valid = clip.valid.copy()
    valid[12] = False
    assert md.cut_window(replace(clip, valid=valid), 10, 8).mask.tolist() == [1, 0, 0, 1, 1, 1, 1, 1]


def test_without_disturbances_windows_are_pieces(clip) -> None:
    sampler = md.WindowSampler([clip], 16, md.AugmentationConfig())
    window = sampler.draw(np.random.default_rng(0))
    start = window.expression[0, 0]
    np.testing.assert_allclose(window.expression[:, 0], start + np.arange(16), rtol=1e-5)
    np.testing.assert_allclose(window.wave[640], start * 640, atol=1)


def test_same_seed_same_windows(clip) -> None:
    settings = md.AugmentationConfig(gain_db=6, noise_probability=1, speed=0.1, mirror_probability=0.5)
    sampler = md.WindowSampler([clip], 16, settings, mirror_expression=-np.eye(64, dtype=np.float32))
    first, second = (sampler.draw(np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.wave, second.wave)
    np.testing.assert_array_equal(first.expression, second.expression)


def test_mirror(clip) -> None:
    settings = md.AugmentationConfig(mirror_probability=1.0)
    with pytest.raises(BadInput, match="mirror_exp"):
        md.WindowSampler([clip], 16, settings)
    sampler = md.WindowSampler([clip], 16, settings, mirror_expression=-np.eye(64, dtype=np.float32))
    assert (sampler.draw(np.random.default_rng(0)).expression <= 0).all()


def test_weights_steer_the_draw(clip) -> None:
    other = replace(clip, name="other", weight=3.0, mouth_amp=0.9)
    sampler = md.WindowSampler([clip, other], 16, md.AugmentationConfig())
    rng = np.random.default_rng(0)
    drawn = [sampler.draw(rng).mouth_amp for _ in range(400)]
    assert drawn.count(0.9) / 400 == pytest.approx(0.75, abs=0.06)


def test_noise_has_its_ratio() -> None:
    wave = np.sin(np.arange(32_000) / 7).astype(np.float32)
    noise = md.add_noise(wave, 10.0, np.random.default_rng(0)) - wave
    assert 10 * np.log10(np.mean(wave**2) / np.mean(noise**2)) == pytest.approx(10, abs=0.01)
    assert (md.add_noise(0 * wave, 10.0, np.random.default_rng(0)) == 0).all()


def test_masks_touch_what_they_may() -> None:
    features = np.random.default_rng(0).normal(size=(200, 13)).astype(np.float32)
    rng = np.random.default_rng(1)
    np.testing.assert_array_equal(md.mask_features(features, md.AugmentationConfig(), rng), features)
    masked = md.mask_features(features, md.AugmentationConfig(time_masks=3), rng)
    assert 0 < (masked != features).any(axis=1).sum() <= 60
    shifted = md.mask_features(features, md.AugmentationConfig(channel=0.2), rng)
    np.testing.assert_allclose(np.ptp(shifted - features, axis=0), 0, atol=1e-5)


def test_mouth_amplitude() -> None:
    landmarks = np.zeros((100, 468, 3), np.float32)
    landmarks[:, 17, 1] = -np.linspace(0, 1, 100)
    assert md.mouth_amplitude(landmarks) == pytest.approx(0.9, abs=0.01)


def test_blinks_become_one_frame() -> None:
    landmarks = np.zeros((50, 468, 3), np.float32)
    landmarks[:, [159, 386], 1] = 1.0
    landmarks[10:15, [159, 386], 1] = 0.2
    landmarks[30, [159, 386], 1] = 0.2
    assert np.flatnonzero(md.blink_labels(landmarks)).tolist() == [24, 25, 60, 61]
