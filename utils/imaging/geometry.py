"""Boxes, the five-point alignment, and crops with their inverses.

Three spaces, all with y down:

    source frame  --Alignment.to_crop-->  224 px crop (where the face model lives)
         |        <-Alignment.from_crop-
         +---- box ---->  face crop (what the generator makes)
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Int, Num, UInt8
from PIL import Image

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels

CROP_SIZE = 224  # px, side of the aligned crop
RESCALE_FACTOR = 102.0  # px per unit of the five-point model (upstream: util/preprocess.py, align_img)
SMALLEST_SCALE = 1e-3  # px per unit; below it the five points have no extent

# MediaPipe's points nearest to the 68 iBUG points, written from the outline of each feature. The jaw line
# takes points at equal arc lengths of the face oval, the nose bridge at equal heights from root to tip.
LANDMARKS_68 = np.array(
    [127, 234, 132, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 361, 454, 356]  # 0-16 jaw
    + [70, 63, 105, 66, 107]  # 17-21 brow at the image's left
    + [336, 296, 334, 293, 300]  # 22-26 brow at the image's right
    + [168, 197, 195, 4]  # 27-30 bridge of the nose, root to tip
    + [98, 97, 2, 326, 327]  # 31-35 underside of the nose
    + [33, 160, 158, 133, 153, 144]  # 36-41 eye at the image's left
    + [362, 385, 387, 263, 373, 380]  # 42-47 eye at the image's right
    + [61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91]  # 48-59 outer lips
    + [78, 81, 13, 311, 308, 402, 14, 178]  # 60-67 inner lips
)
BRIDGE_MIDDLE = 29  # of the 68: the height at which the face box is halved

# Indices into the 68; left and right as the image shows them.
_EYE_LEFT, _EYE_RIGHT, _NOSE_TIP, _MOUTH_LEFT, _MOUTH_RIGHT = (36, 39), (42, 45), 30, 48, 54

INTERPOLATIONS = {
    "bilinear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}


def box_of(landmarks: Float[np.ndarray, "468 3"]) -> Box:
    """x1, y1, x2, y2 around all landmarks."""
    (x1, y1), (x2, y2) = landmarks[:, :2].min(axis=0).tolist(), landmarks[:, :2].max(axis=0).tolist()
    return x1, y1, x2, y2


def side_of(box: Box) -> float:
    """The shorter side."""
    return min(box[2] - box[0], box[3] - box[1])


def overlap(one: Box, other: Box) -> float:
    """Shared area over that of the smaller box."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / max(smaller, 1e-6) if width > 0 and height > 0 else 0.0


def landmarks_68(landmarks: Float[np.ndarray, "*n 468 d"]) -> Float[np.ndarray, "*n 68 d"]:
    """The 68 iBUG points out of MediaPipe's 468."""
    return landmarks[..., LANDMARKS_68, :]


def five_points(points: Float[np.ndarray, "*n 68 d"]) -> Float[np.ndarray, "*n 5 d"]:
    """Eye centres, nose tip and mouth corners of the 68 points, the image's left before its right.

    Each eye centre is the middle of the eye's two corners, as in ``similarity_Lm3D_all.mat``.
    """
    eyes = [points[..., list(corners), :].mean(axis=-2) for corners in (_EYE_LEFT, _EYE_RIGHT)]
    rest = [points[..., index, :] for index in (_NOSE_TIP, _MOUTH_LEFT, _MOUTH_RIGHT)]
    return np.stack(eyes + rest, axis=-2)


def face_box_from_68(points: Float[np.ndarray, "*n 68 d"]) -> Int[np.ndarray, "*n 4"]:
    """The face box of 68 points: the width of the face, the chin at the bottom, the nose bridge half way up.

    ``[min x, 2 y(29) - max y, max x, max y]`` truncated to int32; it may leave the frame.
    """
    x, y = points[..., 0], points[..., 1]
    bottom = y.max(axis=-1)
    top = 2 * y[..., BRIDGE_MIDDLE] - bottom
    return np.stack([x.min(axis=-1), top, x.max(axis=-1), bottom], axis=-1).astype(np.int32)


def crop_box(image: UInt8[np.ndarray, "h w *c"], box: Num[np.ndarray, " 4"]) -> UInt8[np.ndarray, "bh bw *c"]:
    """Cut a box (x1, y1, x2, y2; ends excluded, floats truncated) out of an image; outside it is black.

    Raises ValueError for an empty box.
    """
    x1, y1, x2, y2 = (int(edge) for edge in box)
    if x2 <= x1 or y2 <= y1:
        raise ValueError(f"box ({x1}, {y1}, {x2}, {y2}) is empty")
    height, width = image.shape[:2]
    crop = np.zeros((y2 - y1, x2 - x1, *image.shape[2:]), image.dtype)
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    if left < right and top < bottom:
        crop[top - y1 : bottom - y1, left - x1 : right - x1] = image[top:bottom, left:right]
    return crop


def resize_image(
    image: UInt8[np.ndarray, "h w *c"], width: int, height: int, interpolation: str = "lanczos"
) -> UInt8[np.ndarray, "height width *c"]:
    """Resize with OpenCV; ``interpolation`` is a key of INTERPOLATIONS."""
    return cv2.resize(image, (width, height), interpolation=INTERPOLATIONS[interpolation])


