"""models/motion/expression_style.py: motion in the style of the clip's speaker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import inference_edit_expression
from models.face3d.closed_mouth import LipGaps
from models.face3d.face_model import EXPRESSION, FaceModel
from models.motion.expression_style import MAX_SCALE, SpeakerStyle, in_speakers_style, smoothed
from tests.helpers.talking_clip import moving_face
from utils.media.video import VideoWriter
from utils.results import store
from utils.weights.packs import MINI_DIR

N = 300
ALL = np.ones(N, bool)


@pytest.fixture(scope="module")
def face() -> FaceModel:
    return FaceModel.load(MINI_DIR / "face_model.safetensors")


@pytest.fixture(scope="module")
def gaps(face: FaceModel) -> LipGaps:
    return LipGaps.of(face)


def talk(gaps: LipGaps, wide: float, seed: int = 0, rest: np.ndarray | None = None) -> np.ndarray:
    """A mouth that opens up to about ``wide`` of the eyes' distance and shuts again; the rest hardly moves."""
    rng = np.random.default_rng(seed)
    amount = np.convolve(rng.uniform(0, 1, N + 4), np.ones(5) / 5, mode="valid")
    amount = wide * (amount - amount.min()) / np.ptp(amount)
    direction = np.zeros(64)
    direction[: gaps.n] = gaps.middle_basis * gaps.eyes / (gaps.middle_basis @ gaps.middle_basis)
    closed = gaps.closed(np.zeros(64) if rest is None else rest)
    return (closed + amount[:, None] * direction + rng.normal(0, 0.01, (N, 64))).astype(np.float32)


def show(motion: np.ndarray, clip: np.ndarray, gaps: LipGaps, valid: np.ndarray = ALL) -> np.ndarray:
    return SpeakerStyle.of(clip, valid, gaps).apply(motion, np.arange(len(motion)), gaps, gaps)


def test_a_person_s_own_motion_keeps_its_mean_and_its_timing(gaps: LipGaps) -> None:
    clip = talk(gaps, 0.2, rest=np.random.default_rng(5).normal(0, 0.5, 64))
    motion = talk(gaps, 0.2, seed=1)
    shown = show(motion, clip, gaps)
    np.testing.assert_allclose(shown.mean(axis=0), clip.mean(axis=0), atol=0.15)
    assert np.abs(motion.mean(axis=0) - clip.mean(axis=0)).max() > 0.5
    assert np.corrcoef(gaps.opening(shown), gaps.opening(motion))[0, 1] > 0.95


def test_livelier_people_open_their_mouths_farther(gaps: LipGaps) -> None:
    motion = talk(gaps, 0.2)
    spreads = [gaps.opening(show(motion, talk(gaps, wide, seed=2), gaps)).std() for wide in (0.1, 0.3)]
    assert spreads[1] > 1.3 * spreads[0]
    assert spreads[1] < 1.05 * MAX_SCALE * gaps.opening(motion).std()


def test_a_still_face_talks_as_the_motion_does(gaps: LipGaps) -> None:
    """A portrait with parted lips: its mouth shuts where the motion shuts it, and opens as far as the motion's."""
    motion = talk(gaps, 0.2)
    motion[100:150] = gaps.closed(motion.mean(axis=0))
    portrait = np.repeat(talk(gaps, 0.1)[50:51], N, axis=0)
    assert gaps.opening(portrait)[0] > 0.03
    opening = gaps.opening(show(motion, portrait, gaps))
    np.testing.assert_allclose(opening[100:150], 0, atol=2e-3)
    assert opening.std() == pytest.approx(gaps.opening(motion).std(), rel=0.1)
    assert np.corrcoef(opening, gaps.opening(motion))[0, 1] > 0.99


@pytest.mark.parametrize("wide", [0.08, 0.3])
def test_pauses_stay_shut_and_lips_never_cross(gaps: LipGaps, wide: float) -> None:
    motion = talk(gaps, 0.15, seed=3)
    motion[:60] = gaps.closed(motion.mean(axis=0))
    clip = talk(gaps, wide, seed=4, rest=np.random.default_rng(6).normal(0, 0.5, 64))
    opening = gaps.opening(show(motion, clip, gaps))
    np.testing.assert_allclose(opening[:60], 0, atol=2e-3)
    assert opening.min() > -1e-6


def test_slow_changes_come_from_the_clip_but_never_open_the_mouth(gaps: LipGaps) -> None:
    smile = np.random.default_rng(7).normal(size=64)
    within = gaps.directions()
    smile -= within @ (within.T @ smile)
    smiling = np.linspace(-1, 1, N)[:, None] * smile
    calm = talk(gaps, 0.2)
    motion = talk(gaps, 0.2, seed=8)
    difference = show(motion, (calm + smiling).astype(np.float32), gaps) - show(motion, calm, gaps)
    inner = slice(60, 240)
    np.testing.assert_allclose(difference[inner], smiling[inner], atol=0.05)
    np.testing.assert_allclose(gaps.basis @ difference[:, : gaps.n].T, 0, atol=1e-5)


