"""Deep3DFaceRecon's coefficient network: an aligned 224 px face to the 257 coefficients of the face model.

ResNet-50 (He et al. 2016) with the stride on the 3x3 convolution, without its classifier, then one 1x1 head per
section. Attribute names are the keys of the official checkpoint, face_recon_feat0.2_augment/epoch_20.pth.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from models.layers.resnet import Bottleneck, ResNet
from utils.core.errors import BadInput
from utils.core.types import N_ANGLE, N_COEFFS, N_EXP, N_GAMMA, N_ID, N_TEX
from utils.weights.checkpoints import load_strict, read_weights
from utils.weights.official_files import fetch_advice

STATE_KEY = "net_recon"  # the checkpoint also holds training state: opt_00, sched_00
RESNET_50 = (3, 4, 6, 3)  # blocks of each stage
HEADS = (N_ID, N_EXP, N_TEX, N_ANGLE, N_GAMMA, 2, 1)  # translation as x, y and as z
BATCH_SIZE = 8  # crops at a time; larger batches are no faster on a CPU


class ReconNet(nn.Module):
    """Coefficients of one face per image: id 80, exp 64, tex 80, angles 3 (rad), gamma 27, translation 3."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet(Bottleneck, RESNET_50)
        self.final_layers = nn.ModuleList([nn.Conv2d(self.backbone.n_features, n_out, 1) for n_out in HEADS])

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
        features = self.backbone(images)[-1].mean(dim=(2, 3), keepdim=True)
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
