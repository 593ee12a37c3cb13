from __future__ import annotations

import pytest
import torch

from utils.training import Budget, RunningAverage, cosine_rate


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