def test_frames_without_a_face_do_not_count(gaps: LipGaps) -> None:
    clip, motion = talk(gaps, 0.2), talk(gaps, 0.2, seed=1)
    valid = ALL.copy()
    valid[120:180] = False
    spoilt = clip.copy()
    spoilt[~valid] = 50.0
    np.testing.assert_array_equal(
        show(motion, spoilt, gaps, valid), show(motion, np.where(valid[:, None], clip, -9), gaps, valid)
    )
    with pytest.raises(ValueError, match="no frame shows a face"):
        SpeakerStyle.of(clip, ~ALL, gaps)


def test_smoothing_reaches_over_long_gaps() -> None:
    valid = np.zeros(1000, bool)
    valid[:50] = True
    found = smoothed(np.full((1000, 1), 3.0), valid)
    np.testing.assert_allclose(found, 3.0, atol=1e-6)


def test_slow_changes_last_as_long_at_any_rate(gaps: LipGaps, face: FaceModel) -> None:
    """A clip of twice the rate: every second frame of its drift, and of what is shown, is the slow clip's."""
    times = np.arange(2 * N) / 50
    changing = np.sin(2 * np.pi * 0.1 * times)[:, None] * np.linspace(-1, 1, 64)
    valid = (times < 4) | (times >= 5)
    fast, slow = smoothed(changing, valid, 50), smoothed(changing[::2], valid[::2])
    inner = slice(50, N - 50)
    np.testing.assert_allclose(fast[::2][inner], slow[inner], atol=0.02)
    assert np.abs(smoothed(changing, valid)[::2][inner] - slow[inner]).max() > 0.05

    identity, motion = np.zeros((2 * N, 80), np.float32), talk(gaps, 0.2)
    quick = in_speakers_style(motion, changing, identity, valid, 2 * np.arange(N), face, 50)
    calm = in_speakers_style(motion, changing[::2], identity[::2], valid[::2], np.arange(N), face)
    np.testing.assert_allclose(quick[inner], calm[inner], atol=0.05)


def test_frames_of_the_clip_under_the_motion(face: FaceModel, gaps: LipGaps) -> None:
    """A clip played to and fro gives each frame its own slow change; identity moves the shut mouth."""
    clip, motion = talk(gaps, 0.2), talk(gaps, 0.2, seed=1)
    identity = np.random.default_rng(9).normal(size=(N, 80)).astype(np.float32)
    back = np.arange(N)[::-1]
    forth, reversed_ = (in_speakers_style(motion, clip, identity, ALL, index, face) for index in (back[::-1], back))
    drift = SpeakerStyle.of(clip, ALL, LipGaps.of(face, identity.mean(axis=0))).drift
    open_enough = (LipGaps.of(face, identity.mean(axis=0)).opening(forth) > 1e-3)[:, None]
    np.testing.assert_allclose((reversed_ - forth) * open_enough, (drift[back] - drift) * open_enough, atol=1e-4)


def test_flag_of_stage_2(tmp_path: Path) -> None:
    """By default with the mini pack's face model; --style off and --faithful put the motion on as it is."""
    clip, motion_path = tmp_path / "clip.mp4", tmp_path / "motion.npy"
    with VideoWriter(clip) as writer:
        for image in moving_face()[:6]:
            writer.write(image)
    motion = np.random.default_rng(0).normal(0, 0.4, (6, 64)).astype(np.float32)
    store.save_motion(motion_path, motion)
    shown = {}
    for name, flags in (("auto", []), ("off", ["--style", "off"]), ("faithful", ["--faithful"])):
        given = ["--infer_video_path", clip, "--infer_exp_coeff_path", motion_path, "--infer_result_dir"]
        weights = ["--bfm_folder", MINI_DIR / "face_model.safetensors"]
        inference_edit_expression.main([*map(str, [*given, tmp_path / name, *weights]), "--gpu_id", "-1", *flags])
        edit = store.load_edit(store.edit_dir(tmp_path / name, clip, motion_path))
        assert edit.valid.all()
        shown[name] = np.asarray(edit.coeffs[:])[:, EXPRESSION]
    np.testing.assert_array_equal(shown["off"], motion)
    np.testing.assert_array_equal(shown["faithful"], motion)
    moved = np.abs(shown["auto"] - motion).max(axis=1)
    assert (moved > 0.05).all()
    assert np.isfinite(shown["auto"]).all()
