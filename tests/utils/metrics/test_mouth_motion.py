"""utils/metrics/mouth_motion.py: openings, widths, closures, lagged correlations, lip distances, still mouths."""

from __future__ import annotations

import numpy as np
import pytest

from utils.imaging.landmarks import (
    INNER_LIPS,
    LOWER_INNER_LIP,
    MOUTH_CORNERS,
    OUTER_EYE_CORNERS,
    OUTER_LIPS,
    UPPER_INNER_LIP,
)
from utils.metrics.mouth_motion import (
    LIPS,
    STILL_POINTS,
    best_lag,
    closures,
    correlation,
    eye_distance,
    face_jitter,
    lip_distance,
    lip_jitter,
    match_closures,
    mouth_opening,
    mouth_width,
    still_mouth,
    variance_ratio,
)


def test_opening_is_relative_to_the_eyes_and_ignores_scale() -> None:
    landmarks = np.zeros((2, 468, 3))
    landmarks[:, OUTER_EYE_CORNERS[1], 0] = 100.0
    landmarks[:, LOWER_INNER_LIP, 1] = [0.0, 25.0]
    landmarks[:, UPPER_INNER_LIP, 2] = 50.0  # depth does not count
    assert mouth_opening(landmarks) == pytest.approx([0.0, 0.25])
    assert mouth_opening(landmarks * 3.7) == pytest.approx([0.0, 0.25])


def test_width_is_that_of_the_corners() -> None:
    landmarks = np.zeros((2, 468, 3))
    landmarks[:, OUTER_EYE_CORNERS[1], 0] = 100.0
    landmarks[:, MOUTH_CORNERS[0], 0] = [-20.0, -30.0]
    landmarks[:, MOUTH_CORNERS[1], 0] = 30.0
    assert mouth_width(landmarks) == pytest.approx([0.5, 0.6])
    assert mouth_width(landmarks / 9) == pytest.approx([0.5, 0.6])


def test_closures_are_the_lowest_quarter_of_the_clips_own_range() -> None:
    opening = np.linspace(0.1, 0.5, 101)  # percentiles 5 and 95: 0.12 and 0.48, so closed up to 0.21
    assert closures(opening).sum() == 28
    assert closures(3 * opening + 1).sum() == 28
    opening[3] = np.nan
    assert not closures(opening)[3]
    assert not closures(np.full(20, 0.3)).any()
    assert not closures(np.full(20, np.nan)).any()


def test_closures_are_found_within_a_frame() -> None:
    reference, generated = np.ones((2, 30))
    reference[[5, 15, 25]] = 0.0
    generated[[6, 17, 20, 25]] = 0.0  # one frame late, two frames late, invented, in time
    found = match_closures(generated, reference)
    assert (found.precision, found.recall) == pytest.approx((2 / 4, 2 / 3))
    generated[[17, 20]] = np.nan
    found = match_closures(generated, reference)
    assert (found.precision, found.recall) == pytest.approx((1, 2 / 3))
    still = match_closures(np.ones(30), reference)
    assert np.isnan(still.precision)
    assert still.recall == 0


@pytest.mark.parametrize("delay", [-3, 0, 2])
def test_best_lag_finds_the_delay(delay: int) -> None:
    series = np.random.default_rng(0).normal(size=200)
    later = np.roll(series, delay)
    found = best_lag(later, series, max_lag=5)
    assert found.lag == delay
    assert found.r == pytest.approx(1.0)


def test_a_delay_beyond_the_window_is_not_found() -> None:
    series = np.random.default_rng(1).normal(size=400)
    assert best_lag(np.roll(series, 8), series, max_lag=2).r < 0.3


def test_a_still_mouth_correlates_with_nothing() -> None:
    moving = np.random.default_rng(2).normal(size=50)
    assert correlation(np.full(50, 0.1), moving) == 0.0
    assert correlation(moving[:4], moving[:4]) == 0.0


def talking_landmarks(n: int = 40, seed: int = 0) -> np.ndarray:
    """A synthetic face of 100 px between the eyes, turning, nodding and moving; only its lips open and close."""
    rng = np.random.default_rng(seed)
    face = rng.normal(0, 40, (468, 3))
    face[list(OUTER_EYE_CORNERS)] = [[-50, -30, 0], [50, -30, 0]]
    frames = np.repeat(face[None], n, axis=0)
    opening = 8 * (1 + np.sin(np.arange(n)))
    frames[:, list(OUTER_LIPS[11:] + INNER_LIPS[11:]), 1] += opening[:, None]
    for t in range(n):
        angle = 0.3 * np.sin(t / 5)
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        frames[t] = frames[t] @ turn.T * (1 + 0.01 * t) + [3 * t, t, 0]
    return frames


def test_lip_distance_is_relative_to_the_eyes() -> None:
    reference = talking_landmarks()
    moved = reference.copy()
    moved[:, list(LIPS), 1] += 0.02 * eye_distance(reference)[:, None]
    np.testing.assert_allclose(lip_distance(moved, reference), 0.02, rtol=1e-5)
    assert lip_distance(reference, reference).max() == 0
    moved[:, list(STILL_POINTS), 0] += 50  # other points do not count
    np.testing.assert_allclose(lip_distance(moved, reference), 0.02, rtol=1e-5)


def test_still_mouth_follows_the_head_and_not_the_speech() -> None:
    frames = talking_landmarks()
    still = still_mouth(frames)
    np.testing.assert_allclose(still[:, list(STILL_POINTS)], frames[:, list(STILL_POINTS)], atol=1e-6)
    gaps = [(f[:, 17, 1] - f[:, 0, 1]) / (1 + 0.01 * np.arange(len(f))) for f in (frames, still)]
    assert gaps[0].std() > 4
    assert gaps[1].std() < 1e-6
    assert gaps[1].mean() == pytest.approx(gaps[0].mean(), abs=0.5)
    np.testing.assert_allclose(still_mouth(still), still, atol=1e-6)


def test_jitter_of_a_known_wobble() -> None:
    """Lips that go up and down by 1 % of the eye distance every other frame: second difference 4 %."""
    frames = np.repeat(talking_landmarks(1), 10, axis=0)
    assert lip_jitter(frames).max() == pytest.approx(0, abs=1e-12)
    frames[:, list(LIPS), 1] += 0.01 * eye_distance(frames)[0] * (-1.0) ** np.arange(10)[:, None]
    np.testing.assert_allclose(lip_jitter(frames), 0.04, rtol=1e-6)
    assert face_jitter(frames).max() == pytest.approx(0, abs=1e-12)


def test_lip_jitter_leaves_out_the_heads_movement() -> None:
    frames = np.repeat(talking_landmarks(1), 10, axis=0)
    frames[..., 0] += 5 * (-1.0) ** np.arange(10)[:, None]
    assert lip_jitter(frames).max() == pytest.approx(0, abs=1e-12)
    assert face_jitter(frames) == pytest.approx(20 / eye_distance(frames)[0])


def test_variance_ratio() -> None:
    values = np.concatenate([np.tile([0.0, 2.0], 10), np.tile([0.0, 8.0], 10)])
    quiet = np.arange(40) < 20
    assert variance_ratio(values, quiet, ~quiet) == pytest.approx(1 / 16)
    assert np.isnan(variance_ratio(values, quiet & (np.arange(40) < 5), ~quiet))
    assert np.isnan(variance_ratio(np.ones(40), quiet, ~quiet))
