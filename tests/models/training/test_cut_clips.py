"""Cuts of clips: motion and sound end together, and training windows end there too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.training.cut_clips import CutConfig, cut_clips
from utils.core.types import SAMPLES_PER_FRAME
from utils.data.motion_dataset import MotionClip
from utils.data.motion_windows import AugmentationConfig, WindowSampler

N_FRAMES, CUT_FRAMES = 100, 40
CUTS = CutConfig(interval=0.8, weight=0.5, least_context=0.08)


@pytest.fixture
def clip() -> MotionClip:
    """Its first coefficient is the frame's number."""
    rng = np.random.default_rng(0)
    expression = np.zeros((N_FRAMES, 64), np.float32)
    expression[:, 0] = np.arange(N_FRAMES)
    wave = rng.normal(0, 0.1, N_FRAMES * SAMPLES_PER_FRAME).astype(np.float32)
    return MotionClip("a", "a", wave, expression, np.zeros((N_FRAMES, 80), np.float32), np.ones(N_FRAMES, bool), 1.0)


def cuts_of(clip: MotionClip, folder: Path) -> list[MotionClip]:
    return cut_clips([clip], CUTS, CUT_FRAMES, folder, seed=0)


def test_lips_and_sound_end_together(clip: MotionClip, tmp_path: Path) -> None:
    """The clip's lips are one frame late: the last frame of a cut is one after the last of its sound."""
    cuts = cuts_of(clip, tmp_path)
    assert len(cuts) in (4, 5)
    for cut in cuts:
        last = len(cut.wave) // SAMPLES_PER_FRAME if len(cut.wave) < CUT_FRAMES * SAMPLES_PER_FRAME else None
        assert cut.audio.shape == (2 * CUT_FRAMES, 768)
        assert cut.n_frames == CUT_FRAMES
        assert cut.is_cut and cut.is_copy and cut.weight == 0.5 and cut.lag == 0
        assert not cut.valid[-2:].any() and cut.valid[-3]
        if last is not None:
            assert cut.expression[-1, 0] == last
            assert cut.valid.sum() == last - 1  # frames before the clip's first have no loss
    ends = [cut.expression[-1, 0] for cut in cuts]
    np.testing.assert_allclose(np.diff(ends), CUTS.interval * 25, atol=1)


def test_states_are_stored(clip: MotionClip, tmp_path: Path) -> None:
    first = cuts_of(clip, tmp_path)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    second = cuts_of(clip, tmp_path)
    assert len(kept) == 1
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.audio, other.audio)


def test_without_an_interval_there_are_none(clip: MotionClip, tmp_path: Path) -> None:
    assert cut_clips([clip], CutConfig(), CUT_FRAMES, tmp_path, seed=0) == []


@pytest.mark.parametrize("speed", [0.0, 0.1])
def test_windows_end_with_the_cut(clip: MotionClip, speed: float) -> None:
    cut = replace(clip, is_cut=True, lag=0.0, audio=np.arange(2 * N_FRAMES, dtype=np.float32)[:, None])
    sampler = WindowSampler([cut], CUT_FRAMES, AugmentationConfig(speed=speed))
    rng = np.random.default_rng(0)
    for window in (sampler.draw(rng) for _ in range(10)):
        assert window.audio[-1, 0] >= 2 * N_FRAMES - 2
        assert window.expression[-1, 0] == pytest.approx(N_FRAMES - 1, abs=1e-3)
