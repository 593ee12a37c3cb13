"""The reference's paste with a given parsing mask (blending.npz)."""

from __future__ import annotations

import numpy as np
import pytest

from models.generation.face_parsing import FACE_CLASSES, N_CLASSES
from utils.imaging.blending import enlarge_box, parsing_mask, paste_face

CASES = ("c0", "c1", "c2")


@pytest.fixture(scope="module")
def recording(parity):
    return parity("blending")


@pytest.mark.parametrize("case", CASES)
def test_enlarged_box(recording, case):
    assert enlarge_box(recording[f"{case}_in_box"]) == tuple(recording[f"{case}_crop_box"])


@pytest.mark.parametrize("case", CASES)
def test_blended_frame(recording, case):
    frame, face = (recording[f"{case}_in_{name}_bgr"][..., ::-1] for name in ("frame", "face"))
    box = recording[f"{case}_in_box"]
    blended = paste_face(frame, face, box, parsing_mask(frame, box, lambda _: recording[f"{case}_in_parsing512"]))
    expected = recording[f"{case}_result_bgr"][..., ::-1]
    np.testing.assert_allclose(blended.astype(int), expected.astype(int), rtol=0, atol=1)


def test_classes_that_belong_to_the_face(recording):
    expected = [255 if label in FACE_CLASSES else 0 for label in range(N_CLASSES)]
    assert recording["class_to_mask"].tolist() == expected
