"""The tiny VAE has the full one's interface and is used only with --vae tiny."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderTiny

import inference_joygen
from models.generation.latent_codec import N_INPUT_IMAGES, LatentCodec, hide_lower_half
from models.generation.talking_face import load_talking_face
from models.generation.tiny_codec import TinyCodec
from tests.helpers.talking_clip import IMAGE_SIZE, fill_folder, flags, result_of, save_networks
from utils.core.errors import BadInput
from utils.media.video import read_frames

TINY = {
    "encoder_block_out_channels": (8, 8, 8),
    "decoder_block_out_channels": (8, 8, 8),
    "num_encoder_blocks": (1, 1, 1),
    "num_decoder_blocks": (1, 1, 1),
    "latent_channels": 4,
    "scaling_factor": 0.5,
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    save_networks(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        AutoencoderTiny(**TINY).save_pretrained(folder / "tiny")
    return folder


def test_it_has_the_interface_of_the_full_one(folder):
    tiny, full = TinyCodec.load(folder / "tiny"), LatentCodec.load(folder / "vae")
    assert (tiny.channels, tiny.factor, tiny.scale) == (full.channels, full.factor, 0.5)
    faces = torch.rand(5, 3, IMAGE_SIZE, IMAGE_SIZE) * 2 - 1
    depths = torch.zeros(5, 1, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
    with torch.inference_mode():
        found, like = (codec.generator_input(faces, faces, depths) for codec in (tiny, full))
        assert found.shape == like.shape == (5, N_INPUT_IMAGES * 4, IMAGE_SIZE // 4, IMAGE_SIZE // 4)
        expected = tiny.vae.encode(hide_lower_half(faces)).latents * 0.5
        torch.testing.assert_close(found[:, :4], expected, rtol=1e-4, atol=1e-5)
        image = tiny.decode(expected)
        torch.testing.assert_close(image, tiny.vae.decode(expected / 0.5).sample, rtol=1e-4, atol=1e-5)
        assert image.shape == faces.shape and image.std() > 0


@pytest.mark.parametrize(("kind", "tiny", "what"), [("tiny", False, "tiny VAE"), ("vae", True, "not a tiny VAE")])
def test_the_other_kind_is_refused(folder, kind, tiny, what):
    paths = (folder / "unet", folder / kind, folder / "whisper.pt")
    with pytest.raises(BadInput) as error:
        load_talking_face(*paths, IMAGE_SIZE, CPU, torch.float32, tiny_vae=tiny)
    assert str(error.value).startswith(what) and str(folder / kind) in str(error.value)


def test_broken_weights_are_named(folder, tmp_path):
    (tmp_path / "config.json").write_text((folder / "tiny" / "config.json").read_text())
    with pytest.raises(BadInput, match="weights"):
        TinyCodec.load(tmp_path)


def test_stage_3_generates_with_it(tmp_path, folder):
    clip = tmp_path / "clip"
    clip.mkdir()
    fill_folder(clip)
    inference_joygen.main(flags(clip, tmp_path / "full"))
    inference_joygen.main([*flags(clip, tmp_path / "tiny", vae_model_path=folder / "tiny"), "--vae", "tiny"])
    full, tiny = (list(read_frames(result_of(clip, tmp_path / kind))) for kind in ("full", "tiny"))
    assert len(full) == len(tiny) == 19
    assert abs(full[0].astype(int) - tiny[0]).max() > 20


def test_it_needs_weights():
    with pytest.raises(BadInput, match="tiny VAE without weights") as error:
        inference_joygen.main(["--audio_path", "a.wav", "--video_path", "b.mp4", "--vae", "tiny"])
    assert "--vae_model_path" in str(error.value)
