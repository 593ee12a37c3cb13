"""The trunks of ResNet (He et al. 2016), without a classifier; attributes are named as the public checkpoints do."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)  # channels inside the blocks of each stage


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, n_in: int, n_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample = _shortcut(n_in, n_out, stride)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d p q"]:
        shortcut = features if self.downsample is None else self.downsample(features)
        residual = F.relu(self.bn1(self.conv1(features)))
        return F.relu(shortcut + self.bn2(self.conv2(residual)))


class Bottleneck(nn.Module):
    """Residual block of three convolutions, 1x1, 3x3 and 1x1, around a shortcut; the stride is on the 3x3 one."""

    expansion = 4

    def __init__(self, n_in: int, n_inside: int, stride: int = 1) -> None:
        super().__init__()
        n_out = self.expansion * n_inside
        self.conv1 = nn.Conv2d(n_in, n_inside, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_inside)
        self.conv2 = nn.Conv2d(n_inside, n_inside, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_inside)
        self.conv3 = nn.Conv2d(n_inside, n_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_out)
        self.downsample = _shortcut(n_in, n_out, stride)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d p q"]:
        shortcut = features if self.downsample is None else self.downsample(features)
        residual = F.relu(self.bn1(self.conv1(features)))
        residual = F.relu(self.bn2(self.conv2(residual)))
        return F.relu(shortcut + self.bn3(self.conv3(residual)))


def _shortcut(n_in: int, n_out: int, stride: int) -> nn.Module | None:
    """None where features pass as they are."""
    if stride == 1 and n_in == n_out:
        return None
    return nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))


class ResNet(nn.Module):
    """Images to the features of four stages."""

    def __init__(self, block: type[BasicBlock | Bottleneck], n_blocks: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        n_in = 64
        for number, (width, count) in enumerate(zip(WIDTHS, n_blocks, strict=True), start=1):
            blocks = [block(n_in, width, stride=1 if number == 1 else 2)]
            n_in = block.expansion * width
            blocks += [block(n_in, width) for _ in range(count - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.n_features = n_in

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Features at 1/4, 1/8, 1/16 and 1/32 of the size, of ``block.expansion`` times WIDTHS channels."""
        features = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, stride=2, padding=1)
        found = []
        for number in range(1, len(WIDTHS) + 1):
            features = self.get_submodule(f"layer{number}")(features)
            found.append(features)
        return found
