"""Inputs of stage 3's networks, from the clip and stage 2's result: face crops, depth images, reference frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from utils.core.errors import BadInput
from utils.core.streaming import batched
from utils.imaging.face_warp import MouthPicture, compose_reference
from utils.imaging.geometry import crop_box, resize_image
from utils.imaging.images import jpeg_round_trip, mouth_depth, stack_images
from utils.imaging.landmarks import OUTER_LIPS
from utils.imaging.masks import mouth_mask
from utils.imaging.mouth_library import choose_mouths
from utils.imaging.references import choose_references
from utils.media.video import read_frames_at
from utils.results.store import STAGE2_ADVICE, EditResult, depth_path

MOUTH_MARGIN = 0.15  # of the lips' width


@dataclass(frozen=True)
class FaceEdit:
    """Stage 2's result for the face of one frame.

    box: int32 [4], source-frame pixels.
    landmarks, source_landmarks: float32 [468, 2] relative to the box, with the new expression and as tracked.
    depth: uint8 [h, w], the size of the box; None: audio alone drives the mouth.
    strength: opacity of the new mouth, 0 to 1; it fades beside frames that pass through untouched.
    """

    box: np.ndarray
    landmarks: np.ndarray
    source_landmarks: np.ndarray
    depth: np.ndarray | None
    strength: float = 1.0


@dataclass(frozen=True)
class SourceFrame:
    """A decoded frame, uint8 RGB [H, W, 3]; ``face`` is None where none was found.

    reference: row of its reference frame in References; None: the frame itself. mouths: pictures to show between the
    lips, for a composed reference; none: the reference is not composed.
    """

    image: np.ndarray
    face: FaceEdit | None
    reference: int | None = None
    mouths: tuple[MouthPicture, ...] = ()


@dataclass(frozen=True)
class References:
    """Reference frames of the clip: face crops, uint8 [k, 3, r, r], that give the generator the face's appearance, and
    the row of each frame's reference; None without a face."""

    faces: Tensor
    rows: list[int | None]


@dataclass(frozen=True)
class PreparedFace:
    """Inputs of one frame: face crop, depth of the mouth, and the reference if it is composed, with the lips' mask."""

    crop: np.ndarray
    depth: np.ndarray
    composed: np.ndarray | None = None
    mouth: np.ndarray | None = None


@dataclass(frozen=True)
class Batch:
    """Consecutive frames; the faces are those of the frames with a face, in order."""

    sources: list[SourceFrame]
    faces: list[PreparedFace]

    @property
    def rows(self) -> list[int]:
        """Indices of the frames with a face."""
        return [row for row, source in enumerate(self.sources) if source.face is not None]


def choose_reference_frames(edit: EditResult, video_path: Path, n_frames: int, size: int) -> References:
    """Reference frames with their crops at ``size``."""
    boxes, valid = edit.boxes[:n_frames], edit.valid[:n_frames]
    chosen = choose_references(edit.source_landmarks, (boxes[:, 2:] - boxes[:, :2]).astype(float), valid)
    used = np.unique(chosen[valid])
    images = read_frames_at(video_path, edit.frame_index[used].tolist(), edit.record.fps)
    crops = [fine_crop(image, boxes[index], size)[0] for index, image in zip(used, images, strict=True)]
    return References(stack_images(crops), [int(np.searchsorted(used, i)) if i >= 0 else None for i in chosen])


def choose_mouth_pictures(edit: EditResult, video_path: Path, n_frames: int) -> list[tuple[MouthPicture, ...]]:
    """For every frame the pictures to show between the new lips, at the clip's own resolution; none without a face."""
    boxes, valid = edit.boxes[:n_frames], edit.valid[:n_frames]
    sizes = (boxes[:, 2:] - boxes[:, :2]).astype(float)
    mixes = choose_mouths(edit.source_landmarks, edit.landmarks, sizes, valid)
    used = sorted({frame for mix in mixes for frame, _ in mix})
    images = read_frames_at(video_path, edit.frame_index[used].tolist(), edit.record.fps)
    pictures = {
        frame: cut_mouth(image, boxes[frame], edit.source_landmarks[frame])
        for frame, image in zip(used, images, strict=True)
    }
    return [tuple(replace(pictures[frame], share=share) for frame, share in mix) for mix in mixes]


def cut_mouth(
    image: UInt8[np.ndarray, "H W 3"], box: np.ndarray, landmarks: Float[np.ndarray, "468 2"]
) -> MouthPicture:
    """A frame's pixels around the lips; landmarks in pixels of the face box."""
    lips = landmarks[list(OUTER_LIPS)] + box[:2]
    margin = MOUTH_MARGIN * np.ptp(lips[:, 0]) + 1
    window = np.concatenate([np.floor(lips.min(axis=0) - margin), np.ceil(lips.max(axis=0) + margin)]).astype(int)
    return MouthPicture(crop_box(image, window), (landmarks + box[:2] - window[:2]).astype(np.float32))


