"""Face crops and depth images at the size that the generator works at, and images as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from utils.imaging.masks import mouth_mask


def mouth_depth(depth: UInt8[np.ndarray, "h w"], landmarks: Float[np.ndarray, "468 2"]) -> UInt8[np.ndarray, "h w"]:
    """The depth image inside the outer lips, 0 elsewhere; landmarks in pixels of the depth image."""
    return depth * mouth_mask(landmarks, (depth.shape[0], depth.shape[1]))


def jpeg_round_trip(image: UInt8[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "h w *c"]:
    """What is left of an RGB or gray image after Pillow has saved it as JPEG (its default quality 75) and read it."""
    from PIL import Image

    file = BytesIO()
    Image.fromarray(image).save(file, format="JPEG")
    with Image.open(file) as stored:
        return np.asarray(stored)


def stack_images(images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> UInt8[Tensor, "b 3 h w"]:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def stack_gray(images: Sequence[UInt8[np.ndarray, "h w"]]) -> UInt8[Tensor, "b 1 h w"]:
    return torch.from_numpy(np.stack(images))[:, None]


def to_signed(images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """0..255 to -1..1."""
    return images.float() / 127.5 - 1


def to_bytes(images: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b c h w"]:
    """-1..1 to 0..255, rounded; values outside are clipped."""
    return ((images.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)


def truncate_to_bytes(image: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """0..1 to 0..255, rounded down as in the reference's training batches; values outside are clipped."""
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)
