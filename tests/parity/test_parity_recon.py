"""The coefficient network against the reference (deep3d_recon.npz)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.face3d.recon_net import ReconNet


@pytest.fixture(scope="module")
def recording(parity):
    return parity("deep3d_recon")


@pytest.fixture(scope="module")
def recon_net(filled, tmp_path_factory) -> ReconNet:
    """The filled epoch_20.pth, opened as the real one is."""
    path = tmp_path_factory.mktemp("recon") / "epoch_20.pth"
    torch.save({"net_recon": filled("deep3d_recon_resnet50"), "opt_00": {"state": {}}, "sched_00": {}}, path)
    return ReconNet.load(path)


def test_keys_and_shapes_are_the_official_ones(manifest):
    keys = manifest("deep3d_recon_resnet50")["keys"]
    with torch.device("meta"):
        state = ReconNet().state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == {key: keys[key]["shape"] for key in keys}


def test_coefficients(recording, recon_net):
    found = recon_net.coefficients(recording["in_images_rgb"])
    np.testing.assert_allclose(found, recording["coeffs"], rtol=0, atol=1e-4)


def test_features_of_every_stage(recording, recon_net):
    images = torch.from_numpy(recording["in_images_rgb"]).permute(0, 3, 1, 2).float() / 255
    stages = [features.numpy() for features in recon_net.backbone(images)]
    parts = (stages[0][:, ::16, 3::8, 3::8], stages[1][:, ::32, 1::4, 1::4], stages[2][:, ::64, ::2, ::2])
    for number, part in enumerate(parts, start=1):
        np.testing.assert_allclose(part, recording[f"layer{number}_sub"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(stages[3].mean(axis=(2, 3)), recording["backbone_features"], rtol=0, atol=1e-4)
