"""Pasting at the frame's own resolution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.generation.face_crops import FaceEdit, PreparedFace, SourceFrame, cut_mouth, prepare_composed
from models.generation.face_pasting import GeneratedFace, paste
from utils.imaging.masks import lower_face_mask
from utils.weights import packs
from utils.weights.checkpoints import read_weights

FINE = 64  # pixels, side of the refiner's images


def a_frame(side: int) -> tuple[SourceFrame, PreparedFace, GeneratedFace]:
    """Noise with a face in it whose lips do not move; the refiner changes nothing."""
    mean = read_weights(packs.face_mesh())["meanshape"].numpy().reshape(-1, 3)[:468]
    points = mean[:, :2] * (1, -1)
    points = (points - points.min(axis=0)) / np.ptp(points, axis=0) * (side - 1)
    landmarks = points.astype(np.float32)
    image = np.random.default_rng(0).integers(100, 156, (side + 40, side + 40, 3), np.uint8)
    edit = FaceEdit(np.array([20, 20, 20 + side, 20 + side], np.int32), landmarks, landmarks, None)
    source = SourceFrame(image, edit, mouths=(cut_mouth(image, edit.box, landmarks),))
    prepared = prepare_composed(image, edit, source.mouths, (FINE, FINE))
    return source, prepared, GeneratedFace(prepared.composed, np.zeros((FINE, FINE, 3), np.float32))


@pytest.mark.parametrize("side", [40, 64, 300])
def test_a_face_that_does_not_move_keeps_its_detail_at_any_size(side):
    source, prepared, generated = a_frame(side)
    image, mask = paste(source, prepared, generated)
    x1, y1, x2, y2 = source.face.box
    inside = mask == 255
    assert inside.any()
    before, after = (frame[y1:y2, x1:x2][inside].astype(float) for frame in (source.image, image))
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.97
    assert 0.95 < after.std() / before.std() < 1.3


def test_the_correction_is_enlarged_and_the_rest_of_the_frame_stays(monkeypatch):
    monkeypatch.setattr("models.generation.face_pasting.match_colours", lambda face, *_: face)
    source, prepared, plain = a_frame(300)
    correction = np.zeros((FINE, FINE, 3), np.float32)
    correction[..., 0] = 40
    image, mask = paste(source, prepared, GeneratedFace(prepared.composed, correction))
    unchanged = paste(source, prepared, plain)[0]
    x1, y1, x2, y2 = source.face.box
    change = image[y1:y2, x1:x2].astype(int) - unchanged[y1:y2, x1:x2]
    assert (change[mask == 255] == (40, 0, 0)).all()
    outside = np.ones(image.shape[:2], bool)
    outside[y1:y2, x1:x2] = mask == 0
    assert np.array_equal(image[outside], source.image[outside])
    expected = lower_face_mask(source.face.source_landmarks, (300, 300), source.face.landmarks)
    np.testing.assert_allclose(mask / 255, expected, atol=1 / 255)


@pytest.mark.parametrize("shift", [(-100, 0), (-1000, 0), (0, 1000)])
def test_a_face_that_leaves_the_frame_is_pasted_as_far_as_it_shows(shift):
    source, prepared, generated = a_frame(300)
    edit = replace(source.face, box=source.face.box + np.tile(shift, 2).astype(np.int32))
    image, mask = paste(replace(source, face=edit), prepared, generated)
    assert image.shape == source.image.shape and mask.shape == (300, 300)
    if max(map(abs, shift)) > 500:
        assert np.array_equal(image, source.image)


def test_a_mask_without_a_face_changes_nothing():
    source, prepared, generated = a_frame(64)
    image, _ = paste(source, prepared, generated, lambda _: np.zeros((512, 512), np.uint8))
    assert np.array_equal(image, source.image)
