from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.generation.latent_codec import LatentCodec, build_vae, hide_lower_half, hide_upper_half
from models.layers.model_config import read_model_config
from tests.helpers.training_data import SIZE, VAE_CONFIG, write_networks
from utils.core.errors import BadInput
from utils.imaging.images import to_signed
from utils.weights.checkpoints import read_weights, save_weights


@pytest.fixture(scope="module")
def vae_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    write_networks(folder)
    return folder / "vae"


@pytest.fixture(scope="module")
def codec(vae_dir):
    return LatentCodec.load(vae_dir)


@pytest.fixture
def images():
    """Faces, references uint8 [2, 3, 32, 32] and depths uint8 [2, 1, 32, 32]."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, SIZE, SIZE), (2, 3, SIZE, SIZE), (2, 1, SIZE, SIZE))
    return [torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for shape in shapes]


def test_sizes_come_from_the_config(codec):
    assert (codec.channels, codec.factor, codec.scale) == (4, 2, 0.5)
    with torch.no_grad():
        latents = codec.encode(torch.zeros(3, 3, SIZE, SIZE))
        assert latents.shape == (3, 4, SIZE // 2, SIZE // 2)
        assert codec.decode(latents).shape == (3, 3, SIZE, SIZE)


def test_latents_are_scaled(codec):
    images = torch.rand(1, 3, SIZE, SIZE)
    with torch.no_grad():
        mean = codec.vae.encode(images).latent_dist.mode()
        torch.testing.assert_close(codec.encode(images), 0.5 * mean)
        torch.testing.assert_close(codec.decode(0.5 * mean), codec.vae.decode(mean).sample)


@pytest.mark.parametrize("n_images", [1, 4, 5, 9])
def test_batches_do_not_matter(codec, n_images):
    images = torch.rand(n_images, 3, SIZE, SIZE)
    with torch.no_grad():
        one_by_one = torch.cat([codec.encode(image[None]) for image in images])
        torch.testing.assert_close(codec.encode(images), one_by_one, rtol=1e-4, atol=1e-5)


def test_draws_depend_on_the_generator_alone(codec):
    images = torch.rand(5, 3, SIZE, SIZE)
    with torch.no_grad():
        first, second, other = (codec.encode(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
        mean = codec.encode(images)
    assert torch.equal(first, second)
    assert not torch.equal(first, other) and not torch.equal(first, mean)


def test_halves():
    images = torch.rand(1, 3, 7, 5)
    lower, upper = hide_lower_half(images), hide_upper_half(images)
    assert (lower[:, :, 3:] == -1).all() and torch.equal(lower[:, :, :3], images[:, :, :3])
    assert (upper[:, :, :3] == -1).all() and torch.equal(upper[:, :, 3:], images[:, :, 3:])


def test_generator_input_is_masked_reference_depth(codec, images):
    signed = [image.float() / 127.5 - 1 for image in images]
    with torch.no_grad():
        parts = codec.generator_input(signed[0], signed[1], images[2]).chunk(3, dim=1)
        expected = (
            codec.encode(hide_lower_half(signed[0])),
            codec.encode(signed[1]),
            codec.encode(hide_upper_half(signed[2].expand(-1, 3, -1, -1))),
        )
    for part, latent in zip(parts, expected, strict=True):
        torch.testing.assert_close(part, latent, rtol=1e-4, atol=1e-5)


def test_lower_half_of_the_face_and_upper_half_of_the_depth_are_not_seen(codec, images):
    faces, references, depths = to_signed(images[0]), to_signed(images[1]), images[2]
    with torch.no_grad():
        before = codec.generator_input(faces, references, depths)
        faces, depths = faces.clone(), depths.clone()
        faces[:, :, SIZE // 2 :] = 0.5
        depths[:, :, : SIZE // 2] = 7
        assert torch.equal(codec.generator_input(faces, references, depths), before)


def test_gradients_reach_latents_but_not_weights(codec):
    latents = torch.zeros(1, 4, SIZE // 2, SIZE // 2, requires_grad=True)
    codec.decode(latents).square().mean().backward()
    assert latents.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in codec.vae.parameters())


def test_half_precision_gives_float32(vae_dir):
    codec = LatentCodec.load(vae_dir, dtype=torch.bfloat16)
    with torch.no_grad():
        latents = codec.encode(torch.zeros(1, 3, SIZE, SIZE))
        assert latents.dtype == torch.float32 and codec.decode(latents).dtype == torch.float32


def test_old_attention_names_are_read(tmp_path):
    config = VAE_CONFIG | {"mid_block_add_attention": True}
    state = build_vae(config).state_dict()
    renames = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    stored = {}
    for key, value in state.items():
        for today, old in renames.items():
            key = key.replace(today, old)
        stored[key] = value
    assert any(".proj_attn." in key for key in stored)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_weights(tmp_path / "diffusion_pytorch_model.safetensors", stored)
    loaded = LatentCodec.load(tmp_path).vae.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_bin_weights_are_read(vae_dir, tmp_path):
    (tmp_path / "config.json").write_text((vae_dir / "config.json").read_text())
    state = read_weights(vae_dir / "diffusion_pytorch_model.safetensors")
    torch.save(state, tmp_path / "diffusion_pytorch_model.bin")
    loaded = LatentCodec.load(tmp_path).vae.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_bad_folders_are_named(vae_dir, tmp_path):
    with pytest.raises(BadInput, match=r"model config missing.*config\.json"):
        LatentCodec.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(VAE_CONFIG))
    with pytest.raises(BadInput, match="weights missing"):
        LatentCodec.load(tmp_path)
    save_weights(tmp_path / "diffusion_pytorch_model.safetensors", {"a": torch.zeros(1)})
    with pytest.raises(BadInput, match="weights of another network"):
        LatentCodec.load(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1, 2]"])
def test_bad_model_config(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BadInput, match="unreadable model config"):
        read_model_config(tmp_path / "config.json")


@pytest.mark.parametrize("values", [{"block_out_channels": "many"}, {"latent_channels": None}, {"unheard_of": 1}])
def test_a_config_that_describes_no_network_is_named(tmp_path: Path, values: dict) -> None:
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(BadInput, match=r"describes no network .*config\.json"):
        LatentCodec.load(tmp_path)


def test_notes_in_the_config_do_not_matter(vae_dir):
    config = read_model_config(vae_dir / "config.json")
    keys = build_vae(config | {"_diffusers_version": "0.4", "_class_name": "AutoencoderKL"}).state_dict().keys()
    assert keys == build_vae(config).state_dict().keys()


def test_exact_group_norm_agrees_with_the_plain_one():
    from models.layers.group_norm import ContiguousGroupNorm

    norm = ContiguousGroupNorm(4, 8)
    torch.nn.init.normal_(norm.weight)
    plain = torch.nn.GroupNorm(4, 8)
    plain.load_state_dict(norm.state_dict())
    images = (5 + torch.rand(2, 8, 16, 16)).requires_grad_()
    twin = images.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    normal, twin_normal = plain(images), norm(twin)
    assert twin_normal.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(twin_normal, normal)
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=normal.shape)).float()
    (normal * weights).sum().backward()
    (twin_normal * weights).sum().backward()
    torch.testing.assert_close(twin.grad, images.grad)
    torch.testing.assert_close(norm.weight.grad, plain.weight.grad)
