from __future__ import annotations

import threading

import pytest

from utils.streaming import batched, run_ahead


@pytest.mark.parametrize("n_ahead", [1, 3])
def test_run_ahead_keeps_items_and_order(n_ahead):
    assert list(run_ahead(range(20), n_ahead)) == list(range(20))
    assert list(run_ahead([], n_ahead)) == []


def test_run_ahead_makes_items_in_one_other_thread():
    names = list(run_ahead(threading.current_thread().name for _ in range(5)))
    assert len(set(names)) == 1
    assert names[0] != threading.current_thread().name


@pytest.mark.parametrize("n_ahead", [1, 3])
def test_run_ahead_is_bounded(n_ahead):
    made = []

    def source():
        for item in range(50):
            made.append(item)
            yield item

    for n_taken, _ in enumerate(run_ahead(source(), n_ahead), 1):
        assert len(made) <= n_taken + n_ahead


def test_run_ahead_raises_where_the_item_would_have_been():
    def source():
        yield 1
        raise OSError("disk full")

    items = run_ahead(source())
    assert next(items) == 1
    with pytest.raises(OSError, match="disk full"):
        next(items)


def test_run_ahead_ends_its_thread_when_left_early():
    items = run_ahead(iter(range(1000)))
    assert next(items) == 0
    n_threads = threading.active_count()
    items.close()
    assert threading.active_count() == n_threads - 1


def test_batched():
    assert list(batched(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batched([], 3)) == []
