from __future__ import annotations

import threading
import time

import pytest
import torch

from utils.core.streaming import batched, map_ahead, run_ahead, shared_threads


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


@pytest.mark.parametrize("n_workers", [1, 3])
def test_map_ahead_keeps_the_order_of_unequal_work(n_workers):
    def double(number: int) -> int:
        time.sleep(0.02 if number % n_workers == 0 else 0)
        return 2 * number

    assert list(map_ahead(double, range(12), n_workers)) == list(range(0, 24, 2))
    assert list(map_ahead(double, [], n_workers)) == []


def test_map_ahead_works_side_by_side():
    meeting = threading.Barrier(3, timeout=10)  # broken unless three run at once
    assert list(map_ahead(lambda number: (meeting.wait(), number)[1], range(6), 3)) == list(range(6))


def test_map_ahead_is_bounded_and_ends_its_threads():
    made = []
    items = map_ahead(lambda number: number, (made.append(number) or number for number in range(50)), 2)
    n_threads = threading.active_count()
    for n_taken, _ in zip(range(1, 11), items, strict=False):
        assert len(made) <= n_taken + 2
    items.close()
    assert threading.active_count() == n_threads


def test_map_ahead_raises_where_the_result_would_have_been():
    items = map_ahead(lambda number: 1 / number, [1, 2, 0, 4], 2)
    assert [next(items), next(items)] == [1.0, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_batched():
    assert list(batched(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batched([], 3)) == []


@pytest.fixture
def eight_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("eight_threads")
@pytest.mark.parametrize(("most", "n_workers", "n_each"), [(1, 1, 8), (3, 3, 2), (4, 4, 2), (20, 8, 1)])
def test_threads_are_shared_out_and_come_back(most, n_workers, n_each):
    with pytest.raises(OSError), shared_threads(most) as found:
        assert (found, torch.get_num_threads()) == (n_workers, n_each)
        raise OSError
    assert torch.get_num_threads() == 8
