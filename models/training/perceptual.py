"""Distance between images as the frozen VAE's encoder sees them.

The form is LPIPS's (Zhang et al. 2018, equation 1) with equal weights: features of unit length at every position,
squared differences, averaged over positions, summed over layers. The features are those of the training's own VAE
after each of its downsampling blocks, not of a classifier, so no further weights are needed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from models.generation.latent_codec import LatentCodec


def feature_distance(
    codec: LatentCodec, images: Float[Tensor, "b 3 h w"], targets: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, ""]:
    """Images in [-1, 1], sides multiples of the VAE's factor; gradients reach ``images``."""
    with torch.no_grad():
        wanted = encoder_features(codec, targets)
    found = encoder_features(codec, images)
    distances = [(a - b).square().sum(dim=1).mean() for a, b in zip(found, wanted, strict=True)]
    return torch.stack(distances).sum()


def encoder_features(codec: LatentCodec, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
    """float32 [b, c, h', w'] after each downsampling block, of unit length along the channels."""
    encoder = codec.vae.encoder
    states = encoder.conv_in(images.to(dtype=codec.dtype, memory_format=torch.channels_last))
    features = []
    for block in encoder.down_blocks:
        states = block(states)
        features.append(F.normalize(states.float(), dim=1))
    return features
