"""utils/metrics/image_quality.py: small cases by hand, SSIM by its formula."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.helpers.media import portrait, smooth_picture
from utils.metrics.image_quality import PSNR_CAP, face_square, lower_face, mean_difference, psnr, ssim, upper_pixels

GREY = np.full((20, 30, 3), 100, np.uint8)


def test_psnr_of_a_known_error():
    """An error of 5 everywhere: 20 log10(255 / 5)."""
    assert psnr(GREY + 5, GREY) == pytest.approx(34.151, abs=1e-3)
    assert psnr(GREY - 5, GREY) == pytest.approx(34.151, abs=1e-3)  # no wrap-around
    one_pixel = GREY.copy()
    one_pixel[0, 0, 0] += 255 - 100
    assert psnr(one_pixel, GREY) == pytest.approx(10 * np.log10(255**2 / (155**2 / GREY.size)), abs=1e-3)


def test_equal_images_reach_the_cap():
    assert psnr(GREY, GREY) == PSNR_CAP
    assert ssim(GREY, GREY) == pytest.approx(1)
    assert mean_difference(GREY, GREY) == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_ssim_is_that_of_its_paper(seed):
    """Wang et al. (2004), equation 13, with an 11x11 Gaussian window, K1 = 0.01 and K2 = 0.03."""
    first, second = smooth_picture(64, 48), smooth_picture(64, 48, seed)
    mixed = (first * 0.7 + second * 0.3).astype(np.uint8)

    def blur(image):
        return cv2.GaussianBlur(image, (11, 11), 1.5)

    a, b = first.astype(np.float64), mixed.astype(np.float64)
    mean_a, mean_b, c1, c2 = blur(a), blur(b), 2.55**2, 7.65**2
    variance_a, variance_b, covariance = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    wanted = (luminance * (2 * covariance + c2) / (variance_a + variance_b + c2))[5:-5, 5:-5].mean()
    assert ssim(first, mixed) == pytest.approx(wanted, abs=1e-12)
    assert 0.1 < wanted < 0.99


def test_difference_counts_both_directions():
    second = GREY.copy()
    second[:, :15], second[:, 15:] = 90, 120
    assert mean_difference(second, GREY) == pytest.approx(15)
    assert np.isnan(mean_difference(GREY[:0], GREY[:0]))


def test_the_box_is_halved_at_its_middle():
    frame = np.zeros((100, 100, 3), np.uint8)
    frame[50:80] = 200  # the lower half of a box from 20 to 80
    box = np.array([10, 20, 70, 80])
    assert (lower_face(frame, box)[4:] == 200).all()  # the first rows blend over the edge
    assert (upper_pixels(frame, box) == 0).all()
    assert upper_pixels(frame, box).shape == (30, 60, 3)
    assert face_square(frame, box).shape == (256, 256, 3)


def test_a_box_that_leaves_the_frame():
    frame = np.full((50, 50, 3), 9, np.uint8)
    assert upper_pixels(frame, np.array([-20, -30, 20, 30])).size == 0  # all of its upper half is outside
    assert upper_pixels(frame, np.array([-20, -10, 20, 30])).shape == (10, 20, 3)
    assert lower_face(frame, np.array([-20, -10, 20, 30]))[:, :120].max() == 0  # black outside


def test_large_boxes_are_averaged_down():
    face = portrait(192)
    large = np.kron(face, np.ones((4, 4, 1), np.uint8))
    assert np.abs(face_square(large, np.array([0, 0, 768, 768])).astype(int)).mean() == pytest.approx(
        face.mean(), abs=0.5
    )
