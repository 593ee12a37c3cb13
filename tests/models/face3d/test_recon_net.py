"""The coefficient network as a module: the file it reads, the files it refuses, and batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.face3d.recon_net import BATCH_SIZE, ReconNet
from utils.core.errors import BadInput


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = ReconNet().state_dict()
    amplified = {key: 1000 * value for key, value in state.items() if key.startswith("final_layers")}
    return state | amplified  # an untrained backbone gives nearly equal features for all images


@pytest.fixture(scope="module")
def path(state, tmp_path_factory) -> Path:
    """A checkpoint as training leaves it: optimizer and scheduler beside the network."""
    path = tmp_path_factory.mktemp("recon") / "epoch_20.pth"
    optimizer = {"state": {0: {"step": 7, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": np.float64(1e-4)}]}
    torch.save({"net_recon": state, "opt_00": optimizer, "sched_00": {"_last_lr": [np.float64(1e-5)]}}, path)
    return path


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (BATCH_SIZE + 2, 14, 14, 3), dtype=np.uint8)
    return coarse.repeat(16, axis=1).repeat(16, axis=2)


def test_batches_change_nothing(path, crops):
    network = ReconNet.load(path)
    together = network.coefficients(crops)
    assert together.shape == (BATCH_SIZE + 2, 257)
    one_by_one = np.concatenate([network.coefficients(crops[i : i + 1]) for i in (0, BATCH_SIZE, BATCH_SIZE + 1)])
    np.testing.assert_allclose(together[[0, BATCH_SIZE, BATCH_SIZE + 1]], one_by_one, rtol=0, atol=1e-4)
    assert together.std(axis=0).min() > 1e-2  # every coefficient depends on the picture
    assert network.coefficients(crops[:0]).shape == (0, 257)


def test_half_floats_come_close(path, crops):
    exact = ReconNet.load(path).coefficients(crops[:1])
    halved = ReconNet.load(path, dtype=torch.bfloat16).coefficients(crops[:1])
    np.testing.assert_allclose(halved, exact, rtol=0, atol=0.02 * np.abs(exact).max())


def test_loading_the_network_does_not_touch_the_generator_of_random_numbers(path):
    before = torch.get_rng_state()
    ReconNet.load(path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {"net": state}, "expected the key net_recon, found net"),
        (lambda state: {"net_recon": state["backbone.conv1.weight"]}, "expected the key net_recon"),
        (lambda _: {}, "found nothing"),
        (
            lambda state: {"net_recon": {k: v for k, v in state.items() if k != "final_layers.6.bias"}},
            r"1 missing keys such as final_layers\.6\.bias",
        ),
        (lambda state: {"net_recon": state | {"fc.weight": torch.zeros(1)}}, "1 unexpected keys such as fc.weight"),
        (
            lambda state: {"net_recon": state | {"final_layers.0.bias": torch.zeros(81)}},
            r"final_layers\.0\.bias has another shape .*expected \(80,\), found \(81,\)",
        ),
    ],
)
def test_other_checkpoints_are_refused(state, tmp_path, change, message):
    small = {key: torch.zeros(()).expand(value.shape) for key, value in state.items()}  # one stored value per weight
    torch.save(change(small), tmp_path / "epoch_20.pth")
    with pytest.raises(BadInput, match=message) as caught:
        ReconNet.load(tmp_path / "epoch_20.pth")
    assert "epoch_20.pth" in str(caught.value)
