"""Losses on motion: small cases by hand, and masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from utils.training import motion_losses as ml


def some_motion(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_cyclic_weight() -> None:
    """0 to 0.02 over 2000 steps, held for 2000, and again."""
    steps = (0, 1, 1000, 1999, 2000, 3000, 3999, 4000, 5000, 9999)
    weights = [ml.cyclic_weight(step, top=0.02, period=4000) for step in steps]
    assert weights == pytest.approx([0, 1e-5, 0.01, 0.01999, 0.02, 0.02, 0.02, 0, 0.01, 0.01999])


def test_weights_are_the_reference_s() -> None:
    weights = ml.LossConfig()
    found = (weights.kl, weights.expression, weights.landmarks, weights.laplacian, weights.magnitude, weights.sync)
    assert found == (0.02, 0.5, 0.5, 1.0, 0.1, 0.2)
    assert (weights.prior_expression, weights.prior_landmarks, weights.prior_sync) == (0, 0, 0)


def test_laplacian_ignores_straight_lines() -> None:
    line = torch.linspace(0, 5, 10)[None, :, None].expand(1, 10, 64)
    assert ml.laplacian_energy(line, torch.ones(1, 10)).item() == pytest.approx(0, abs=1e-12)
    spike = torch.zeros(1, 5, 1)
    spike[0, 2] = 1
    # the kernel sees the spike as -.5, 1, -.5 in three inner frames
    assert ml.laplacian_energy(spike, torch.ones(1, 5)).item() == pytest.approx((0.25 + 1 + 0.25) / 3)


def test_laplacian_equals_a_convolution() -> None:
    motion = some_motion(2, 9, 3)
    kernel = torch.tensor([[[-0.5, 1, -0.5]]])
    laplacian = torch.nn.functional.conv1d(motion.transpose(1, 2).reshape(6, 1, 9), kernel)
    torch.testing.assert_close(ml.laplacian_energy(motion, torch.ones(2, 9)), laplacian.square().mean())


@pytest.mark.parametrize("loss", [ml.laplacian_energy, ml.magnitude])
def test_padding_does_not_count(loss) -> None:
    short = some_motion(1, 8, 64)
    long = torch.cat([short, 100 * some_motion(1, 4, 64)], dim=1)
    mask = torch.tensor([[1.0] * 8 + [0.0] * 4])
    torch.testing.assert_close(loss(long, mask), loss(short, torch.ones(1, 8)))


def test_nothing_valid_costs_nothing() -> None:
    assert ml.masked_mse(some_motion(1, 4, 64), torch.zeros(1, 4, 64), torch.zeros(1, 4)) == 0


def test_landmark_weights() -> None:
    weights = ml.landmark_weights()
    assert weights[13] == weights[0] == 5
    assert weights[159] == 20
    assert weights[145] == 3
    assert weights[4] == 1
    assert weights[454] == 0
    assert (weights == 5).sum() == 40
    assert (weights == 20).sum() == 10


def test_landmark_loss_by_hand() -> None:
    """1 / (frames * 1404) * sum of w * (10 (idBase id_0 + exBase e) - 10 (idBase id_t + exBase e*))^2."""
    rng = np.random.default_rng(0)
    identity_basis, expression_basis = rng.normal(size=(468, 3, 5)), rng.normal(size=(468, 3, 7))
    predicted, target = rng.normal(size=(2, 6, 64)), rng.normal(size=(2, 6, 64))
    identity = rng.normal(size=(2, 6, 80))
    weights = ml.landmark_weights().numpy()[:, None]

    total = 0.0
    for clip in range(2):
        for t in range(6):
            ours = identity_basis @ identity[clip, 0, :5] + expression_basis @ predicted[clip, t, :7]
            truth = identity_basis @ identity[clip, t, :5] + expression_basis @ target[clip, t, :7]
            total += (weights * (10 * ours - 10 * truth) ** 2).sum()

    loss = ml.LandmarkLoss(ml.LandmarkOffsets(torch.from_numpy(identity_basis), torch.from_numpy(expression_basis)))
    actual = loss(*(torch.from_numpy(array) for array in (predicted, target, identity)), torch.ones(2, 6).double())
    assert actual.item() == pytest.approx(total / (12 * 1404))
