"""The flow is invertible, its convolutions are weight-normed ones, and padding stays out."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from models.motion.flow import CouplingFlow, FlowVAE, FlowVAESizes, WaveNet, WeightNormConv1d

SMALL = FlowVAESizes(hidden=16, latent=4, n_encoder_layers=2, n_decoder_layers=2, flow_hidden=8, n_flow_layers=2)


def randomised(module: nn.Module) -> nn.Module:
    """Couplings start as the identity; give every weight a value."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module


def test_weight_norm_equals_torch() -> None:
    ours = randomised(WeightNormConv1d(6, 10, 5))
    twin = weight_norm(nn.Conv1d(6, 10, 5, padding=2))
    twin.load_state_dict(ours.state_dict())  # torch reads the stored names weight_g and weight_v
    x = torch.randn(2, 6, 20)
    torch.testing.assert_close(ours(x), twin(x))


def test_weight_norm_starts_as_a_plain_convolution() -> None:
    conv = WeightNormConv1d(3, 4, 1)
    assert set(conv.state_dict()) == {"weight_g", "weight_v", "bias"}
    torch.testing.assert_close(conv.weight_g, conv.weight_v.norm(dim=(1, 2), keepdim=True))


def test_flow_inverse_is_exact() -> None:
    flow = randomised(CouplingFlow(8, 8, 3, 2, n_couplings=4, cond_channels=5)).double()
    z, cond = torch.randn(2, 8, 12, dtype=torch.float64), torch.randn(2, 5, 12, dtype=torch.float64)
    mask = torch.ones(2, 1, 12, dtype=torch.float64)
    moved = flow(z, mask, cond)
    assert (moved - z).abs().max() > 0.1
    torch.testing.assert_close(flow(moved, mask, cond, inverse=True), z, rtol=0, atol=1e-12)


def test_flow_preserves_volume() -> None:
    flow = randomised(CouplingFlow(4, 8, 3, 2, n_couplings=4, cond_channels=5)).double()
    cond, mask = torch.randn(1, 5, 3, dtype=torch.float64), torch.ones(1, 1, 3, dtype=torch.float64)
    z = torch.randn(1, 4, 3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow(x, mask, cond), z).reshape(12, 12)
    torch.testing.assert_close(jacobian.det().abs(), torch.tensor(1.0, dtype=torch.float64))


def test_fresh_flow_is_the_identity() -> None:
    flow = CouplingFlow(8, 8, 3, 2, n_couplings=4, cond_channels=5)  # an even number of flips
    z = torch.randn(1, 8, 6)
    torch.testing.assert_close(flow(z, torch.ones(1, 1, 6), torch.randn(1, 5, 6)), z)


def test_wavenet_output_is_masked() -> None:
    net = randomised(WaveNet(8, 5, 3, cond_channels=5))
    mask = torch.ones(1, 1, 12)
    mask[..., 8:] = 0
    output = net(torch.randn(1, 8, 12) * mask, mask, torch.randn(1, 5, 12))
    assert (output[..., 8:] == 0).all()
    assert output[..., :8].abs().min() > 0


def test_vae_shapes_and_padding() -> None:
    """What stands on padded frames changes neither the output nor the divergence."""
    vae = randomised(FlowVAE(6, 5, SMALL))
    x, cond, noise = torch.randn(2, 6, 24), torch.randn(2, 5, 24), torch.randn(2, 4, 6)
    mask = torch.ones(2, 1, 24)
    mask[1, :, 12:] = 0
    result = vae(x, mask, cond, noise)
    assert result.output.shape == (2, 6, 24)
    assert result.mean.shape == result.log_std.shape == result.prior_latent.shape == (2, 4, 6)
    assert (result.output[1, :, 12:] == 0).all()
    disturbed = noise.clone()
    disturbed[1, :, 3:] += 7
    again = vae(x, mask, cond, disturbed)
    torch.testing.assert_close(again.kl, result.kl)
    torch.testing.assert_close(again.output[1, :, :8], result.output[1, :, :8])


def test_divergence_of_a_standard_normal_posterior_is_zero() -> None:
    vae = FlowVAE(6, 5, SMALL)
    nn.init.zeros_(vae.encoder.out_proj.weight)
    nn.init.zeros_(vae.encoder.out_proj.bias)
    result = vae(torch.randn(1, 6, 8), torch.ones(1, 1, 8), torch.randn(1, 5, 8), torch.randn(1, 4, 2))
    torch.testing.assert_close(result.kl, torch.tensor(0.0))


def test_sampling_inverts_the_prior_path() -> None:
    """Decoding flow(z) from the prior side gives what decoding z gives."""
    vae = randomised(FlowVAE(6, 5, SMALL))
    x, cond, noise = torch.randn(1, 6, 16), torch.randn(1, 5, 16), torch.randn(1, 4, 4)
    result = vae(x, torch.ones(1, 1, 16), cond, noise)
    torch.testing.assert_close(vae.sample(cond, result.prior_latent), result.output, rtol=1e-4, atol=1e-4)
