"""Blending of a generated face into its frame; pixels where the mask is 0 stay unchanged, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

Box = Sequence[int] | np.ndarray  # x1, y1, x2, y2; may leave the frame on any side
Parser = Callable[[UInt8[np.ndarray, "h w 3"]], UInt8[np.ndarray, "p q"]]

BOX_EXPANSION = 1.2
UPPER_BOUNDARY = 0.5  # of the enlarged box; nothing above it is pasted
BLUR_FRACTION = 0.1  # of the enlarged box's width


def paste_face(
    frame: UInt8[np.ndarray, "H W 3"],
    face: UInt8[np.ndarray, "h w 3"],
    box: Box,
    mask: UInt8[np.ndarray, "h w"] | Float[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "H W 3"]:
    """A new frame with the face in its box, blended by the mask.

    face and mask have the box's size; the mask is uint8 (255 shows the face) or float in [0, 1]. Pixels where
    the mask is 0 keep the frame's value exactly. Rounds to nearest, as Pillow's paste does. Raises ValueError
    for other sizes.
    """
    x1, y1, x2, y2 = (int(edge) for edge in box)
    if face.shape[:2] != (y2 - y1, x2 - x1) or mask.shape != face.shape[:2]:
        found = f"face {face.shape[:2]} and mask {mask.shape}"
        raise ValueError(f"expected face and mask of the box's size {(y2 - y1, x2 - x1)}, found {found}")
    result = frame.copy()
    height, width = frame.shape[:2]
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    if left >= right or top >= bottom:
        return result
    inside = np.s_[top - y1 : bottom - y1, left - x1 : right - x1]
    target = result[top:bottom, left:right]
    target[:] = _mix(target, face[inside], as_levels(mask[inside]))
    return result


def as_levels(mask: UInt8[np.ndarray, "h w"] | Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """A mask as the uint8 levels that paste_face applies."""
    return mask if mask.dtype == np.uint8 else np.rint(mask * 255).astype(np.uint8)


def _mix(below: np.ndarray, above: np.ndarray, level: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    weight = level[..., None].astype(np.uint16)
    summed = above * weight + below * (255 - weight) + np.uint16(127)  # at most 255 * 255 + 127
    return ((summed + np.uint16(1) + (summed >> 8)) >> 8).astype(np.uint8)  # divided by 255, rounded down


def mix_images(
    below: UInt8[np.ndarray, "H W 3"], above: UInt8[np.ndarray, "H W 3"], strength: float
) -> UInt8[np.ndarray, "H W 3"]:
    """``above`` over ``below`` with one opacity (0 to 1); pixels that are equal in both stay unchanged."""
    return cv2.addWeighted(below, 1 - strength, above, strength, 0).astype(np.uint8, copy=False)


def parsing_mask(
    frame: UInt8[np.ndarray, "H W 3"],
    box: Box,
    parse: Parser,
    expansion: float = BOX_EXPANSION,
    upper_boundary: float = UPPER_BOUNDARY,
) -> UInt8[np.ndarray, "h w"]:
    """The reference's blending mask, of the box's size: the skin around the box, lower half, blurred edge.

    parse maps an RGB crop (black outside the frame) to a mask of any size, 255 on the face.
    upstream: MuseTalk musetalk/utils/blending.py, get_image
    """
    crop_box = enlarge_box(box, expansion)
    return parsing_to_mask(parse(_crop(frame, crop_box)), box, crop_box, upper_boundary)


def enlarge_box(box: Box, expansion: float = BOX_EXPANSION) -> tuple[int, int, int, int]:
    """The square around a box's centre whose side is about ``expansion`` times the box's longer side."""
    x1, y1, x2, y2 = (int(edge) for edge in box)
    center_x, center_y = (x1 + x2) // 2, (y1 + y2) // 2
    longer = max(x2 - x1, y2 - y1)
    half = max(int(longer // 2 * expansion), (longer + 1) // 2)  # never smaller than the box, however tiny
    return center_x - half, center_y - half, center_x + half, center_y + half


def parsing_to_mask(
    parsing: UInt8[np.ndarray, "p q"], box: Box, crop_box: Box, upper_boundary: float = UPPER_BOUNDARY
) -> UInt8[np.ndarray, "h w"]:
    """Blending mask of the box's size from the parsing of the enlarged box.

    upper_boundary counts from the top of the ENLARGED box (the same line as the box's middle at 0.5).
    The blur mixes in the zeros outside the box, so that the face fades out towards the box's sides too.
    """
    left, top, right, bottom = (int(edge) for edge in crop_box)
    width, height = right - left, bottom - top
    x1, y1, x2, y2 = (int(edge) for edge in box)
    first_row = max(y1 - top, int(height * upper_boundary))
    kept = np.s_[first_row : y2 - top, x1 - left : x2 - left]
    mask = np.zeros((height, width), np.uint8)
    mask[kept] = _resize_bicubic(parsing, (width, height))[kept]
    kernel = int(BLUR_FRACTION * width // 2 * 2) + 1
    blurred = cv2.GaussianBlur(mask, (kernel, kernel), 0)
    return blurred[y1 - top : y2 - top, x1 - left : x2 - left]


def _crop(frame: UInt8[np.ndarray, "H W 3"], box: Box) -> UInt8[np.ndarray, "h w 3"]:
    from PIL import Image

    return np.asarray(Image.fromarray(frame).crop(tuple(box)))


def _resize_bicubic(mask: UInt8[np.ndarray, "p q"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """Pillow's bicubic, which unlike OpenCV's averages when it shrinks; size = (width, height)."""
    from PIL import Image

    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.BICUBIC))
