from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.layers.group_norm import ContiguousGroupNorm, normalise_groups, use_contiguous_group_norm


@pytest.mark.parametrize(("n_channels", "n_groups"), [(96, 32), (16, 8), (64, 1), (6, 3), (320, 32)])
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 9, 13)])
def test_own_kernel_is_as_exact_as_bfloat16(n_channels, n_groups, size):
    random = torch.Generator().manual_seed(0)
    n_images, height, width = size
    features = torch.randn(n_images, n_channels, height, width, generator=random) * 2 + 5
    features = features.bfloat16().contiguous(memory_format=torch.channels_last)
    weight, bias = (torch.randn(n_channels, generator=random).bfloat16() for _ in range(2))
    exact = F.group_norm(features.float(), n_groups, weight.float(), bias.float(), 1e-5)
    found = normalise_groups(features, n_groups, weight, bias, 1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.float(), exact, rtol=2**-8, atol=2e-4)


def test_rounds_to_the_nearest_like_pytorch():
    features = torch.randn(1, 8, 40, 40, generator=torch.Generator().manual_seed(1)) * 3
    features = features.bfloat16().contiguous(memory_format=torch.channels_last)
    weight, bias = torch.ones(8).bfloat16(), torch.zeros(8).bfloat16()
    exact = F.group_norm(features.float(), 8, weight.float(), bias.float(), 1e-5).bfloat16()
    found = normalise_groups(features, 8, weight, bias, 1e-5)
    assert (found == exact).float().mean() > 0.999  # the rest lies between two numbers


def test_not_a_number_is_not_lost():
    features = torch.zeros(1, 4, 2, 2, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    features[0, 0, 0, 0] = torch.nan
    found = normalise_groups(features, 2, torch.ones(4).bfloat16(), torch.zeros(4).bfloat16(), 1e-5)
    assert found[0, :2].isnan().all()
    assert not found[0, 2:].isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_gradients", [True, False])
def test_module_gives_the_same_in_every_layout(dtype, with_gradients):
    norm = nn.Sequential(nn.GroupNorm(4, 12)).to(dtype)
    use_contiguous_group_norm(norm)
    assert type(norm[0]) is ContiguousGroupNorm
    features = torch.randn(2, 12, 5, 7, generator=torch.Generator().manual_seed(2)).to(dtype)
    with torch.set_grad_enabled(with_gradients):
        plain = norm(features)
        found = norm(features.contiguous(memory_format=torch.channels_last))
    assert found.dtype == dtype
    torch.testing.assert_close(found, plain, rtol=2**-7 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)
