from __future__ import annotations

import pytest
import torch

from utils.training.losses import LossWeights, generator_losses, lower_half, lower_half_psnr

REFERENCE_WEIGHTS = LossWeights()


@pytest.fixture
def tensors():
    rng = torch.Generator().manual_seed(0)
    shapes = ((2, 4, 4, 4), (2, 4, 4, 4), (2, 3, 9, 8), (2, 3, 9, 8))
    return [torch.rand(shape, generator=rng) for shape in shapes]


def losses_of(tensors, weights=REFERENCE_WEIGHTS, mouths=None):
    return generator_losses(*tensors, torch.zeros(2, 1, 9, 8) if mouths is None else mouths, weights)


def test_reference_losses(tensors):
    latents, target_latents, images, targets = tensors
    losses = losses_of(tensors)
    latent = (latents - target_latents).abs().mean()
    pixel = (images - targets)[:, :, 4:].abs().mean()
    torch.testing.assert_close(losses.latent, latent)
    torch.testing.assert_close(losses.pixel, pixel)
    torch.testing.assert_close(losses.total, latent + 2 * pixel)


def test_upper_half_does_not_count(tensors):
    changed = tensors[2].clone()
    changed[:, :, :4] += 1
    assert losses_of([*tensors[:2], changed, tensors[3]]).pixel == losses_of(tensors).pixel


def test_mouth_weight(tensors):
    mouths = torch.zeros(2, 1, 9, 8)
    mouths[:, :, 6, 2] = 1
    plain, weighted = losses_of(tensors), losses_of(tensors, LossWeights(mouth=3.0), mouths)
    extra = 3 * (tensors[2] - tensors[3])[:, :, 6, 2].abs().sum() / (2 * 3 * 5 * 8)
    torch.testing.assert_close(weighted.pixel, plain.pixel + extra)


def test_gradient_term_ignores_a_constant(tensors):
    shifted = [*tensors[:2], tensors[3] + 0.25, tensors[3]]
    losses = losses_of(shifted, LossWeights(latent=0, pixel=0, gradient=1))
    assert losses.total < 1e-6 < losses.pixel
    assert losses_of(tensors, LossWeights(gradient=1)).gradient > 0.1


def test_perfect_prediction_costs_nothing(tensors):
    perfect = [tensors[0], tensors[0], tensors[2], tensors[2]]
    assert losses_of(perfect, LossWeights(gradient=1, mouth=1)).total == 0


def test_psnr():
    targets = torch.zeros(2, 3, 8, 8)
    images = targets.clone()
    images[1, :, 4:] = 0.2
    ratios = lower_half_psnr(images, targets)
    assert ratios[0] > 100
    assert ratios[1].item() == pytest.approx(20.0, abs=1e-3)
    assert lower_half(targets).shape == (2, 3, 4, 8)
