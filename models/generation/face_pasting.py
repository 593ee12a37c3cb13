"""Blending of a generated face into its frame, at the frame's own resolution.

    refined face  =  composed reference  +  correction
    at 256 px, or    at the frame's own     enlarged from 256 px
    at any size:     resolution             (smooth but between the lips)

So skin, beard and lips keep the detail of the clip, however large the face is.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from models.generation.face_crops import FaceEdit, PreparedFace, SourceFrame
from utils.imaging.blending import Box, Parser, as_levels, mix_images, parsing_mask, paste_face
from utils.imaging.colour import match_colours
from utils.imaging.face_warp import compose_reference
from utils.imaging.geometry import crop_box, resize_image
from utils.imaging.images import jpeg_round_trip
from utils.imaging.masks import face_mask, lower_face_mask

SHARPENING = 0.35  # makes up for the detail that interpolation between pixels loses


@dataclass(frozen=True)
class GeneratedFace:
    """image: uint8 RGB [q, q, 3]; correction: float32 [q, q, 3], image - composed reference, with a refiner."""

    image: np.ndarray
    correction: np.ndarray | None = None


def paste(
    source: SourceFrame,
    prepared: PreparedFace,
    generated: GeneratedFace,
    parse: Parser | None = None,
    faithful: bool = False,
) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "h w"]]:
    """The frame with the generated face blended in, and the blending mask, of the box's size.

    Pixels where the mask is 0 stay unchanged, bit for bit. With a mask from the landmarks the face's colours are first
    matched to the skin around it. faithful: they are not, and the frame passes through JPEG. upstream:
    inference_edit_expression.py:285
    """
    edit, image = source.face, source.image
    if edit is None:
        raise ValueError("the frame has no face")
    if faithful:
        image = jpeg_round_trip(image)
    x1, y1, x2, y2 = (int(edge) for edge in edit.box)
    size = (y2 - y1, x2 - x1)
    if parse is not None:
        mask = parsing_mask(image, edit.box, parse)
    else:
        mask = as_levels(lower_face_mask(edit.source_landmarks, size, edit.landmarks))
    matches = parse is None and not faithful
    if generated.correction is None:
        face = resize_image(generated.image, size[1], size[0], "bilinear")
        if matches:
            face = match_colours(face, crop_box(image, edit.box), surrounding_skin(edit, size))
        pasted = paste_face(image, face, edit.box, mask)
    else:
        correction = generated.correction
        if matches:
            correction = matched_correction(correction, generated.image, prepared.crop, edit)
        window, part = covered_window(edit.box, mask, (image.shape[0], image.shape[1]))
        pasted = paste_face(image, face_at_own_size(source, edit, correction, window), window, mask[part])
    return (pasted if edit.strength >= 1 else mix_images(image, pasted, edit.strength)), mask


def surrounding_skin(edit: FaceEdit, size: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    """1 on the face around the new mouth, 0 elsewhere, at any size (height, width) of the face box."""
    scale = np.array([size[1] / (edit.box[2] - edit.box[0]), size[0] / (edit.box[3] - edit.box[1])], np.float32)
    tracked, new = edit.source_landmarks * scale, edit.landmarks * scale
    return (1 - lower_face_mask(tracked, size, new)) * face_mask(tracked, size)


def matched_correction(
    correction: Float[np.ndarray, "q q 3"],
    image: UInt8[np.ndarray, "q q 3"],
    crop: UInt8[np.ndarray, "q q 3"],
    edit: FaceEdit,
) -> Float[np.ndarray, "q q 3"]:
    """The correction with the colours of the generated face matched to the skin around it in the frame's crop."""
    matched = match_colours(image, crop, surrounding_skin(edit, (image.shape[0], image.shape[1])))
    return np.asarray(correction + cv2.subtract(matched, image, dtype=cv2.CV_32F))


def covered_window(
    box: Box, mask: UInt8[np.ndarray, "h w"], size: tuple[int, int]
) -> tuple[tuple[int, int, int, int], tuple[slice, slice]]:
    """The box, perhaps empty, of the frame (height, width) that the mask changes, and its slice of the mask."""
    x1, y1 = int(box[0]), int(box[1])
    left, top, width, height = cv2.boundingRect(mask)
    first_x, first_y = max(0, x1 + left), max(0, y1 + top)
    last_x, last_y = min(size[1], x1 + left + width), min(size[0], y1 + top + height)
    window = (first_x, first_y, max(first_x, last_x), max(first_y, last_y))
    return window, np.s_[window[1] - y1 : window[3] - y1, window[0] - x1 : window[2] - x1]


def face_at_own_size(
    source: SourceFrame, edit: FaceEdit, correction: Float[np.ndarray, "q q 3"], window: tuple[int, int, int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """The refined face inside a window of the frame, which may be empty."""
    size = (window[3] - window[1], window[2] - window[0])
    if 0 in size:
        return np.zeros((*size, 3), np.uint8)
    x1, y1, x2, y2 = (int(edge) for edge in edit.box)
    tracked, new = edit.source_landmarks + (x1, y1), edit.landmarks + (x1, y1)
    composed = compose_reference(source.image, tracked, source.mouths, new, x2 - x1, window, keeps_detail=True)
    composed = cv2.addWeighted(composed, 1 + SHARPENING, cv2.GaussianBlur(composed, (0, 0), 0.8), -SHARPENING, 0)
    part = np.s_[window[1] - y1 : window[3] - y1, window[0] - x1 : window[2] - x1]
    method = cv2.INTER_AREA if min(x2 - x1, y2 - y1) < len(correction) else cv2.INTER_LINEAR
    own_correction = cv2.resize(correction, (x2 - x1, y2 - y1), interpolation=method)[part]
    return np.asarray(cv2.add(composed, own_correction, dtype=cv2.CV_8U))
