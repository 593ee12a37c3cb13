"""Stage 3 from face crops, depth, landmarks and audio states to faces (stage3_inputs.npz, stage3_outputs.npz)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.generation.generator import build_unet, positional_encoding
from models.generation.latent_codec import hide_upper_half
from models.layers.model_config import read_model_config
from utils.imaging.geometry import resize_image
from utils.imaging.images import mouth_depth, stack_gray, stack_images, to_bytes, to_signed
from utils.imaging.landmarks import OUTER_LIPS
from utils.imaging.masks import mouth_mask
from utils.media.windows import stream_windows

N_FRAMES = 6
BATCH_SIZE = 4
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def inputs(parity):
    return parity("stage3_inputs")


@pytest.fixture(scope="module")
def outputs(parity):
    return parity("stage3_outputs")


@pytest.fixture(scope="module")
def images(inputs):
    """Faces uint8 [6, 3, 256, 256] and depths inside the lips uint8 [6, 1, 256, 256]."""
    faces, depths = [], []
    for i in range(N_FRAMES):
        faces.append(resize_image(inputs[f"in_f{i}_face_bgr"], 256, 256)[..., ::-1])
        depths.append(resize_image(mouth_depth(inputs[f"in_f{i}_depth"], inputs[f"in_f{i}_lm468"]), 256, 256))
    return stack_images(faces), stack_gray(depths)


@pytest.fixture(scope="module")
def windows(inputs):
    return torch.cat([*stream_windows([torch.from_numpy(inputs["in_whisper_feature"]).float()], N_FRAMES)])


@pytest.fixture(scope="module")
def results(networks, images, windows):
    return generate(*networks, *images, windows)


def generate(codec, generator, faces, depths, windows):
    """Input latents, predicted latents and decoded images, batch by batch."""
    with torch.no_grad():
        latents = torch.cat([codec.generator_input(f, f, d) for f, d in batches(to_signed(faces), depths)])
        predicted = torch.cat([generator(x, a) for x, a in batches(latents, windows)])
        decoded = torch.cat([codec.decode(z) for (z,) in batches(predicted)])
    return latents.numpy(), predicted.numpy(), decoded


def batches(*tensors):
    return zip(*(tensor.split(BATCH_SIZE) for tensor in tensors), strict=True)


def bgr(images: torch.Tensor) -> np.ndarray:
    return to_bytes(images).permute(0, 2, 3, 1).numpy()[..., ::-1]


def assert_levels_close(found: np.ndarray, expected: np.ndarray) -> None:
    """±1 level, at most 0.5 % of values off."""
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.005


@pytest.mark.parametrize("frame", range(N_FRAMES))
def test_mouth_mask(inputs, frame):
    depth = inputs[f"in_f{frame}_depth"]
    mask = mouth_mask(inputs[f"in_f{frame}_lm468"], depth.shape)
    np.testing.assert_array_equal(mask > 0, inputs[f"f{frame}_mouth_mask"] > 0)


def test_lip_polygon(inputs):
    assert list(OUTER_LIPS) == inputs["mouth_region_indices"].tolist()


def test_depth_input(inputs, images):
    depth = to_bytes(hide_upper_half(to_signed(images[1])))[:, 0].numpy()
    assert np.abs(depth.astype(int) - inputs["depth_input_256"]).max() <= 1


def test_input_latents(results, outputs):
    np.testing.assert_allclose(results[0], outputs["unet_input_latents"], rtol=0, atol=1e-4)


def test_positional_encoding(outputs):
    np.testing.assert_allclose(positional_encoding(50, 384)[:, ::8].numpy(), outputs["pe_sub"], rtol=0, atol=1e-5)


def test_audio_context(windows, outputs):
    context = (windows + positional_encoding(50, 384))[:, ::5, ::8].numpy()
    np.testing.assert_allclose(context, outputs["audio_context_sub"], rtol=0, atol=1e-5)


def test_predicted_latents(results, outputs):
    np.testing.assert_allclose(results[1], outputs["pred_latents"], rtol=0, atol=1e-4)


def test_faces(results, outputs):
    assert_levels_close(bgr(results[2]), outputs["faces_bgr"])


@pytest.mark.parametrize("frame", [0, 2])
def test_faces_at_the_size_of_their_box(results, inputs, outputs, frame):
    left, top, right, bottom = inputs[f"in_f{frame}_box"].astype(int)
    resized = cv2.resize(bgr(results[2])[frame], (right - left, bottom - top))
    assert_levels_close(resized, outputs[f"resized_frame{frame}"])


def test_without_depth(networks, images, windows, outputs):
    codec, generator = networks
    latents, predicted, decoded = generate(codec, generator, images[0], torch.zeros_like(images[1]), windows)
    np.testing.assert_allclose(latents[0, 2 * codec.channels :], outputs["nopose_depth_latent"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(predicted, outputs["nopose_pred_latents"], rtol=0, atol=1e-4)
    assert_levels_close(bgr(decoded)[0], outputs["nopose_face0"])


def test_official_keys(manifest):
    """config/unet.json builds the official network."""
    config = read_model_config(REPOSITORY / "config" / "unet.json")
    official = manifest("unet_joygen")
    assert {key: config[key] for key in official["config"]} == official["config"]
    with torch.device("meta"):
        unet = build_unet(config)
    expected = {key: tuple(entry["shape"]) for key, entry in official["keys"].items()}
    assert {key: tuple(value.shape) for key, value in unet.state_dict().items()} == expected
