"""models/evaluation/lpips.py: the public network's number, under both layouts that the package has saved."""

from __future__ import annotations

import pytest
import torch

from models.evaluation.inception import InceptionV3
from models.evaluation.lpips import Lpips
from tests.helpers.filled_weights import fill, save_filled
from tests.helpers.media import smooth_picture
from utils.core.errors import BadInput
from utils.weights.checkpoints import save_weights

# Recorded with torchvision's AlexNet (0.29.2) and the package's formula under the same filled weights.
RECORDED = 0.0059681
PICTURES = smooth_picture(256, 128, seed=0), smooth_picture(256, 128, seed=1)


def test_distance_equals_the_public_network(tmp_path):
    network = Lpips.load(save_filled(tmp_path / "lpips_alex.pth", Lpips()))
    assert network.distance(*PICTURES) == pytest.approx(RECORDED, rel=1e-4)
    assert network.distance(PICTURES[0], PICTURES[0]) == 0


def test_duplicated_linear_layers_are_left_out(tmp_path):
    state = fill.fill_module(Lpips(), 7).state_dict()
    path = tmp_path / "lpips.safetensors"
    save_weights(path, {**state, "lins.0.model.1.weight": torch.zeros(1, 64, 1, 1)})
    assert Lpips.load(path).distance(*PICTURES) == pytest.approx(RECORDED, rel=1e-4)


def test_other_weights_are_refused(tmp_path):
    path = save_filled(tmp_path / "inception.pth", InceptionV3())
    with pytest.raises(BadInput, match="weights of another network"):
        Lpips.load(path)
