from __future__ import annotations

import pytest
import torch

from utils.core.errors import StageFailure
from utils.training.optimization import (
    Budget,
    RunningAverage,
    all_finite,
    batch_seed,
    cosine_rate,
    frozen,
    peak_memory,
    writing,
)


def test_budget_of_steps_and_minutes():
    assert Budget(10).spent(5, seconds=1e9) == 0.5
    assert Budget(10, max_minutes=2).spent(1, seconds=60) == 0.5
    assert Budget(10, max_minutes=2).spent(9, seconds=60) == 0.9
    assert Budget(10, max_minutes=2).spent(11, seconds=600) == 1.0


def test_cosine_rate():
    rates = [cosine_rate(step, step / 100, peak=1.0, floor=0.1, warmup_steps=9) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[4] == pytest.approx(0.5, abs=0.01)
    assert rates[50] == pytest.approx(0.55) and rates[100] == pytest.approx(0.1)
    assert cosine_rate(0, 0.0, peak=1e-5, floor=5e-6, warmup_steps=0) == 1e-5


def test_running_average():
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(module.weight, 1.0)
    average = RunningAverage(module, decay=0.9)
    torch.nn.init.constant_(module.weight, 2.0)
    average.update(module, step=1000)
    assert average.module.weight.item() == pytest.approx(1.1)
    average.update(module, step=0)  # at the beginning it follows quickly
    assert average.module.weight.item() == pytest.approx(1.91)
    assert not average.module.weight.requires_grad


def test_seeds_of_batches():
    seeds = {batch_seed(seed, number) for seed in range(3) for number in range(100)}
    assert len(seeds) == 300 and all(0 <= seed < 2**63 for seed in seeds)


def test_frozen_passes_gradients_on_and_keeps_what_was_frozen_before():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    module[0].requires_grad_(False)
    values = torch.ones(1, 2, requires_grad=True)
    with frozen(module):
        module(values).sum().backward()
    assert values.grad is not None and module[1].weight.grad is None
    assert [parameter.requires_grad for parameter in module.parameters()] == [False, False, True, True]


def test_finite_weights():
    module = torch.nn.Linear(2, 2)
    assert all_finite(module)
    torch.nn.init.constant_(module.bias, float("inf"))
    assert not all_finite(module)


def test_peak_memory_counts_bytes():
    before = peak_memory(torch.device("cpu"))
    held = torch.ones(64 << 20, dtype=torch.uint8)
    assert peak_memory(torch.device("cpu")) >= before and before > 16 << 20
    assert held.sum() == 64 << 20


def test_failed_write_is_one_line(tmp_path):
    with pytest.raises(StageFailure, match=r"cannot write .*last.pt: disk full; the one before it is intact"):
        (tmp_path / "last.pt").touch()
        with writing(tmp_path / "last.pt"):
            raise RuntimeError("disk full\nand many more lines")
