"""Random augmentation of training images: placement shared by target, reference and depth, colour by the first two."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from utils.core.config import Amount, Factor, Share
from utils.imaging.images import truncate_to_bytes

GRAY_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601 luma


@dataclass(frozen=True)
class Augmentation:
    """The defaults are the reference's."""

    crop_scale: tuple[Factor, Factor] = (0.8, 1.0)  # kept share of the image's area, square
    color_jitter: Amount = 0.1  # largest relative change of brightness, contrast and saturation
    grayscale: Share = 0.1  # probability
    flip: Share = 0.0  # probability
    depth: Share = 0.5  # probability of the depth image; else it is black
    depth_shift: Share = 0.02  # of the size, largest shift of the depth image in x and in y
    # probability that a composed reference is the target frame around the mouth, as at inference: the network learns
    # to keep correct skin, from the other references to repair wrong skin
    same_frame: Share = 0.0


NO_AUGMENTATION = Augmentation((1.0, 1.0), color_jitter=0.0, grayscale=0.0, depth=1.0, depth_shift=0.0)


@dataclass(frozen=True)
class Placement:
    """Square crop of an image, possibly mirrored; left, top and side as shares of the image's side."""

    left: float
    top: float
    side: float
    mirrored: bool

    def apply(self, image: UInt8[np.ndarray, "h w *c"], size: int) -> UInt8[np.ndarray, "size size *c"]:
        """Crop a square image and resize it."""
        n = len(image)
        side = round(self.side * n)
        left, top = (min(round(share * n), n - side) for share in (self.left, self.top))
        part = image[top : top + side, left : left + side]
        method = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
        part = part if side == size else cv2.resize(part, (size, size), interpolation=method)
        return np.ascontiguousarray(part[:, ::-1] if self.mirrored else part)


@dataclass(frozen=True)
class ColorChange:
    """Factors of brightness, contrast and saturation; 1: unchanged, saturation 0: grey."""

    brightness: float
    contrast: float
    saturation: float

    def apply(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        if self == ColorChange(1.0, 1.0, 1.0):
            return image
        bright: Float[np.ndarray, "h w 3"] = np.clip(image.astype(np.float32) * (self.brightness / 255), 0, 1)
        gray = bright @ GRAY_WEIGHTS
        contrasted = np.clip(gray.mean() + (bright - gray.mean()) * self.contrast, 0, 1)
        gray = (contrasted @ GRAY_WEIGHTS)[..., None]
        return truncate_to_bytes(gray + (contrasted - gray) * self.saturation)


def sample_placement(augment: Augmentation, rng: np.random.Generator) -> Placement:
    side = float(np.sqrt(rng.uniform(*augment.crop_scale)))
    left, top = rng.uniform(0, 1 - side, 2)
    return Placement(float(left), float(top), side, mirrored=bool(rng.random() < augment.flip))


def sample_color(augment: Augmentation, rng: np.random.Generator) -> ColorChange:
    jitter = augment.color_jitter
    brightness, contrast, saturation = rng.uniform(1 - jitter, 1 + jitter, 3).tolist()
    return ColorChange(brightness, contrast, 0.0 if rng.random() < augment.grayscale else saturation)


def sample_shift(augment: Augmentation, size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Pixels in x and y."""
    right, down = rng.uniform(-augment.depth_shift, augment.depth_shift, 2) * size
    return round(right), round(down)


def shift_image(image: UInt8[np.ndarray, "h w"], right: int, down: int) -> UInt8[np.ndarray, "h w"]:
    """Shift an image; pixels from outside are 0."""
    matrix = np.array([[1, 0, right], [0, 1, down]], np.float32)
    return cv2.warpAffine(image, matrix, image.shape[::-1], flags=cv2.INTER_NEAREST)
