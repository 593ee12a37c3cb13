"""Conversions of images: camera depth to 8 bits, JPEG, arrays to tensors, value ranges."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from utils.imaging.masks import mouth_mask

_TINY = 1e-8  # keeps a flat surface from dividing by zero


def depth_to_uint8(depth: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Camera depth as the generator reads it: covered pixels (depth > 0) scaled, the nearest to 255, the farthest to 0.

    ``255 - (z - min) / (max - min + 1e-8) * 255``, truncated; the background is 0. Without a covered pixel the image
    is black (upstream fails on the minimum of nothing).
    """
    covered = depth > 0
    image = np.zeros(depth.shape, np.uint8)
    if covered.any():
        z = depth[covered]
        nearest, farthest = z.min(), z.max()
        image[covered] = (255 - (z - nearest) / (farthest - nearest + _TINY) * 255).astype(np.uint8)
    return image


def mouth_depth(depth: UInt8[np.ndarray, "h w"], landmarks: Float[np.ndarray, "468 2"]) -> UInt8[np.ndarray, "h w"]:
    """The depth image inside the outer lips, 0 elsewhere; landmarks in pixels of the depth image."""
    return depth * mouth_mask(landmarks, (depth.shape[0], depth.shape[1]))


def jpeg_round_trip(image: UInt8[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "h w *c"]:
    """An RGB or gray image after Pillow has saved it as JPEG (its default quality 75) and read it."""
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
