"""Perceptual loss of generator training: distance of images in the features of a network that knows pictures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from models.training.picture_network import PictureNetwork

N_STAGES = 5  # strides 2, 4, 8, 16, 16; those after it see a lower half of 256 px in 4 x 8 positions


class PerceptualLoss:
    """LPIPS without learned weights (Zhang et al. 2018, equation 1) on EfficientNet-lite0.

    Features are unit vectors at every position; squared differences are averaged over positions and summed over
    stages. They are the activations of each stage's last depthwise convolution, not its linear result: of the forms
    compared in docs/mini_pack.md they prefer texture that is not the target's own to no texture most clearly, and an
    L1 distance, divided by the features' mean, tells blur from a shift of one pixel less.
    """

    def __init__(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        """Raises BadInput if the wheel of the network is not installed."""
        network: torch.nn.Module = PictureNetwork.load(N_STAGES)
        self.network = network.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, images: Float[Tensor, "b 3 h w"], targets: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
        """Images in [-1, 1] of any size; gradients reach ``images``."""
        with torch.no_grad():
            target_features = self._features(targets)
        distances = [
            (a - b).square().sum(dim=1).mean() for a, b in zip(self._features(images), target_features, strict=True)
        ]
        return torch.stack(distances).sum()

    def _features(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """float32 [b, c, h', w'], of unit length along the channels."""
        return [F.normalize(activations.float(), dim=1) for activations in self.network(images)[1]]
