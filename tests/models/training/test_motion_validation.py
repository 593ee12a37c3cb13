"""Validation of predicted motion: opening of the mouth, and lip error beside its baselines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.face3d.face_model import FaceModel
from models.motion.audio2motion import build_audio2motion
from models.training.motion_training_config import MotionTrainingConfig
from models.training.motion_validation import (
    error_figures,
    error_table,
    lip_errors,
    opening_direction,
    opening_matches,
    predict_clips,
)
from tests.helpers.motion_world import N_FRAMES, write_config, write_world
from utils.core.config import load_config
from utils.data.motion_dataset import MotionClip, MotionDataConfig, load_motion_clips
from utils.imaging.landmarks import INNER_LIPS, OUTER_EYE_CORNERS, OUTER_LIPS

STILL = np.zeros(64, np.float32)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return write_world(tmp_path)


@pytest.fixture
def face(world: Path) -> FaceModel:
    return FaceModel.load(world / "face_model.safetensors")


@pytest.fixture
def clips(world: Path) -> list[MotionClip]:
    return load_motion_clips(world / "data", MotionDataConfig())[0][:3]


def test_a_perfect_mouth_correlates_perfectly(
    world: Path, face: FaceModel, clips: list[MotionClip], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that predicts the true motion two frames early."""
    network = build_audio2motion(load_config(MotionTrainingConfig, write_config(world)).network)
    clip = clips[0]
    monkeypatch.setattr(type(network), "predict", lambda *_, **__: np.roll(clip.expression, -2, axis=0))
    direction = opening_direction(face.landmark_bases()[2].numpy())
    match = opening_matches(predict_clips(network, [clip]), [clip], direction)[clip.name]
    assert match.lag == 2
    assert match.r > 0.98
    late = replace(clip, lag=2.0)  # from the lag table
    match = opening_matches(predict_clips(network, [late]), [late], direction)[clip.name]
    assert match.lag == 0


def test_lip_error_by_hand(face: FaceModel, clips: list[MotionClip]) -> None:
    """A prediction that is wrong by one unit of the first coefficient in every other frame."""
    clip = clips[0]
    wrong = clip.expression.copy()
    wrong[::2, 0] += 1
    found = lip_errors({clip.name: wrong}, [clip], STILL, face)["all"][1]
    mean, _, basis = (part.numpy() for part in face.landmark_bases())
    lips = basis[[*OUTER_LIPS, *INNER_LIPS], :, 0]
    eyes = np.linalg.norm(mean[OUTER_EYE_CORNERS[0]] - mean[OUTER_EYE_CORNERS[1]])
    expected = np.linalg.norm(lips, axis=1).mean() / eyes
    assert found.network == pytest.approx(0.5 * expected, rel=1e-4)
    assert found.network_moving == pytest.approx(0.5 * expected, rel=1e-4)  # half a unit off in every frame
    opening = clip.expression[:, 0]
    assert found.mean_motion == pytest.approx(np.abs(opening).mean() * expected, rel=1e-4)
    assert found.mean_motion_moving == pytest.approx(np.abs(opening - opening.mean()).mean() * expected, rel=1e-4)


def test_truth_has_no_error_and_other_sound_has(face: FaceModel, clips: list[MotionClip]) -> None:
    errors = lip_errors({clip.name: clip.expression for clip in clips}, clips, STILL, face)
    assert list(errors) == ["a", "b", "c", "all"]
    for n_frames, found in errors.values():
        assert n_frames in (N_FRAMES, 3 * N_FRAMES)
        assert found.network == pytest.approx(0, abs=1e-7)
        assert found.other_sound > 0
        assert found.mean_motion > 0


def test_speakers_are_pooled_and_other_sound_is_another_speaker_s(face: FaceModel, clips: list[MotionClip]) -> None:
    """Clips a and b are one speaker's: the other sound of both is c's."""
    first, second, third = (replace(clip, speaker=name) for clip, name in zip(clips, ("x", "x", "y"), strict=True))
    predicted = {clip.name: clip.expression for clip in clips}
    errors = lip_errors(predicted, [first, second, third], STILL, face)
    assert {name: n for name, (n, _) in errors.items()} == {"x": 240, "y": 120, "all": 360}
    swapped = lip_errors({"a": third.expression, "b": third.expression, "c": first.expression}, clips, STILL, face)
    assert errors["x"][1].other_sound == pytest.approx(
        (swapped["a"][1].network + swapped["b"][1].network) / 2, rel=1e-5
    )
    assert errors["y"][1].other_sound == pytest.approx(swapped["c"][1].network, rel=1e-5)


def test_frames_without_a_face_do_not_count(face: FaceModel, clips: list[MotionClip]) -> None:
    valid = np.arange(N_FRAMES) >= 20
    wrong = clips[0].expression.copy()
    wrong[:20] += 5
    found = lip_errors({"a": wrong}, [replace(clips[0], valid=valid)], STILL, face)
    assert found["all"][0] == N_FRAMES - 20
    assert found["all"][1].network == pytest.approx(0, abs=1e-7)


def test_a_single_speaker_gets_the_sound_of_the_other_half(face: FaceModel, clips: list[MotionClip]) -> None:
    found = lip_errors({"a": clips[0].expression}, clips[:1], STILL, face)["a"][1]
    assert found.other_sound > 0


def test_table_and_figures(face: FaceModel, clips: list[MotionClip]) -> None:
    errors = lip_errors({clip.name: clip.expression for clip in clips}, clips, STILL, face)
    lines = error_table(errors).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["a", "b", "c", "all"]
    assert lines[-1].split()[1:4] == ["360", "0.00", "(0.00)"]
    figures = error_figures(errors)
    assert len(figures) == 4 * 6
    assert figures["lip_error_mean_motion/all"] == errors["all"][1].mean_motion
