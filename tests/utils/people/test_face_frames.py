"""Frames with a new mouth and its opacity: gaps, cuts, profiles and borders (synthetic landmarks)."""

from __future__ import annotations

import numpy as np
import pytest

from utils.core.types import N_LANDMARKS
from utils.imaging.landmarks import OUTER_LIPS
from utils.people.face_frames import LONGEST_GAP, PROFILE_LIMIT, fade_frames, fade_strength, frames_text, judge_frames
from utils.people.visibility import FrameState, yaw_degrees

SIZE = (200, 160)


def faces(n: int, yaw: float = 0.0) -> np.ndarray:
    """A face that moves one pixel per frame, float32 [n, 468, 3]."""
    points = np.random.default_rng(0).uniform(40, 100, (N_LANDMARKS, 3))
    points[[234, 454]] = [[40, 70, 0], [40 + 60 * np.cos(np.radians(yaw)), 70, 60 * np.sin(np.radians(yaw))]]
    return (points + np.arange(n)[:, None, None] * [1, 0, 0]).astype(np.float32)


def judge(landmarks: np.ndarray, missing: range, cuts: tuple[int, ...] = (), fps: float = 25):
    seen = np.ones(len(landmarks), bool)
    seen[missing] = False
    landmarks[~seen] = 0
    return judge_frames(landmarks, seen, SIZE, cuts, fps)


def test_a_short_gap_is_a_straight_line():
    landmarks, expected = faces(30), faces(30)
    result = judge(landmarks, range(10, 10 + LONGEST_GAP))
    assert result.shown.all()
    assert np.flatnonzero(result.interpolated).tolist() == [10, 11, 12, 13, 14]
    np.testing.assert_allclose(landmarks, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("missing", "cuts"),
    [
        (range(10, 11 + LONGEST_GAP), ()),
        (range(10, 12), (10,)),
        (range(10, 12), (11,)),
        (range(10, 12), (12,)),
        (range(2), ()),
        (range(28, 30), ()),
    ],
    ids=["long", "cut before", "cut inside", "cut after", "at the start", "at the end"],
)
def test_other_gaps_stay_untouched(missing, cuts):
    landmarks = faces(30)
    result = judge(landmarks, missing, cuts)
    assert np.flatnonzero(~result.shown).tolist() == list(missing)
    assert not result.interpolated.any()
    assert not landmarks[missing].any()


def test_a_cut_elsewhere_does_no_harm():
    assert judge(faces(30), range(10, 12), (5, 20)).shown.all()


@pytest.mark.parametrize("direction", [1, -1])
def test_a_profile_beyond_the_limit_stays_untouched(direction):
    landmarks = np.concatenate([faces(10), faces(10, direction * (PROFILE_LIMIT + 1)), faces(10)])
    assert yaw_degrees(landmarks[15]) == pytest.approx(direction * (PROFILE_LIMIT + 1))
    result = judge(landmarks, range(0))
    assert np.flatnonzero(result.states == FrameState.TURNED).tolist() == list(range(10, 20))
    assert result.describe(25) == ["untouched, turned aside by more than 45 degrees: 10 frames (0.40 to 0.80 s)"]
    landmarks[10:20] = faces(10, direction * (PROFILE_LIMIT - 1))
    assert judge(landmarks, range(0)).shown.all()


def test_a_glance_aside_is_passed_over():
    landmarks = np.concatenate([faces(10), faces(LONGEST_GAP, 80), faces(10)])
    assert judge(landmarks, range(0)).shown.all()


def test_a_mouth_outside_the_frame_stays_untouched():
    landmarks = faces(30)
    landmarks[12:20, OUTER_LIPS[0], 0] = -1
    result = judge(landmarks, range(0))
    assert np.flatnonzero(result.states == FrameState.OUTSIDE).tolist() == list(range(12, 20))
    landmarks[12:20, OUTER_LIPS[0], 0] = 0
    landmarks[12:20, 10, 0] = -1  # the forehead may leave it
    assert judge(landmarks, range(0)).shown.all()


def test_a_face_that_only_flashes_up_stays_untouched():
    landmarks = faces(30)
    seen = np.ones(30, bool)
    seen[8:14] = seen[17:25] = False
    result = judge_frames(landmarks, seen, SIZE, ())
    assert np.flatnonzero(result.shown).tolist() == [*range(8), *range(25, 30)]
    assert np.flatnonzero(result.states == FrameState.UNCLEAR).tolist() == [14, 15, 16]


def test_fades_are_inside_and_only_beside_untouched_frames():
    shown = np.array([1] * 8 + [0] * 3 + [1] * 4 + [0] * 2, bool)
    strength = fade_strength(shown, fade=3)
    quarter = [0.25, 0.5, 0.75]
    np.testing.assert_allclose(strength, [1] * 5 + quarter[::-1] + [0] * 3 + [0.25, 0.5, 0.5, 0.25] + [0] * 2)
    assert strength.dtype == np.float32
    assert fade_strength(np.ones(4, bool)).tolist() == [1] * 4
    assert fade_strength(np.zeros(4, bool)).tolist() == [0] * 4
    assert len(fade_strength(np.zeros(0, bool))) == 0


@pytest.mark.parametrize(
    ("fps", "longest"), [(50, 10), (60, 12), (60000 / 1001, 12), (30, 6), (24, 5), (12, 2), (2, 1)]
)
def test_the_longest_gap_and_the_shortest_sight_last_as_long_at_any_rate(fps, longest):
    assert judge(faces(60), range(20, 20 + longest), fps=fps).shown.all()
    assert np.flatnonzero(~judge(faces(60), range(20, 21 + longest), fps=fps).shown).tolist() == [
        *range(20, 21 + longest)
    ]
    for n_seen, is_shown in ((longest, True), (longest - 1, False)):
        seen = np.ones(80, bool)
        seen[10:30] = seen[30 + n_seen : 60] = False
        result = judge_frames(faces(80), seen, SIZE, (), fps)
        assert result.shown[30 : 30 + n_seen].all() == (is_shown or n_seen == 0)


def test_fades_last_as_long_at_any_rate():
    assert [fade_frames(fps) for fps in (25, 50, 60, 30, 24, 12, 4)] == [5, 11, 13, 6, 5, 2, 0]
    shown = np.ones(40, bool)
    shown[12:20] = False
    slow = fade_strength(shown, fade_frames(25))
    fast = fade_strength(np.repeat(shown, 2), fade_frames(50))
    np.testing.assert_array_equal(fast[:24:2], slow[:12])  # the last frame before the gap at half its distance
    np.testing.assert_array_equal(fast[41::2], slow[20:])


def test_many_stretches_are_counted_and_not_all_named():
    assert frames_text(np.array([0, 1, 0], bool), 30) == "1 frame (0.03 to 0.07 s)"
    text = frames_text(np.arange(60) % 3 == 0, 25)
    assert text.startswith("20 frames (0.00 to 0.04, 0.12 to 0.16") and text.endswith("s and 12 more)")
