from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.imaging.blending import enlarge_box, mix_images, parsing_mask, parsing_to_mask, paste_face

FRAME_SIZE = (120, 160)  # height, width
BOXES = {
    "inside": (40, 30, 100, 90),
    "over the left": (-20, 30, 40, 90),
    "over the top": (40, -35, 100, 25),
    "over the right bottom corner": (130, 80, 190, 140),
    "larger than the frame": (-30, -30, 190, 150),
    "outside": (200, 30, 260, 90),
}


def random_image(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def frame() -> np.ndarray:
    return random_image(*FRAME_SIZE, seed=0)


def face_and_mask(box) -> tuple[np.ndarray, np.ndarray]:
    """A random face, and a mask that is 0 outside an ellipse."""
    width, height = box[2] - box[0], box[3] - box[1]
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (width // 2, height // 2), (width // 3, height // 3), 0, 0, 360, 1, -1)
    levels = np.random.default_rng(1).random((height, width))
    return random_image(height, width, seed=2), (mask * levels).astype(np.float32)


def shown_in_frame(mask: np.ndarray, box) -> np.ndarray:
    """The mask in frame coordinates, pixel by pixel."""
    shown = np.zeros(FRAME_SIZE, mask.dtype)
    for y in range(FRAME_SIZE[0]):
        for x in range(FRAME_SIZE[1]):
            if box[1] <= y < box[3] and box[0] <= x < box[2]:
                shown[y, x] = mask[y - box[1], x - box[0]]
    return shown


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_pixels_that_the_mask_leaves_out_are_identical(frame, box):
    face, mask = face_and_mask(box)
    untouched = frame.copy()
    result = paste_face(frame, face, box, mask)
    outside = shown_in_frame(mask, box) == 0
    assert np.array_equal(result[outside], untouched[outside])
    assert np.array_equal(frame, untouched), "the given frame must not change"


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_paste_equals_pillows(frame, box):
    face, mask = face_and_mask(box)
    levels = np.rint(mask * 255).astype(np.uint8)
    expected = Image.fromarray(frame)
    expected.paste(Image.fromarray(face), box[:2], Image.fromarray(levels))
    assert np.array_equal(paste_face(frame, face, box, levels), np.asarray(expected))
    assert np.array_equal(paste_face(frame, face, box, mask), np.asarray(expected))


def test_a_full_mask_shows_the_face_as_it_is(frame):
    box = BOXES["inside"]
    face, mask = face_and_mask(box)
    result = paste_face(frame, face, box, np.ones_like(mask))
    assert np.array_equal(result[30:90, 40:100], face)


@pytest.mark.parametrize("box", [(40, 30, 101, 90), (40, 30, 100, 89), (100, 30, 40, 90)])
def test_a_face_of_another_size_than_the_box_is_refused(frame, box):
    face, mask = face_and_mask(BOXES["inside"])
    with pytest.raises(ValueError, match="box's size"):
        paste_face(frame, face, box, mask)


@pytest.mark.parametrize("longer", range(1, 30))
def test_the_enlarged_box_holds_the_box(longer):
    box = (-3, 5, -3 + longer, 5 + longer // 2 + 1)
    left, top, right, bottom = enlarge_box(box)
    assert left <= box[0] and top <= box[1] and right >= box[2] and bottom >= box[3]


def test_parsing_mask_keeps_the_upper_half_and_fades_at_the_sides():
    box = (40, 30, 140, 130)
    mask = parsing_to_mask(np.full((512, 512), 255, np.uint8), box, enlarge_box(box))
    assert mask.shape == (100, 100)
    assert not mask[:44].any(), "the blur reaches six rows above the middle at most"
    assert mask[75, 50] == 255 and 0 < mask[75, 0] < 255 and 0 < mask[99, 50] < 255


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_blending_with_a_parser_changes_the_lower_half_only(frame, box):
    face, _ = face_and_mask(box)
    crops = []

    def parse(crop: np.ndarray) -> np.ndarray:
        crops.append(crop)
        return np.full((512, 512), 255, np.uint8)

    result = paste_face(frame, face, box, parsing_mask(frame, box, parse))
    left, top, right, bottom = enlarge_box(box)
    assert crops[0].shape == (bottom - top, right - left, 3)
    middle = (box[1] + box[3]) // 2
    first_changed = max(0, middle - (right - left) // 20 - 1)
    assert np.array_equal(result[:first_changed], frame[:first_changed])


def test_a_mixed_image_keeps_what_is_the_same(frame):
    above = frame.copy()
    above[20:40, 30:60] = random_image(20, 30, seed=3)
    mixed = mix_images(frame, above, 0.25)
    outside = np.ones(FRAME_SIZE, bool)
    outside[20:40, 30:60] = False
    np.testing.assert_array_equal(mixed[outside], frame[outside])
    expected = frame[20:40, 30:60] + 0.25 * (above[20:40, 30:60].astype(float) - frame[20:40, 30:60])
    assert np.abs(mixed[20:40, 30:60] - expected).max() <= 0.5
