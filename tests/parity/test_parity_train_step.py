"""Losses and gradients of one training step against the reference (train_step.npz).

The recording's images were in channels-last layout, where PyTorch's group normalisation is inexact (latents off by
up to 2e-3 from float64). So the step runs twice: with that kernel, to the recording's own tolerances, and with the
exact normalisation that the project trains with, to tolerances that leave room for the recording's error.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from models.generation.generator import Generator
from models.generation.latent_codec import LatentCodec
from models.layers.group_norm import ContiguousGroupNorm
from utils.imaging.images import stack_gray, stack_images, to_signed, truncate_to_bytes
from utils.training.losses import LossWeights, generator_losses
from utils.weights.checkpoints import save_weights

REFERENCE_WEIGHTS = LossWeights(latent=1.0, pixel=2.0)


@pytest.fixture(scope="module")
def recording(parity):
    return parity("train_step")


@pytest.fixture(scope="module")
def images(recording):
    """Targets, references uint8 [2, 3, 256, 256] and depths [2, 1, 256, 256]; the second item is brightened."""
    changed = []
    for name in ("in_gt_rgb", "in_ref_rgb"):
        scaled = recording[name].astype(np.float32) / 255
        scale, offset = (recording[key][:, None, None, None] for key in ("in_scale", "in_offset"))
        changed.append(stack_images(list(truncate_to_bytes(scaled * scale + offset))))
    depth = truncate_to_bytes(recording["in_depth"][0, ..., 0].astype(np.float32) / 255)
    return *changed, stack_gray([depth, np.zeros_like(depth)])


@dataclass(frozen=True)
class Tolerance:
    latents: float  # absolute
    images: float  # absolute
    losses: float  # relative
    gradients: float  # relative


RECORDED_KERNEL = Tolerance(latents=1e-4, images=1e-4, losses=1e-4, gradients=2e-3)
EXACT_KERNEL = Tolerance(latents=3e-2, images=3e-2, losses=1e-4, gradients=5e-3)


@pytest.fixture(scope="module", params=[RECORDED_KERNEL, EXACT_KERNEL], ids=["recorded kernel", "exact kernel"])
def tolerance(request) -> Tolerance:
    return request.param


@pytest.fixture(scope="module")
def step(recording, images, filled, manifest, tmp_path_factory, tolerance):
    """Everything that one step computes, gradients included."""
    opened = []
    for name, network in (("vae_tiny", LatentCodec), ("unet_tiny", Generator)):
        directory = tmp_path_factory.mktemp(name)
        (directory / "config.json").write_text(json.dumps(manifest(name)["config"]))
        save_weights(directory / "diffusion_pytorch_model.safetensors", filled(name))
        opened.append(network.load(directory))
    codec, generator = opened
    generator.train()
    if tolerance is RECORDED_KERNEL:
        use_recorded_kernel(codec.vae)
        use_recorded_kernel(generator)
    targets, references, depths = images
    with torch.no_grad():
        inputs = codec.generator_input(to_signed(targets), to_signed(references), depths)
        target_latents = codec.encode(to_signed(targets))
    predicted = generator(inputs, torch.from_numpy(recording["in_whisper"]).float())
    decoded = codec.decode(predicted)
    mouths = torch.zeros_like(depths).float()
    losses = generator_losses(predicted, target_latents, decoded, to_signed(targets), mouths, REFERENCE_WEIGHTS)
    losses.total.backward()
    return inputs, target_latents, predicted.detach(), decoded.detach(), losses, generator


def use_recorded_kernel(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, ContiguousGroupNorm):
            part.__class__ = nn.GroupNorm


def test_batch_is_rounded_down(images, recording):
    bgr = torch.cat(images[:2], dim=2).permute(0, 2, 3, 1).numpy()[..., ::-1]
    np.testing.assert_array_equal(bgr[:, ::16, ::16], recording["batch_uint8_bgr_sub"])


@pytest.mark.parametrize(("position", "name"), [(0, "input_latent_sub"), (1, "gt_latent_sub"), (2, "pred_latent_sub")])
def test_latents(step, recording, tolerance, position, name):
    np.testing.assert_allclose(step[position][:, :, ::4, ::4].numpy(), recording[name], rtol=0, atol=tolerance.latents)


def test_decoded_image(step, recording, tolerance):
    np.testing.assert_allclose(
        step[3][:, :, ::16, ::16].numpy(), recording["image_pred_sub"], rtol=0, atol=tolerance.images
    )


@pytest.mark.parametrize("name", ["latent", "pixel", "total"])
def test_losses(step, recording, tolerance, name):
    found = getattr(step[4], name).item()
    np.testing.assert_allclose(found, recording[f"loss_{name}"][0], rtol=tolerance.losses)


def test_gradients(step, recording, tolerance):
    gradients = {name: parameter.grad for name, parameter in step[5].unet.named_parameters()}
    assert sorted(gradients) == sorted(recording["grad_keys"].tolist())
    norms = [gradients[key].norm().item() for key in recording["grad_keys"].tolist()]
    np.testing.assert_allclose(norms, recording["grad_norms"], rtol=tolerance.gradients, atol=1e-6)
    total = torch.nn.utils.clip_grad_norm_(step[5].parameters(), 1.0).item()
    np.testing.assert_allclose(total, recording["grad_total_norm"][0], rtol=tolerance.gradients)
