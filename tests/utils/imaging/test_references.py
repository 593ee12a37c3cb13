"""Choice of reference frames."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from utils.imaging.landmarks import LOWER_INNER_LIP, UPPER_INNER_LIP
from utils.imaging.references import N_REFERENCES, SWITCH_COST, cheapest_path, choose_references

SIZE = 100.0


def clip(openings: list[float], turns: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks [n, 468, 2] of a face that moves ``turns`` to the right, its lips ``openings`` apart; box sizes."""
    points = np.random.default_rng(0).uniform(20, 80, (468, 2)).astype(np.float32)
    landmarks = np.tile(points, (len(openings), 1, 1))
    landmarks[:, UPPER_INNER_LIP] = (50, 70)
    landmarks[:, LOWER_INNER_LIP] = (50, 70)
    landmarks[:, LOWER_INNER_LIP, 1] += openings
    landmarks[..., 0] += np.array(turns)[:, None]
    return landmarks, np.full((len(openings), 2), SIZE)


def test_a_steady_head_gets_one_reference_with_an_open_mouth():
    openings = [0, 1, 9, 2, 0, 3, 8, 1, 0, 2]
    chosen = choose_references(*clip(openings, [0.0] * 10), np.ones(10, bool))
    assert len(set(chosen.tolist())) == 1
    assert openings[chosen[0]] >= 3


def test_a_turning_head_gets_references_of_its_poses():
    turns = [0.0] * 20 + [20.0] * 20
    openings = [1.0, 8.0] * 20
    chosen = choose_references(*clip(openings, turns), np.ones(40, bool))
    assert len(set(chosen.tolist())) == 2
    assert [turns[index] for index in chosen] == turns
    assert all(openings[index] == 8.0 for index in chosen)


def test_a_small_turn_is_worth_no_change():
    small = 0.8 * SWITCH_COST * SIZE
    chosen = choose_references(*clip([5.0] * 12, [0.0] * 6 + [small] * 6), np.ones(12, bool))
    assert len(set(chosen.tolist())) == 1


def test_frames_without_a_face_have_none():
    valid = np.array([False, True, True, False, True])
    chosen = choose_references(*clip([9, 1, 2, 9, 3], [0.0] * 5), valid)
    assert chosen.tolist() == [-1, 4, 4, -1, 4]
    assert (choose_references(*clip([1.0, 2.0], [0.0, 0.0]), np.zeros(2, bool)) == -1).all()


def test_no_more_references_than_are_useful():
    chosen = choose_references(*clip([5.0] * 60, list(np.linspace(0, 60, 60))), np.ones(60, bool))
    assert 1 < len(set(chosen.tolist())) <= N_REFERENCES


@pytest.mark.parametrize("seed", range(5))
def test_path_is_the_cheapest_of_all(seed):
    costs = np.random.default_rng(seed).uniform(0, 1, (6, 3))

    def price(path: tuple[int, ...]) -> float:
        n_changes = sum(a != b for a, b in itertools.pairwise(path))
        return sum(costs[step, choice] for step, choice in enumerate(path)) + 0.3 * n_changes

    best = min(itertools.product(range(3), repeat=6), key=price)
    assert price(tuple(cheapest_path(costs, 0.3).tolist())) == pytest.approx(price(best))
