"""Learning-rate schedules, moving average of weights, seeds and frozen weights."""

from __future__ import annotations

import pytest
import torch

from utils.training.optimization import (
    MovingAverage,
    all_finite,
    batch_seed,
    cosine_rate,
    exponential_rate,
    frozen,
    staircase_rate,
)


def test_cosine_rate():
    rates = [cosine_rate(step, step / 100, peak=1.0, floor=0.1, warmup_steps=9) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[4] == pytest.approx(0.5, abs=0.01)
    assert rates[50] == pytest.approx(0.55) and rates[100] == pytest.approx(0.1)
    assert cosine_rate(0, 0.0, peak=1e-5, floor=5e-6, warmup_steps=0) == 1e-5


def test_moving_average():
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(module.weight, 1.0)
    average = MovingAverage(module, decay=0.9)
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


def test_moving_average_of_running_statistics():
    """Without a ramp the decay holds from the first step; statistics are averaged, counters copied."""
    module = torch.nn.BatchNorm1d(1)
    average = MovingAverage(module, decay=0.75, ramps=False)
    module(torch.full((4, 1), 20.0))
    average.update(module, step=0)
    assert module.running_mean.item() == pytest.approx(2.0)
    assert average.module.running_mean.item() == pytest.approx(0.5)
    assert average.module.num_batches_tracked.item() == 1


def test_rates_of_stage_1():
    rates = [exponential_rate(step, peak=1.0, factor=0.1, decay_steps=100, warmup_steps=10) for step in (0, 9, 100)]
    assert rates == pytest.approx([0.1, 10**-0.09, 0.1])
    assert exponential_rate(0, peak=1.0, factor=0.1, decay_steps=100, warmup_steps=0) == 1.0
    rates = [staircase_rate(step, peak=1.0, factor=0.5, decay_steps=10, floor=0.2) for step in (0, 9, 10, 20, 30)]
    assert rates == [1.0, 1.0, 0.5, 0.25, 0.2]
