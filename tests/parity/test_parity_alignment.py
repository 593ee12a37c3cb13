"""Five-point alignment, the aligned crop and the way back to the frame, against recorded numbers."""

from __future__ import annotations

import numpy as np
import pytest

from utils.imaging.geometry import Alignment, align_five_points, crop_box, fit_scaled_orthographic

CASES = ["c0", "c1", "c2"]


def synthetic_frame(width: int, height: int) -> np.ndarray:
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    blue = 128 + 100 * np.sin(x / 9) * np.cos(y / 13)
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), blue], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def recorded(parity):
    return dict(parity("align_mapping"))


@pytest.fixture(scope="module")
def model_points(parity):
    return parity("bfm")["f64_lm3d_5points"]


def alignment_of(recorded, model_points, case: str) -> Alignment:
    width, height = (int(n) for n in recorded[f"{case}_in_size_wh"])
    return align_five_points(recorded[f"{case}_in_points5"], model_points, width, height)


@pytest.mark.parametrize("case", CASES)
def test_scaled_orthographic_fit(recorded, model_points, case):
    height = int(recorded[f"{case}_in_size_wh"][1])
    upright = recorded[f"{case}_in_points5"].copy()
    upright[:, 1] = height - 1 - upright[:, 1]
    translation, scale = fit_scaled_orthographic(upright, model_points)
    np.testing.assert_allclose(translation, recorded[f"f64_{case}_pos_t"].ravel(), rtol=1e-6)
    np.testing.assert_allclose(scale, recorded[f"f64_{case}_pos_s"][0], rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_alignment_parameters(recorded, model_points, case):
    a = alignment_of(recorded, model_points, case)
    found = [a.width, a.height, a.scale, *a.translation]
    np.testing.assert_allclose(found, recorded[f"f64_{case}_trans_params"], rtol=1e-6)
    crop = [a.width, a.height, a.scale, a.left, a.up, a.left + a.crop_size, a.up + a.crop_size]
    np.testing.assert_allclose(crop, recorded[f"f64_{case}_crop_params"], rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_aligned_image_and_points(recorded, model_points, case):
    a = alignment_of(recorded, model_points, case)
    image = a.crop_image(synthetic_frame(a.width, a.height))
    np.testing.assert_allclose(image.astype(int), recorded[f"{case}_aligned"], atol=1)
    upright = recorded[f"{case}_in_points5"].astype(np.float64)
    upright[:, 1] = a.height - 1 - upright[:, 1]
    centred = upright - a.translation + (a.width / 2, a.height / 2)
    margin = (np.array(a.scaled_size) - a.crop_size) / 2  # with the fractions that the crop's whole-pixel corner drops
    np.testing.assert_allclose(centred * a.scale - margin, recorded[f"f64_{case}_aligned_points"], atol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_depth_back_in_the_frame(recorded, parity, model_points, case):
    a = alignment_of(recorded, model_points, case)
    depth = parity("depth")["depth_u8"][int(recorded[f"{case}_in_coeff_row"][0])]
    full = a.paste_to_box(depth, np.array([0, 0, a.width, a.height]))
    np.testing.assert_allclose(full.astype(int), recorded[f"{case}_depth_full"], atol=1)
    box = a.paste_to_box(depth, recorded[f"{case}_in_box"])
    np.testing.assert_allclose(box.astype(int), recorded[f"{case}_depth_crop"], atol=1)


@pytest.mark.parametrize("case", CASES)
def test_face_crop(recorded, case):
    width, height = (int(n) for n in recorded[f"{case}_in_size_wh"])
    crop = crop_box(synthetic_frame(width, height), recorded[f"{case}_in_box"])
    np.testing.assert_array_equal(crop[::3, ::3], recorded[f"{case}_face_crop"])


@pytest.mark.parametrize("case", CASES)
def test_landmarks_back_in_the_box(recorded, parity, model_points, case):
    a = alignment_of(recorded, model_points, case)
    landmarks = parity("depth")["lm468_crop224"][int(recorded[f"{case}_in_coeff_row"][0])].astype(np.float64)
    in_box = a.from_crop(landmarks) - recorded[f"{case}_in_box"][:2]
    np.testing.assert_allclose(in_box, recorded[f"f64_{case}_lm468_box"], atol=1e-3)
