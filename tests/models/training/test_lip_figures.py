"""Figures of predicted lips: of the true motion, a scaled one, a still one; means of groups."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.face3d.face_model import FaceModel
from models.training.lip_figures import LipFigures, by_group, figure_table, lip_figures, mean_figures
from tests.helpers.motion_world import write_world
from utils.data.motion_dataset import MotionClip, MotionDataConfig, load_motion_clips


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return write_world(tmp_path)


@pytest.fixture
def face(world: Path) -> FaceModel:
    return FaceModel.load(world / "face_model.safetensors")


@pytest.fixture
def clips(world: Path) -> list[MotionClip]:
    """All coefficients move."""
    rng = np.random.default_rng(0)
    loaded = load_motion_clips(world / "data", MotionDataConfig())[0]
    return [replace(clip, expression=rng.normal(0, 0.3, (clip.n_frames, 64)).astype(np.float32)) for clip in loaded]


def test_the_true_motion_is_perfect(face: FaceModel, clips: list[MotionClip]) -> None:
    figures = lip_figures(clips[0].expression, clips[0], face)
    for name, value in vars(figures).items():
        assert value == pytest.approx(0.0 if name == "distance" else 1.0, abs=1e-6), name


def test_a_smaller_motion_has_a_smaller_spread(face: FaceModel, clips: list[MotionClip]) -> None:
    mean = clips[0].expression.mean(axis=0)
    figures = lip_figures(mean + 0.6 * (clips[0].expression - mean), clips[0], face)
    assert figures.distance == pytest.approx(0.4, abs=1e-4)
    assert 0.4 < figures.spread < 0.8


def test_a_still_mouth_is_as_far_as_a_still_mouth(face: FaceModel, clips: list[MotionClip]) -> None:
    still = np.repeat(clips[0].expression[:1], clips[0].n_frames, axis=0)
    figures = lip_figures(still, clips[0], face)
    assert figures.distance == pytest.approx(1.0, abs=1e-4)
    assert (figures.opening_r, figures.spread) == (0.0, pytest.approx(0.0, abs=1e-4))
    assert np.isnan(figures.precision)


def figures(value: float, precision: float = 0.5) -> LipFigures:
    return LipFigures(value, value, value, value, precision, value)


def test_groups_of_two_and_all_have_means(clips: list[MotionClip]) -> None:
    """A group of one has no line of its own; unknown closures do not count."""
    named = [replace(clip, group=group) for clip, group in zip(clips, ("x", "x", "y", ""), strict=True)]
    values = (0.1, 0.3, 0.5, 0.7)
    found = by_group({clip.name: figures(value) for clip, value in zip(named, values, strict=True)}, named)
    assert list(found) == [*(clip.name for clip in named), "(x)", "all"]
    assert found["(x)"].width_r == pytest.approx(0.2)
    assert found["all"].width_r == pytest.approx(0.4)
    assert mean_figures([figures(0.1, float("nan")), figures(0.3, 0.8)]).precision == pytest.approx(0.8)
    table = figure_table(found).splitlines()
    assert len({len(line) for line in table}) == 1
    assert table[0].split()[1:] == ["opening_r", "width_r", "distance", "spread", "precision", "recall"]