def source_frames(
    edit: EditResult,
    video_path: Path,
    n_frames: int,
    pose_driven: bool,
    parts: Sequence[range] | None = None,
    references: References | None = None,
    mouths: Sequence[tuple[MouthPicture, ...]] | None = None,
) -> Iterator[SourceFrame]:
    """Decode the source frames of ``parts`` (None: of the first ``n_frames``), each with its face and its reference.

    references, mouths: of every frame of the result. Each part is decoded separately, so that its frames do not depend
    on which earlier parts exist.
    """
    for part in [range(n_frames)] if parts is None else parts:
        images = read_frames_at(video_path, edit.frame_index[part.start : part.stop].tolist(), edit.record.fps)
        for index, image in zip(part, images, strict=True):
            face = edited_face(edit, index, pose_driven) if edit.valid[index] else None
            row = None if references is None else references.rows[index]
            yield SourceFrame(image, face, row, () if mouths is None else mouths[index])


def edited_face(edit: EditResult, index: int, pose_driven: bool) -> FaceEdit:
    """Stage 2's result for one frame's face; raises BadInput if its depth image has another size than its box."""
    x1, y1, x2, y2 = edit.boxes[index].tolist()
    depth = edit.depth(index) if pose_driven else None
    if depth is not None and depth.shape != (y2 - y1, x2 - x1):
        path, found = depth_path(edit.directory, index), f"{depth.shape[1]}x{depth.shape[0]}"
        raise BadInput("depth image of another size than its box", path, f"{x2 - x1}x{y2 - y1}", found, STAGE2_ADVICE)
    strength = float(edit.strength[index])
    return FaceEdit(edit.boxes[index], edit.landmarks[index], edit.source_landmarks[index], depth, strength)


def prepare_batches(
    sources: Iterable[SourceFrame], sizes: tuple[int, int], batch_size: int, faithful: bool = False
) -> Iterator[Batch]:
    """sizes: side in pixels of the generator's images, and of crops with a composed reference."""
    for frames in batched(sources, batch_size):
        faces = [
            prepare_composed(source.image, source.face, source.mouths, sizes)
            if source.mouths
            else prepare_crop(source.image, source.face, sizes[0], faithful)
            for source in frames
            if source.face is not None
        ]
        yield Batch(frames, faces)


def prepare_crop(image: UInt8[np.ndarray, "H W 3"], face: FaceEdit, size: int, faithful: bool = False) -> PreparedFace:
    """The face crop and the depth image of its mouth, both at the generator's size.

    faithful: both pass through JPEG. upstream: inference_edit_expression.py:282-284
    """
    store = jpeg_round_trip if faithful else np.asarray
    crop = resize_image(store(crop_box(image, face.box)), size, size, "lanczos")
    return PreparedFace(crop, prepare_depth(face, size, faithful))


def prepare_depth(face: FaceEdit, size: int, faithful: bool = False) -> UInt8[np.ndarray, "size size"]:
    """The depth image of the mouth; 0 if the edit has no depth."""
    if face.depth is None:
        return np.zeros((size, size), np.uint8)
    depth = jpeg_round_trip(face.depth) if faithful else face.depth
    return resize_image(mouth_depth(depth, face.landmarks), size, size, "lanczos")


def prepare_composed(
    image: UInt8[np.ndarray, "H W 3"], face: FaceEdit, mouths: Sequence[MouthPicture], sizes: tuple[int, int]
) -> PreparedFace:
    """Crop and composed reference at the larger size (``sizes[1]``), depth image at the smaller one (``sizes[0]``)."""
    size, fine = sizes
    crop, scale = fine_crop(image, face.box, fine)
    composed = compose_reference(crop, face.source_landmarks * scale, mouths, face.landmarks * scale, fine)
    return PreparedFace(crop, prepare_depth(face, size), composed, mouth_mask(face.landmarks * scale, (fine, fine)))


def fine_crop(
    image: UInt8[np.ndarray, "H W 3"], box: np.ndarray, size: int
) -> tuple[UInt8[np.ndarray, "size size 3"], Float[np.ndarray, " 2"]]:
    """A face crop resized as in training data, and the scale factors (x, y) from the box's pixels to the crop's."""
    crop = crop_box(image, box)
    height, width = crop.shape[:2]
    shrinking = "area" if min(height, width) > size else "bilinear"
    return resize_image(crop, size, size, shrinking), np.array([size / width, size / height], np.float32)
