"""The conversion of the raw Basel Face Model files against the reference (transfer_bfm09.npz)."""

from __future__ import annotations

import numpy as np
import pytest

from models.face3d.bfm_folder import convert_bfm

FLOATS = ("meanshape", "meantex", "idBase", "exBase", "texBase")
INTEGERS = ("tri", "point_buf", "tri_mask2", "keypoints", "frontmask2_idx")


@pytest.fixture(scope="module")
def recorded(parity):
    return parity("transfer_bfm09")


@pytest.fixture(scope="module")
def converted(parity_dir):
    return convert_bfm(parity_dir / "synthetic_bfm_raw")


def test_names(converted):
    assert sorted(converted) == sorted((*FLOATS, *INTEGERS, "skinmask"))


@pytest.mark.parametrize("name", FLOATS)
def test_means_and_bases(recorded, converted, name):
    assert converted[name].dtype == recorded[name].dtype
    assert converted[name].shape == recorded[name].shape
    np.testing.assert_allclose(converted[name], recorded[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", INTEGERS)
def test_mesh(recorded, converted, name):
    np.testing.assert_array_equal(converted[name], recorded[name], strict=True)


def test_skin_mask(recorded, converted):
    np.testing.assert_array_equal(converted["skinmask"], recorded["f64_skinmask"], strict=True)
