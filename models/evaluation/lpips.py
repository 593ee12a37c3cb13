"""Learned perceptual distance between two images, LPIPS (Zhang et al. 2018) on AlexNet, version 0.1.

Attribute names are those of ``lpips.LPIPS(net="alex").state_dict()`` (richzhang/PerceptualSimilarity): that state dict,
saved as .pth or .safetensors, is the file that this opens.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from utils.imaging.images import stack_images, to_signed
from utils.weights.checkpoints import load_strict, read_weights

WIDTHS = (64, 192, 384, 256, 256)
# Index of each convolution in torchvision's AlexNet, which the keys carry; slices 2 and 3 begin with a maximum pool.
CONVOLUTIONS = (
    (0, 11, 4, 2),
    (3, 5, 1, 2),
    (6, 3, 1, 1),
    (8, 3, 1, 1),
    (10, 3, 1, 1),
)  # index, kernel, stride, padding
POOLED_SLICES = (1, 2)  # counted from 0
DUPLICATES = "lins."  # newer versions of the package list the linear layers a second time
EPSILON = 1e-10


class Scaling(nn.Module):
    """From [-1, 1] to ImageNet's mean and deviation; both are stored in the file."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[None, :, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[None, :, None, None])

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return (images - self.get_buffer("shift")) / self.get_buffer("scale")


class AlexSlices(nn.Module):
    """AlexNet's convolutions in five slices, the last layer of each a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        n_in = 3
        for number, (n_out, (index, kernel, stride, padding)) in enumerate(zip(WIDTHS, CONVOLUTIONS, strict=True)):
            part = nn.Sequential()
            part.add_module(str(index), nn.Conv2d(n_in, n_out, kernel, stride, padding))
            self.add_module(f"slice{number + 1}", part)
            n_in = n_out

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        found, features = [], images
        for number in range(len(WIDTHS)):
            if number in POOLED_SLICES:
                features = F.max_pool2d(features, 3, stride=2)
            features = F.relu(self.get_submodule(f"slice{number + 1}")(features))
            found.append(features)
        return found


class Weighting(nn.Module):
    """One weight per channel; the dropout before it in training makes its key model.1."""

    def __init__(self, n_in: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(n_in, 1, 1, bias=False))

    def forward(self, squares: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        return self.model(squares)


class Lpips(nn.Module):
    """Distance of images in [-1, 1]; 0 for equal ones."""

    def __init__(self) -> None:
        super().__init__()
        self.scaling_layer = Scaling()
        self.net = AlexSlices()
        for number, width in enumerate(WIDTHS):
            self.add_module(f"lin{number}", Weighting(width))

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> Lpips:
        """Open a saved ``lpips.LPIPS(net="alex").state_dict()``. Raises BadInput for weights of another network."""
        network = cls()
        state = {key: value for key, value in read_weights(path).items() if not key.startswith(DUPLICATES)}
        load_strict(network, state, path)
        return network.to(device).eval().requires_grad_(False)

    def forward(self, first: Float[Tensor, "b 3 h w"], second: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        pairs = zip(self.net(self.scaling_layer(first)), self.net(self.scaling_layer(second)), strict=True)
        distances = [
            self.get_submodule(f"lin{number}")((unit_length(a) - unit_length(b)).square()).mean(dim=(1, 2, 3))
            for number, (a, b) in enumerate(pairs)
        ]
        return torch.stack(distances).sum(dim=0)

    @torch.inference_mode()
    def distance(self, first: UInt8[np.ndarray, "h w 3"], second: UInt8[np.ndarray, "h w 3"]) -> float:
        """LPIPS of two RGB images."""
        device = next(self.parameters()).device
        images = to_signed(stack_images([first, second]).to(device))
        return float(self(images[:1], images[1:])[0])


def unit_length(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Divide every position's channels by their length."""
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + EPSILON)
