"""Similarity of two images, PSNR, SSIM and mean absolute difference, and fine detail, of uint8 RGB images (pure)."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int32, Num, UInt8
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from utils.imaging.geometry import crop_box, resize_image
from utils.imaging.masks import lower_face_mask

PSNR_CAP = 60.0  # dB; a root mean square error of a quarter of a grey level. Equal images have no finite value
SSIM_SIGMA = 1.5  # pixels; the window is 11 pixels wide
FACE_SIZE = 256  # pixels: the face box is resized to this square before its halves are compared


def face_square(frame: UInt8[np.ndarray, "h w 3"], box: Num[np.ndarray, " 4"]) -> UInt8[np.ndarray, "256 256 3"]:
    """The face box of a frame as a square; black outside of the frame. Raises ValueError for an empty box."""
    crop = crop_box(frame, box)
    interpolation = "area" if min(crop.shape[:2]) > FACE_SIZE else "bilinear"
    return resize_image(crop, FACE_SIZE, FACE_SIZE, interpolation)


def lower_face(frame: UInt8[np.ndarray, "h w 3"], box: Num[np.ndarray, " 4"]) -> UInt8[np.ndarray, "128 256 3"]:
    """The lower half of the face square, the generated part."""
    return face_square(frame, box)[FACE_SIZE // 2 :]


def upper_pixels(frame: UInt8[np.ndarray, "h w 3"], box: Num[np.ndarray, " 4"]) -> UInt8[np.ndarray, "p q 3"]:
    """The frame's own pixels in the face box above its middle, none where the box lies outside."""
    height, width = frame.shape[:2]
    x1, y1, x2, y2 = (int(edge) for edge in box)
    return frame[max(y1, 0) : min((y1 + y2) // 2, height), max(x1, 0) : min(x2, width)]


def psnr(first: UInt8[np.ndarray, "h w c"], second: UInt8[np.ndarray, "h w c"]) -> float:
    """Peak signal-to-noise ratio in dB, at most PSNR_CAP."""
    if np.array_equal(first, second):
        return PSNR_CAP
    return min(PSNR_CAP, float(peak_signal_noise_ratio(first, second)))


def ssim(first: UInt8[np.ndarray, "h w c"], second: UInt8[np.ndarray, "h w c"]) -> float:
    """Structural similarity as Wang et al. (2004) set it: Gaussian window, mean over channels and inner positions."""
    settings = {"gaussian_weights": True, "sigma": SSIM_SIGMA, "use_sample_covariance": False}
    return float(structural_similarity(first, second, channel_axis=2, **settings))


def mean_difference(first: UInt8[np.ndarray, "h w c"], second: UInt8[np.ndarray, "h w c"]) -> float:
    """Mean absolute difference in grey levels; NaN of nothing."""
    return float(np.mean(cv2.absdiff(first, second))) if first.size else float("nan")


def redrawn_region(
    landmarks: Float[np.ndarray, "468 2"], size: tuple[int, int]
) -> tuple[Int32[np.ndarray, " 4"], Bool[np.ndarray, "h w"]]:
    """The lower face that stage 3 replaces entirely (opacity 1), in a frame of ``size`` (height, width).

    Returns a box inside the frame, possibly empty, and the region in it.
    """
    corners = np.concatenate([np.floor(landmarks.min(axis=0)) - 1, np.ceil(landmarks.max(axis=0)) + 2])
    box = corners.clip(0, np.tile(size[::-1], 2)).astype(np.int32)
    height, width = int(box[3] - box[1]), int(box[2] - box[0])
    if height == 0 or width == 0:
        return box, np.zeros((height, width), bool)
    return box, lower_face_mask(landmarks - box[:2], (height, width)) == 1


def laplacian_deviation(
    frame: UInt8[np.ndarray, "h w 3"], box: Int32[np.ndarray, " 4"], region: Bool[np.ndarray, "p q"]
) -> float:
    """Standard deviation of the Laplacian (3 x 3, of the luma) in a region of a box; NaN of no pixels. Grey levels."""
    if not region.any():
        return float("nan")
    luma = cv2.cvtColor(frame[box[1] : box[3], box[0] : box[2]], cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(luma, cv2.CV_32F)[region].std())
