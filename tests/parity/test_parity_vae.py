"""The latent codec against the reference's VAE wrapper (vae_wrapper.npz), and the official VAE's keys."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from models.generation.latent_codec import LatentCodec, build_vae, current_name, hide_lower_half, hide_upper_half
from utils.imaging.geometry import resize_image
from utils.imaging.images import stack_images, to_bytes, to_signed
from utils.weights.checkpoints import save_weights

ATTENTION_OF_THE_PUBLISHED_FILE = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
SD_VAE_CONFIG = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}


@pytest.fixture(scope="module")
def recording(parity):
    return parity("vae_wrapper")


@pytest.fixture(scope="module")
def codec(filled, manifest, tmp_path_factory):
    directory = tmp_path_factory.mktemp("vae")
    (directory / "config.json").write_text(json.dumps(manifest("vae_tiny")["config"]))
    save_weights(directory / "diffusion_pytorch_model.safetensors", filled("vae_tiny"))
    return LatentCodec.load(directory)


@pytest.fixture(scope="module")
def face(recording):
    """float32 [1, 3, 256, 256] in [-1, 1]."""
    resized = resize_image(recording["in_face_bgr"], 256, 256)
    np.testing.assert_array_equal(resized, recording["face256_bgr"])
    return to_signed(stack_images([resized[..., ::-1]]))


def test_scale(codec, recording):
    assert codec.scale == recording["f64_scaling_factor"][0]


@pytest.mark.parametrize(
    ("name", "prepare"), [("full", lambda x: x), ("half", hide_lower_half), ("upper", hide_upper_half)]
)
def test_preprocessing(face, recording, name, prepare):
    found = prepare(face)[0, :, ::8, ::8].numpy()
    np.testing.assert_allclose(found, recording[f"pre_{name}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "prepare"), [("full", lambda x: x), ("half", hide_lower_half)])
def test_latents(codec, face, recording, name, prepare):
    with torch.no_grad():
        latent = codec.encode(prepare(face)).numpy()
    np.testing.assert_allclose(latent, recording[f"latent_{name}"], rtol=0, atol=1e-4)


def test_decoded_image(codec, recording):
    with torch.no_grad():
        image = codec.decode(torch.from_numpy(recording["latent_full"]))
    decoded = to_bytes(image)[0].permute(1, 2, 0).numpy()[..., ::-1]
    difference = np.abs(decoded.astype(int) - recording["decoded_bgr"])
    assert difference.max() <= 1


def test_official_keys(manifest):
    with torch.device("meta"):
        vae = build_vae(SD_VAE_CONFIG)
    expected = {key: tuple(entry["shape"]) for key, entry in manifest("sd_vae_ft_mse")["keys"].items()}
    assert {key: tuple(value.shape) for key, value in vae.state_dict().items()} == expected
    assert vae.config.scaling_factor == 0.18215  # absent from the published config


def test_names_of_the_published_file(manifest):
    for key in manifest("sd_vae_ft_mse")["keys"]:
        stored = key
        for today, old in ATTENTION_OF_THE_PUBLISHED_FILE.items():
            if "attentions" in key:
                stored = stored.replace(f".{today}.", f".{old}.")
        assert current_name(stored) == key
