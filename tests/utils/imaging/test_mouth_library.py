"""Choice of the frames whose mouths are shown between the new lips."""

from __future__ import annotations

import numpy as np
import pytest

from utils.imaging import mouth_library
from utils.imaging.landmarks import INNER_LIPS, LOWER_INNER_LIP, OUTER_LIPS
from utils.imaging.mouth_library import N_MOUTHS, choose_mouths

LOWER_HALF = [*INNER_LIPS[11:], *OUTER_LIPS[11:]]
SIZE = 100.0


def faces(openings: list[float]) -> np.ndarray:
    """Landmarks [n, 468, 2] of one face whose lower lip hangs ``openings`` pixels lower."""
    points = np.random.default_rng(0).uniform(20, 80, (468, 2)).astype(np.float32)
    points[LOWER_INNER_LIP] = points[13]
    landmarks = np.tile(points, (len(openings), 1, 1))
    landmarks[:, LOWER_HALF, 1] += np.array(openings, np.float32)[:, None]
    return landmarks


def choose(tracked: list[float], wanted: list[float], valid: list[bool] | None = None) -> list[tuple]:
    known = np.ones(len(tracked), bool) if valid is None else np.array(valid)
    return choose_mouths(faces(tracked), faces(wanted), np.full((len(tracked), 2), SIZE), known)


def test_the_most_similar_mouth_is_shown():
    tracked = [0.0] * 10 + [10.0] * 10
    chosen = choose(tracked, [10.0] * 10 + [0.0] * 10)
    shown = [sum(share * tracked[frame] for frame, share in mix) for mix in chosen]
    assert shown[:9] == [10.0] * 9 and shown[11:] == [0.0] * 9


def test_a_change_fades_over_the_frames_beside_it():
    tracked = [0.0] * 10 + [10.0] * 10
    chosen = choose(tracked, tracked)
    shown = [sum(share * tracked[frame] for frame, share in mix) for mix in chosen]
    np.testing.assert_allclose(shown[8:12], [0.0, 2.5, 7.5, 10.0])
    for mix in chosen:
        assert sum(share for _, share in mix) == pytest.approx(1)
        assert len({frame for frame, _ in mix}) == len(mix)


def test_a_small_difference_is_worth_no_change_while_the_mouth_is_open():
    wobbling = [20.0 + 0.3 * (index % 2) for index in range(20)]
    chosen = choose(wobbling, wobbling)
    assert len(set(chosen)) == 1


def test_frames_without_a_face_have_none_and_are_not_shown():
    valid = [False, True, True, False, True]
    chosen = choose([5.0, 1.0, 2.0, 5.0, 4.0], [5.0] * 5, valid)
    assert [len(mix) > 0 for mix in chosen] == valid
    assert {frame for mix in chosen for frame, _ in mix} <= {1, 2, 4}
    assert choose([1.0, 2.0], [1.0, 2.0], [False, False]) == [(), ()]


def test_few_frames_are_chosen_however_long_the_clip_is(monkeypatch):
    monkeypatch.setattr(mouth_library, "MOST_CLUSTERED", 100)
    monkeypatch.setattr(mouth_library, "_BLOCK", 64)
    openings = np.random.default_rng(1).uniform(0, 30, 300).tolist()
    chosen = choose(openings, openings[::-1])
    used = {frame for mix in chosen for frame, _ in mix}
    assert 8 < len(used) <= N_MOUTHS
    shown = np.array([sum(share * openings[frame] for frame, share in mix) for mix in chosen])
    assert np.corrcoef(shown, openings[::-1])[0, 1] > 0.6
