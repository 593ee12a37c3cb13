"""The mouth polygon against the reference (stage3_inputs.npz)."""

from __future__ import annotations

import numpy as np
import pytest

from utils.imaging.landmarks import OUTER_LIPS
from utils.imaging.masks import mouth_mask

N_FRAMES = 6


@pytest.fixture(scope="module")
def recording(parity):
    return parity("stage3_inputs")


def test_outer_lip_landmarks(recording):
    assert list(OUTER_LIPS) == recording["mouth_region_indices"].tolist()


@pytest.mark.parametrize("frame", range(N_FRAMES))
def test_mouth_mask(recording, frame):
    expected = recording[f"f{frame}_mouth_mask"]
    mask = mouth_mask(recording[f"in_f{frame}_lm468"], expected.shape)
    np.testing.assert_array_equal(mask, expected)
