"""scripts/mini_pack/av_model.py: lags are removed before the fit, wrong sounds are other speakers' and late ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.lipsync.av_fit import SpeakingClip, fit_av_model, fit_projection
from scripts.mini_pack import av_model
from tests.helpers.media import blank_frames, write_clip
from utils.core.errors import BadInput

CHANNELS, N = 12, 250


def talking(number: int, lag: int = 0) -> SpeakingClip:
    """Opening and width follow two channels, ``lag`` frames late."""
    rng = np.random.default_rng(number)
    features = rng.normal(size=(N, CHANNELS)).astype(np.float32)
    curves = np.roll(features[:, [2, 3]], lag, axis=0) + 0.5 * rng.normal(size=(N, 2))
    return SpeakingClip(f"clip{number}", f"speaker{number // 2}", features, curves, np.ones(N, bool))


def test_late_lips_are_fitted_in_time():
    clips = [talking(number, lag=5 if number == 3 else 0) for number in range(8)]
    figures = av_model.left_out_figures(av_model.fit_in_time(clips), clips)
    assert [figures[clip.name]["lag"] for clip in clips] == [0, 0, 0, 5, 0, 0, 0, 0]
    assert all(row["r"] > 0.8 and row["above"] == 1 for row in figures.values())
    assert abs(np.mean([row["r_wrong_sync"] for row in figures.values()])) < 0.1
    late = figures["clip3"]
    assert abs(late["r_sync"]) < 0.3 < late["r"]
    plain = av_model.left_out_figures(fit_av_model(clips, fit_projection(clips)), clips)
    assert plain["clip0"]["r"] < figures["clip0"]["r"]


def test_lips_that_are_moved_keep_their_frames():
    clip = talking(0)
    late = replace(clip, curves=np.roll(clip.curves, 4, axis=0))
    moved = av_model.in_time(late, 4)
    np.testing.assert_array_equal(moved.curves, clip.curves[: N - 4])
    np.testing.assert_array_equal(moved.features, clip.features[: N - 4])
    early = av_model.in_time(replace(clip, curves=np.roll(clip.curves, -4, axis=0)), -4)
    np.testing.assert_array_equal(early.curves, clip.curves[4:])
    np.testing.assert_array_equal(early.features, clip.features[4:])


def test_clips_without_a_talking_face_are_too_few(tmp_path):
    write_clip(tmp_path / "blank.mp4", blank_frames(60))
    with pytest.raises(BadInput, match="too few clips"):
        av_model.main(["--clips", str(tmp_path), "--out", str(tmp_path / "model.safetensors")])
