"""The picture network knows pictures, and the loss on it minds what people see."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F

from models.training.perceptual_loss import N_STAGES, PerceptualLoss
from models.training.picture_network import PictureNetwork, SameConv2d
from utils.weights.picture_wheel import read_picture_network


@pytest.fixture(scope="module")
def loss() -> PerceptualLoss:
    return PerceptualLoss()


def as_batch(image: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.ascontiguousarray(image)).permute(2, 0, 1)[None] / 127.5 - 1


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    return skimage.data.astronaut()[:256, 90:346]


def blurred(image: np.ndarray, deviation: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), deviation)


@pytest.mark.parametrize(
    ("name", "classes"),
    [("chelsea", {281, 282, 285}), ("coffee", {967}), ("rocket", {657})],  # cats; espresso; missile
)
def test_the_network_knows_pictures(name, classes):
    """Its most likely ImageNet class: wrong weights, padding or scaling of the levels would spoil it."""
    image = getattr(skimage.data, name)()
    side = min(image.shape[:2]) * 7 // 8
    top, left = ((size - side) // 2 for size in image.shape[:2])
    resized = cv2.resize(image[top : top + side, left : left + side], (224, 224), interpolation=cv2.INTER_CUBIC)
    state = read_picture_network()
    with torch.inference_mode():
        states, _ = PictureNetwork.load()(as_batch(resized))
        head = F.relu6(F.conv2d(states, state["head.weight"], state["head.bias"])).mean(dim=(2, 3))
        scores = F.linear(head, state["classes.weight"], state["classes.bias"])[0]
    assert int(scores.argmax()) in classes


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "first"), [(8, 3, 2, 0), (7, 3, 2, 1), (8, 5, 2, 1), (8, 5, 1, 2)]
)
def test_padding_is_that_of_tensorflow(size, kernel, stride, first):
    """With "SAME" an even size at stride 2 has its odd row of padding at the end: the first window starts at -first."""
    layer = SameConv2d(1, 1, kernel, stride, bias=False)
    torch.nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.weight[0, 0, 0, 0] = 1  # picks the window's first pixel
        ramp = torch.arange(1.0, size + 1).expand(1, 1, size, size)
        columns = layer(ramp * ramp.mT)[0, 0, -1]
    starts = torch.arange(0, size, stride) - first
    row = starts[-1] + 1
    expected = torch.where(starts >= 0, starts + 1.0, 0.0) * row
    torch.testing.assert_close(columns, expected)


def test_distance_grows_with_the_distortion(loss, face):
    target = as_batch(face)
    distances = [float(loss(as_batch(blurred(face, deviation)), target)) for deviation in (0.5, 1.0, 2.0)]
    assert float(loss(target, target)) == 0 < distances[0] < distances[1] < distances[2] < 4 * N_STAGES


def test_blur_is_worse_than_a_shift_of_a_pixel(loss, face):
    """L1 finds the blur nearer."""
    target, blur, shift = (as_batch(image) for image in (face, blurred(face, 1.5), np.roll(face, 1, axis=1)))
    assert (blur - target).abs().mean() < (shift - target).abs().mean()
    assert loss(blur, target) > 1.5 * loss(shift, target)


def test_texture_is_better_than_smoothness(loss, face):
    """Grain that is not the target's own is nearer to it than no grain; for L1 it is the other way round."""
    generator = torch.Generator().manual_seed(0)
    plain = as_batch(blurred(face, 1.5))
    target, other = (plain + 0.04 * torch.randn(plain.shape, generator=generator) for _ in range(2))
    assert (other - target).abs().mean() > (plain - target).abs().mean()
    assert loss(other, target) < 0.9 * loss(plain, target)


def test_only_the_images_get_gradients(loss, face):
    images, targets = (as_batch(image).requires_grad_() for image in (blurred(face, 1.0), face))
    loss(images, targets).backward()
    assert images.grad.abs().sum() > 0 and targets.grad is None
    assert all(parameter.grad is None for parameter in loss.network.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bfloat16(loss, face, dtype):
    """As the network's own type, and under autocast."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, targets = (as_batch(image).to(device) for image in (blurred(face, 1.0), face))
    images.requires_grad_()
    with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.float32):
        found = PerceptualLoss(device, dtype)(images, targets)
    found.backward()
    assert found.dtype == torch.float32 and torch.isfinite(images.grad).all()
    expected = loss(as_batch(blurred(face, 1.0)), as_batch(face)).item()
    assert found.item() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("size", [(16, 32), (33, 57)])
def test_any_size(loss, size):
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert loss(images, -images) > 0
