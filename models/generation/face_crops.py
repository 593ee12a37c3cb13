"""Frames and what stage 2 says of their faces → crops, depth images and composed references for the networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from utils.core.streaming import batched
from utils.imaging.face_warp import compose_reference
from utils.imaging.geometry import crop_box, resize_image
from utils.imaging.images import jpeg_round_trip, mouth_depth


@dataclass(frozen=True)
class FaceEdit:
    """The face of one frame and what it shall do.

    box: int32 [4], source-frame pixels.
    landmarks, source_landmarks: float32 [468, 2] relative to the box, with the new expression and as tracked.
    depth: uint8 [h, w] of the box's size, or None where the mouth shall follow the sound alone.
    strength: how much of the new mouth is shown, 0 to 1; it fades beside frames that pass through untouched.
    """

    box: np.ndarray
    landmarks: np.ndarray
    source_landmarks: np.ndarray
    depth: np.ndarray | None
    strength: float = 1.0


@dataclass(frozen=True)
class SourceFrame:
    """A decoded frame, uint8 RGB [H, W, 3]; ``face`` is None where none was found.

    reference: row of the References that show what the face looks like; None: the frame itself.
    """

    image: np.ndarray
    face: FaceEdit | None
    reference: int | None = None


@dataclass(frozen=True)
class References:
    """Frames of the clip that show what the face looks like.

    faces: uint8 [k, 3, r, r]; landmarks: float32 [k, 468, 2], pixels of the faces. composed: only what is between the
    lips is taken from them, the rest from the frame itself, bent to its new lips; else they are shown as they are.
    """

    faces: Tensor
    landmarks: np.ndarray
    composed: bool


@dataclass(frozen=True)
class PreparedFace:
    """What the networks see of one frame: crop, depth of the mouth, and the reference if it is composed."""

    crop: np.ndarray
    depth: np.ndarray
    composed: np.ndarray | None = None


@dataclass(frozen=True)
class Batch:
    """Consecutive frames; the faces are those of the frames with a face, in order."""

    sources: list[SourceFrame]
    faces: list[PreparedFace]

    @property
    def rows(self) -> list[int]:
        """Which of the frames have a face."""
        return [row for row, source in enumerate(self.sources) if source.face is not None]


def prepare_batches(
    sources: Iterable[SourceFrame],
    sizes: tuple[int, int],
    batch_size: int,
    faithful: bool = False,
    references: References | None = None,
) -> Iterator[Batch]:
    """sizes: that the generator works at, and that of crops with a composed reference."""
    for frames in batched(sources, batch_size):
        faces = [
            prepare_crop(source.image, source.face, sizes[0], faithful)
            if references is None or not references.composed or source.reference is None
            else prepare_composed(source.image, source.face, sizes, references, source.reference)
            for source in frames
            if source.face is not None
        ]
        yield Batch(frames, faces)


def prepare_crop(image: UInt8[np.ndarray, "H W 3"], face: FaceEdit, size: int, faithful: bool = False) -> PreparedFace:
    """The face crop and the depth image of its mouth, both at the size that the generator works at.

    faithful: both were JPEG files on their way. upstream: inference_edit_expression.py:282-284
    """
    store = jpeg_round_trip if faithful else np.asarray
    crop = resize_image(store(crop_box(image, face.box)), size, size, "lanczos")
    return PreparedFace(crop, prepare_depth(face, size, faithful))


def prepare_depth(face: FaceEdit, size: int, faithful: bool = False) -> UInt8[np.ndarray, "size size"]:
    """The depth image of the mouth; 0 where none is to be followed."""
    if face.depth is None:
        return np.zeros((size, size), np.uint8)
    depth = jpeg_round_trip(face.depth) if faithful else face.depth
    return resize_image(mouth_depth(depth, face.landmarks), size, size, "lanczos")


def prepare_composed(
    image: UInt8[np.ndarray, "H W 3"], face: FaceEdit, sizes: tuple[int, int], references: References, row: int
) -> PreparedFace:
    """Crop and composed reference of the larger of the sizes, and the depth image of the smaller one."""
    size, fine = sizes
    crop, scale = fine_crop(image, face.box, fine)
    mouth_face = references.faces[row].permute(1, 2, 0).numpy()
    composed = compose_reference(
        crop, face.source_landmarks * scale, mouth_face, references.landmarks[row], face.landmarks * scale
    )
    return PreparedFace(crop, prepare_depth(face, size), composed)


def fine_crop(
    image: UInt8[np.ndarray, "H W 3"], box: np.ndarray, size: int
) -> tuple[UInt8[np.ndarray, "size size 3"], Float[np.ndarray, " 2"]]:
    """A face crop as training data has it, and what pixels of the box are multiplied by there."""
    crop = crop_box(image, box)
    height, width = crop.shape[:2]
    shrinking = "area" if min(height, width) > size else "bilinear"
    return resize_image(crop, size, size, shrinking), np.array([size / width, size / height], np.float32)
