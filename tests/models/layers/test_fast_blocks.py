"""Networks with less work give what diffusers' own blocks give."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from models.generation.generator import build_unet
from models.generation.latent_codec import LatentCodec, build_vae, hide_lower_half, hide_upper_half
from models.layers.fast_blocks import convolve_doubled, phase_weights, use_lean_resnets, use_phased_upsampling
from models.layers.folded_encoder import Axis, can_fold, encode_folded
from tests.helpers.training_data import UNET_CONFIG
from utils.imaging.images import to_signed

WIDE_VAE = {
    "block_out_channels": [64, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 16,
    "scaling_factor": 0.5,
}
SIDE = 96


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def vae() -> nn.Module:
    """An untrained VAE whose normalisations are not neutral."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        vae = build_vae(WIDE_VAE)
        for part in vae.modules():
            if isinstance(part, nn.GroupNorm):
                nn.init.normal_(part.weight, 1, 0.3)
                nn.init.normal_(part.bias, 0, 0.3)
    return vae.eval()


@pytest.fixture(scope="module")
def lean(vae) -> LatentCodec:
    return LatentCodec(copy.deepcopy(vae))


@pytest.fixture(scope="module")
def plain(vae) -> LatentCodec:
    return LatentCodec(copy.deepcopy(vae), lean=False)


@pytest.mark.parametrize("has_bias", [True, False])
def test_four_small_convolutions_are_the_one_of_the_doubled_image(has_bias):
    conv = nn.Conv2d(5, 7, 3, padding=1, bias=has_bias)
    images = torch.randn(2, 5, 6, 9, generator=seeded())
    with torch.no_grad():
        expected = conv(F.interpolate(images, scale_factor=2.0))
        found = convolve_doubled(images, phase_weights(conv.weight), conv.bias)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_phases_follow_changed_weights(vae):
    changed = copy.deepcopy(vae)
    use_phased_upsampling(changed)
    upsampler = changed.decoder.up_blocks[0].upsamplers[0]
    images = torch.randn(1, 64, 8, 8, generator=seeded())
    with torch.no_grad():
        before = upsampler(images)
        upsampler.conv.weight.mul_(2)
        upsampler.conv.bias.mul_(2)
        torch.testing.assert_close(upsampler(images), 2 * before)


def test_unet_with_lean_blocks_draws_the_same():
    torch.manual_seed(1)
    unet = build_unet(UNET_CONFIG).eval()
    other = copy.deepcopy(unet)
    use_lean_resnets(other)
    assert not any(type(part) is ResnetBlock2D for part in other.modules())
    latents, states = torch.randn(2, 12, 16, 16), torch.randn(2, 5, 16)
    with torch.no_grad():
        expected = unet(latents, 0, encoder_hidden_states=states).sample
        assert torch.equal(other(latents, 0, encoder_hidden_states=states).sample, expected)
    assert set(other.state_dict()) == set(unet.state_dict())


def test_gradients_go_through_the_original_blocks(vae, lean):
    latents = torch.randn(1, 4, 8, 8, generator=seeded(), requires_grad=True)
    expected = torch.autograd.grad(vae.decode(latents).sample.square().sum(), latents)[0]
    found = torch.autograd.grad((lean.decode(latents * 0.5)).square().sum(), latents)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("shown_rows", "shown_columns"),
    [((0, 48), (0, 96)), ((60, 75), (31, 60)), ((90, 96), (0, 20)), ((47, 49), (95, 96)), ((10, 10), (0, 0))],
)
def test_flat_stretches_change_nothing(vae, lean, shown_rows, shown_columns, dtype):
    """Pictures at the top, in the middle, in corners, and none at all."""
    image = torch.full((1, 3, SIDE, SIDE), -1.0)
    rows, columns = slice(*shown_rows), slice(*shown_columns)
    image[:, :, rows, columns] = torch.rand(image[:, :, rows, columns].shape, generator=seeded()) * 2 - 1
    ends = [((0, start), (stop, SIDE)) for start, stop in (shown_rows, shown_columns)]
    with torch.inference_mode():
        expected = vae.encode(image).latent_dist.parameters
        network = copy.deepcopy(vae).to(dtype)
        found = encode_folded(network, image.to(dtype), *ends).float()
        straight = network.encode(image.to(dtype)).latent_dist.parameters.float()
    own_error = (straight - expected).abs().max()  # of the number type
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=float(5e-5 + 2 * own_error))


def test_something_is_left_out():
    axis = Axis(SIDE, ((48, SIDE),))
    folded = axis.folded(5)
    assert folded.omitted == ((56, 90),)
    assert len(folded.kept()) == SIDE - 34
    assert folded.repeats() == [(55, 34)]
    assert folded.convolved(5).halved() == Axis(48, ((27, 45),), ((28, 45),))


def test_what_is_flat_is_said_truly():
    """The rule of the halving, against a convolution: equal inputs give equal outputs where it says so."""
    values = torch.rand(40, generator=seeded())
    values[7:31] = 0.5
    axis, kernel = Axis(40, ((7, 31),)), torch.rand(1, 1, 3, generator=seeded(1))
    for n_convs in (0, 1, 4):
        current = values[None, None]
        for _ in range(n_convs):
            current = F.conv1d(current, kernel, padding=1)
        after = axis.convolved(n_convs)
        halved = F.conv1d(F.pad(current, (0, 1)), kernel, stride=2)
        for flat, of in ((after.flat[0], current), (after.halved().flat[0], halved)):
            assert of[0, 0, slice(*flat)].unique().numel() == 1


def test_codec_encodes_masked_and_depth_images_as_before(lean, plain):
    faces = torch.rand(3, 3, SIDE, SIDE, generator=seeded()) * 2 - 1
    depths = torch.zeros(3, 1, SIDE, SIDE, dtype=torch.uint8)
    depths[0, :, 60:75, 30:61] = 130
    depths[1, :, 20:70, 5:9] = 90  # reaches into the hidden half
    with torch.inference_mode():
        torch.testing.assert_close(
            lean.encode_masked(faces), plain.encode(hide_lower_half(faces)), rtol=1e-4, atol=1e-5
        )
        expected = plain.encode(hide_upper_half(to_signed(depths).expand(-1, 3, -1, -1)))
        torch.testing.assert_close(lean.encode_depth(depths), expected, rtol=1e-4, atol=5e-5)
        sampled = [codec.encode_masked(faces, seeded(5)) for codec in (lean, plain)]
        torch.testing.assert_close(*sampled, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(lean.decode(expected), plain.decode(expected), rtol=1e-4, atol=1e-4)


def test_bfloat16_is_as_near_to_float32_as_promised(vae, plain):
    """At least 45 dB on the generated images: masked and depth latents in, all networks in 16 bits."""
    codec = LatentCodec(copy.deepcopy(vae), dtype=torch.bfloat16)
    images = F.interpolate(torch.rand(1, 3, 12, 12, generator=seeded()) * 2 - 1, (SIDE, SIDE), mode="bicubic")
    with torch.inference_mode():
        exact = plain.decode(plain.encode(hide_lower_half(images)))
        found = codec.decode(codec.encode_masked(images))
    mean_square = (exact - found).square().mean()
    peak = 2.0  # of -1 to 1
    assert float(10 * torch.log10(peak**2 / mean_square)) > 45
    assert exact.std() > 0.05


def test_other_encoders_are_not_folded(vae):
    assert can_fold(vae, SIDE)
    assert not can_fold(vae, SIDE + 2)
    padded = copy.deepcopy(vae)
    padded.encoder.down_blocks[0].downsamplers[0].padding = 1
    assert not can_fold(padded, SIDE)
