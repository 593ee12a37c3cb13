from __future__ import annotations

import numpy as np
import pytest
import torch

from models.generation.face_parsing import BiSeNet, FaceParsing, prepare_parsing_input
from utils.core.errors import BadInput


@pytest.fixture(scope="module")
def network() -> BiSeNet:
    torch.manual_seed(0)
    return BiSeNet().eval()


class AlwaysClass(BiSeNet):
    """A network that predicts one class everywhere."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(images), 19, *images.shape[2:])
        logits[:, self.label] = 1
        return logits


def test_logits_have_the_size_of_the_image(network):
    with torch.no_grad():
        assert network(torch.randn(1, 3, 64, 96)).shape == (1, 19, 64, 96)


def test_auxiliary_heads_have_the_size_of_the_image(network):
    with torch.no_grad():
        assert [logits.shape for logits in network.auxiliary(torch.randn(1, 3, 64, 96))] == [(1, 19, 64, 96)] * 2


@pytest.mark.parametrize(("label", "level"), [(0, 0), (1, 255), (13, 255), (14, 0), (17, 0)])
def test_skin_to_lips_are_face_and_neck_and_hair_are_not(label, level):
    mask = FaceParsing(AlwaysClass(label))(np.zeros((40, 30, 3), np.uint8))
    assert mask.shape == (512, 512) and mask.dtype == np.uint8
    assert np.unique(mask).tolist() == [level]


def test_input_has_imagenets_statistics():
    white = prepare_parsing_input(np.full((20, 30, 3), 255, np.uint8))
    assert white.shape == (3, 512, 512)
    assert torch.allclose(white[:, 0, 0], torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]))


def test_the_backbones_own_checkpoint_is_refused(network, tmp_path):
    path = tmp_path / "resnet18-5c106cde.pth"
    torch.save(network.cp.resnet.state_dict(), path)
    with pytest.raises(BadInput, match=r"missing keys such as .*unexpected keys such as"):
        FaceParsing.load(path)
