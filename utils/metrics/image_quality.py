"""How alike two pictures are: PSNR, SSIM and mean absolute difference of uint8 RGB images (pure)."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Num, UInt8

from utils.imaging.geometry import crop_box, resize_image

PEAK = 255.0
PSNR_CAP = 60.0  # dB; a root mean square error of a quarter of a grey level. Equal images have no finite value
SSIM_SIGMA, SSIM_WINDOW = 1.5, 11  # pixels
SSIM_K1, SSIM_K2 = 0.01, 0.03
FACE_SIZE = 256  # pixels: the face box is resized to this square before its halves are compared


def face_square(frame: UInt8[np.ndarray, "h w 3"], box: Num[np.ndarray, " 4"]) -> UInt8[np.ndarray, "256 256 3"]:
    """The face box of a frame as a square; black outside of the frame. Raises ValueError for an empty box."""
    crop = crop_box(frame, box)
    interpolation = "area" if min(crop.shape[:2]) > FACE_SIZE else "bilinear"
    return resize_image(crop, FACE_SIZE, FACE_SIZE, interpolation)


def lower_face(frame: UInt8[np.ndarray, "h w 3"], box: Num[np.ndarray, " 4"]) -> UInt8[np.ndarray, "128 256 3"]:
    """The lower half of the face square: what the generator invents."""
    return face_square(frame, box)[FACE_SIZE // 2 :]


def upper_pixels(frame: UInt8[np.ndarray, "h w 3"], box: Num[np.ndarray, " 4"]) -> UInt8[np.ndarray, "p q 3"]:
    """The frame's own pixels in the face box above its middle, none where the box lies outside."""
    height, width = frame.shape[:2]
    x1, y1, x2, y2 = (int(edge) for edge in box)
    return frame[max(y1, 0) : min((y1 + y2) // 2, height), max(x1, 0) : min(x2, width)]


def psnr(first: UInt8[np.ndarray, "h w c"], second: UInt8[np.ndarray, "h w c"]) -> float:
    """Peak signal-to-noise ratio in dB, at most PSNR_CAP."""
    error = float(np.mean(np.square(first.astype(np.float32) - second)))
    return min(PSNR_CAP, 10 * float(np.log10(PEAK**2 / error))) if error > 0 else PSNR_CAP


def ssim(first: UInt8[np.ndarray, "h w c"], second: UInt8[np.ndarray, "h w c"]) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian window, mean over channels and over the inner positions.

    The same as scikit-image's with gaussian_weights, sigma 1.5 and use_sample_covariance=False.
    """
    a, b = first.astype(np.float64), second.astype(np.float64)
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a, variance_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = (SSIM_K1 * PEAK) ** 2, (SSIM_K2 * PEAK) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    edge = SSIM_WINDOW // 2
    return float((luminance * structure)[edge:-edge, edge:-edge].mean())


def _blur(image: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w c"]:
    return cv2.GaussianBlur(image, (SSIM_WINDOW, SSIM_WINDOW), SSIM_SIGMA)


def mean_difference(first: UInt8[np.ndarray, "h w c"], second: UInt8[np.ndarray, "h w c"]) -> float:
    """Mean absolute difference in grey levels; NaN of nothing."""
    return float(np.mean(cv2.absdiff(first, second))) if first.size else float("nan")