@dataclass(frozen=True)
class Alignment:
    """Scale the frame by ``scale``, then cut ``crop_size`` square at (``left``, ``up``): the aligned crop.

    width, height: the source frame in px. translation: where the model's origin falls, source px, y up.
    Sizes and offsets are truncated towards zero (upstream: util/preprocess.py, resize_n_crop_img).
    """

    width: int
    height: int
    scale: float
    translation: tuple[float, float]
    crop_size: int = CROP_SIZE

    @property
    def scaled_size(self) -> tuple[int, int]:
        """Width and height of the whole frame at the crop's scale."""
        return int(self.width * self.scale), int(self.height * self.scale)

    @property
    def left(self) -> int:
        offset = (self.translation[0] - self.width / 2) * self.scale
        return int(self.scaled_size[0] / 2 - self.crop_size / 2 + offset)

    @property
    def up(self) -> int:
        offset = (self.height / 2 - self.translation[1]) * self.scale
        return int(self.scaled_size[1] / 2 - self.crop_size / 2 + offset)

    def to_crop(self, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Source-frame points to crop points, y down; the inverse of from_crop."""
        return points * self.scale - np.array([self.left, self.up], points.dtype)

    def from_crop(self, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Crop points to source-frame points, y down."""
        return (points + np.array([self.left, self.up], points.dtype)) / self.scale

    def crop_image(self, image: UInt8[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "s s *c"]:
        """The aligned crop (bicubic); outside of the frame it is black."""
        window = (self.left, self.up, self.left + self.crop_size, self.up + self.crop_size)
        return _scaled_window(image, self.scaled_size, window)

    def paste_to_box(
        self, image: UInt8[np.ndarray, "s s *c"], box: Num[np.ndarray, " 4"]
    ) -> UInt8[np.ndarray, "bh bw *c"]:
        """Map an aligned crop (the depth image) back to the frame and cut a source box out of it.

        Equal to pasting it into the whole scaled frame, resizing that to the source size (bicubic) and
        cutting the box, but only the box is computed. Outside of the crop or of the frame it is black.
        """
        scaled_width, scaled_height = self.scaled_size
        frame_box = np.array([-self.left, -self.up, scaled_width - self.left, scaled_height - self.up])
        x1, y1, x2, y2 = (int(edge) for edge in box)
        return _scaled_window(image, (self.width, self.height), (x1, y1, x2, y2), frame_box)


def align_five_points(
    points: Float[np.ndarray, "5 2"], model_points: Float[np.ndarray, "5 3"], width: int, height: int
) -> Alignment:
    """Fit the five-point model to five image points and derive the aligned crop.

    points: source px, y down, in the order of five_points. model_points: face-model units, y up.
    Raises ValueError when the points are degenerate (all in one place).
    """
    upright = points.astype(np.float32).copy()
    upright[:, 1] = height - 1 - upright[:, 1]
    translation, pixels_per_unit = fit_scaled_orthographic(upright, model_points)
    if not pixels_per_unit > SMALLEST_SCALE:
        raise ValueError("the five alignment points have no extent")
    x, y = (float(t) for t in translation)
    return Alignment(width, height, RESCALE_FACTOR / pixels_per_unit, (x, y))


def fit_scaled_orthographic(
    points: Float[np.ndarray, "n 2"], model_points: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, " 2"], float]:
    """Least squares of ``points = model_points @ M + t`` (POS of Deep3DFaceRecon's util/preprocess.py).

    Returns t (px) and the scale, the mean length of M's two columns (px per model unit).
    """
    design = np.concatenate([model_points, np.ones((len(model_points), 1))], axis=1)
    solution = np.linalg.lstsq(design, points.astype(np.float64), rcond=None)[0]
    return solution[3], float(np.linalg.norm(solution[:3], axis=0).mean())


def _scaled_window(
    image: np.ndarray,
    scaled_size: tuple[int, int],
    window: tuple[int, int, int, int],
    region: np.ndarray | None = None,
) -> np.ndarray:
    """A window of ``image[region]`` resized to ``scaled_size``; black outside of that canvas.

    region (x1, y1, x2, y2) may exceed the image, which then counts as black there; default: the whole image.
    Pillow's bicubic filter, computed for the window alone: the numbers of resizing everything first, to one
    grey level (Pillow keeps the window's corner in float32).
    """
    x1, y1, x2, y2 = window
    if x2 <= x1 or y2 <= y1:
        raise ValueError(f"window {window} is empty")
    result = np.zeros((y2 - y1, x2 - x1, *image.shape[2:]), image.dtype)
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, scaled_size[0]), min(y2, scaled_size[1])
    if left >= right or top >= bottom:
        return result
    if region is None:
        region = np.array([0, 0, image.shape[1], image.shape[0]])
    canvas_size = region[2:] - region[:2]
    ratio = canvas_size / np.array(scaled_size)
    source = np.array([left, top, right, bottom]) * np.tile(ratio, 2)
    # Two filter radii more than the bicubic kernel reads, so that cutting here changes no weight.
    reach = np.ceil(2 * np.maximum(ratio, 1)).astype(int) + 2
    low = np.maximum(np.floor(source[:2]).astype(int) - reach, 0)
    high = np.minimum(np.ceil(source[2:]).astype(int) + reach, canvas_size)
    tile = crop_box(image, np.concatenate([low, high]) + np.tile(region[:2], 2))
    resized = Image.fromarray(tile).resize(
        (right - left, bottom - top), Image.Resampling.BICUBIC, box=tuple(source - np.tile(low, 2))
    )
    result[top - y1 : bottom - y1, left - x1 : right - x1] = np.asarray(resized)
    return result
