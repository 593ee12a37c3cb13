"""Deep3DFaceRecon's coefficient network: an aligned 224 px face to the 257 coefficients of the face model.

ResNet-50 (He et al. 2016) with the stride on the 3x3 convolution, without its classifier, then one 1x1 head per
section. Attribute names are the keys of the official checkpoint, face_recon_feat0.2_augment/epoch_20.pth.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from utils.checkpoints import load_strict, read_weights
from utils.errors import BadInput
from utils.official_files import fetch_advice
from utils.types import N_ANGLE, N_COEFFS, N_EXP, N_GAMMA, N_ID, N_TEX

STATE_KEY = "net_recon"  # beside it the checkpoint holds what its training needs: opt_00, sched_00
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # channels inside the blocks, number of blocks
EXPANSION = 4  # channels of a block's output over those inside it
HEADS = (N_ID, N_EXP, N_TEX, N_ANGLE, N_GAMMA, 2, 1)  # translation as x, y and as z
BATCH_SIZE = 8  # crops at a time; larger batches are no faster on a CPU


class Bottleneck(nn.Module):
    """Residual block of three convolutions, 1x1, 3x3 and 1x1, around a shortcut."""

    def __init__(self, n_in: int, n_inside: int, stride: int = 1) -> None:
        super().__init__()
        n_out = EXPANSION * n_inside
        self.conv1 = nn.Conv2d(n_in, n_inside, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_inside)
        self.conv2 = nn.Conv2d(n_inside, n_inside, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_inside)
        self.conv3 = nn.Conv2d(n_inside, n_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_out)
        self.downsample: nn.Module | None = None
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d p q"]:
        shortcut = features if self.downsample is None else self.downsample(features)
        residual = F.relu(self.bn1(self.conv1(features)))
        residual = F.relu(self.bn2(self.conv2(residual)))
        return F.relu(shortcut + self.bn3(self.conv3(residual)))


class Resnet50(nn.Module):
    """ResNet-50 without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        n_in = 64
        for number, (n_inside, n_blocks) in enumerate(STAGES, start=1):
            blocks = [Bottleneck(n_in, n_inside, stride=1 if number == 1 else 2)]
            n_in = EXPANSION * n_inside
            blocks += [Bottleneck(n_in, n_inside) for _ in range(n_blocks - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 2048 1 1"]:
        """The mean over the image of the last stage's features."""
        return self.stages(images)[-1].mean(dim=(2, 3), keepdim=True)

    def stages(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Features of the four stages: 256, 512, 1024 and 2048 channels at 1/4, 1/8, 1/16 and 1/32 of the size."""
        features = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, stride=2, padding=1)
        found = []
        for number in range(1, len(STAGES) + 1):
            features = self.get_submodule(f"layer{number}")(features)
            found.append(features)
        return found


class ReconNet(nn.Module):
    """Coefficients of one face per image: id 80, exp 64, tex 80, angles 3 (rad), gamma 27, translation 3."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Resnet50()
        n_features = EXPANSION * STAGES[-1][0]
        self.final_layers = nn.ModuleList([nn.Conv2d(n_features, n_out, 1) for n_out in HEADS])

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> ReconNet:
        """Open epoch_20.pth. Raises BadInput for a file without ``net_recon`` or with another network in it."""
        content = read_weights(path)
        state = content.get(STATE_KEY)
        if not isinstance(state, Mapping):
            found = ", ".join(sorted(map(str, content))[:3]) or "nothing"
            raise BadInput("checkpoint of another kind", path, f"the key {STATE_KEY}", found, fetch_advice(path))
        with torch.device("meta"):
            network = cls()
        load_strict(network, state, path)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # faster with oneDNN and cuDNN
        return network.to(device, dtype).eval().requires_grad_(False)

    def forward(self, images: Float[Tensor, "b 3 224 224"]) -> Float[Tensor, "b 257"]:
        """Aligned RGB crops in [0, 1] to coefficients."""
        features = self.backbone(images)
        return torch.cat([head(features) for head in self.final_layers], dim=1).flatten(1)

    @torch.inference_mode()
    def coefficients(self, crops: UInt8[np.ndarray, "n 224 224 3"]) -> Float32[np.ndarray, "n 257"]:
        """Coefficients of aligned RGB crops, a few at a time."""
        weight = self.backbone.conv1.weight
        found = np.empty((len(crops), N_COEFFS), np.float32)
        for start in range(0, len(crops), BATCH_SIZE):
            batch = torch.from_numpy(crops[start : start + BATCH_SIZE]).to(weight.device)
            images = batch.permute(0, 3, 1, 2).to(weight.dtype) / 255  # channels stay last in memory
            found[start : start + BATCH_SIZE] = self(images).float().cpu().numpy()
        return found
