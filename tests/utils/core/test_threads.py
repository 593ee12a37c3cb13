from __future__ import annotations

import pytest
import torch

from utils.core.threads import shared_threads


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
