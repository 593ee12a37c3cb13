"""Pieces of work in processes: order, errors, a worker that dies."""

from __future__ import annotations

import math
import os

import pytest

from utils.errors import BadInput, StageFailure
from utils.store import load_motion
from utils.worker_pool import default_workers, map_units


@pytest.mark.parametrize("n_workers", [1, 2, 50])
def test_results_come_in_the_order_of_the_pieces(n_workers):
    items = [1.0, 16.0, 4.0]
    assert list(map_units(math.sqrt, items, n_workers)) == [1.0, 4.0, 2.0]
    assert list(map_units(math.sqrt, [], n_workers)) == []


def test_an_error_reaches_the_caller_with_its_words(tmp_path):
    with pytest.raises(BadInput, match=r"file missing \(.*no\.npy\)") as caught:
        list(map_units(load_motion, [tmp_path / "no.npy"] * 2, 2))
    assert caught.value.found == "nothing"


def test_a_worker_that_is_killed_is_a_failure():
    with pytest.raises(StageFailure, match="a worker process was killed"):
        list(map_units(os._exit, [9, 9], 2))


def test_some_processors_are_left_to_others():
    assert 1 <= default_workers() <= max(1, (os.cpu_count() or 1) // 2)
