"""Contact sheet: one column of tiles per frame with a label on top."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from utils.imaging.blending import enlarge_box
from utils.imaging.geometry import crop_box, resize_image

TILE_SIZE = 192  # pixels
N_COLUMNS = 8
VIEW_EXPANSION = 1.3  # of the face box's longer side
GAP = 2  # pixels between tiles
LABEL_HEIGHT = 18
BACKGROUND, INK = 32, 224  # grey levels
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.42


def spread_frames(n_frames: int, n_columns: int = N_COLUMNS) -> list[int]:
    """At most ``n_columns`` frame numbers, evenly spaced from the first to the last."""
    return np.unique(np.linspace(0, n_frames - 1, n_columns).round().astype(int)).tolist() if n_frames else []


def view_around(image_size: tuple[int, int], box: np.ndarray | None) -> tuple[int, int, int, int]:
    """A square around the face box, or in the middle of the image (height, width) without a box."""
    if box is not None:
        return enlarge_box(box, VIEW_EXPANSION)
    height, width = image_size
    half = max(1, min(height, width) // 2)
    return width // 2 - half, height // 2 - half, width // 2 + half, height // 2 + half


def cut_tile(
    image: UInt8[np.ndarray, "h w *c"], view: tuple[int, int, int, int], size: int = TILE_SIZE
) -> UInt8[np.ndarray, "size size 3"]:
    """A view of an RGB or grey image, black outside the image."""
    crop = crop_box(image, np.array(view))
    tile = resize_image(crop, size, size, "area" if min(crop.shape[:2]) > size else "bilinear")
    return tile if tile.ndim == 3 else np.repeat(tile[..., None], 3, axis=2)


def draw_sheet(
    columns: Sequence[Sequence[UInt8[np.ndarray, "size size 3"]]], labels: Sequence[str]
) -> UInt8[np.ndarray, "h w 3"]:
    """Arrange tiles of one size, columns[i][row], with a label above each column. Raises ValueError without any."""
    if not columns or len(labels) != len(columns):
        raise ValueError(f"expected a label for each of at least one column, found {len(labels)} for {len(columns)}")
    size, n_rows = columns[0][0].shape[0], len(columns[0])
    step = size + GAP
    sheet = np.full((LABEL_HEIGHT + n_rows * step + GAP, len(columns) * step + GAP, 3), BACKGROUND, np.uint8)
    for column, (tiles, label) in enumerate(zip(columns, labels, strict=True)):
        left = GAP + column * step
        cv2.putText(sheet, label, (left + 2, LABEL_HEIGHT - 5), _FONT, _FONT_SCALE, (INK,) * 3, 1, cv2.LINE_AA)
        for row, tile in enumerate(tiles):
            top = LABEL_HEIGHT + GAP + row * step
            sheet[top : top + size, left : left + size] = tile
    return sheet
