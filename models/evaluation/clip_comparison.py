"""Comparison of a generated clip with its reference, frame by frame: one pass, a few frames in memory.

Faces are tracked in both clips, but both are cropped by the reference's box, so that a misplaced face counts as an
error. Two sets of landmarks and a handful of numbers are kept per frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from models.evaluation.inception import FeatureStatistics, InceptionV3
from models.evaluation.lpips import Lpips
from models.tracking.face_tracker import LandmarkTracker, track_face
from utils.core.types import FaceTrack, TrackedFace
from utils.imaging.blending import enlarge_box
from utils.imaging.contact_sheet import cut_tile
from utils.imaging.geometry import face_box_from_68, resize_image
from utils.metrics.codec_noise import CodecNoise
from utils.metrics.image_quality import (
    laplacian_deviation,
    lower_face,
    mean_difference,
    psnr,
    redrawn_region,
    ssim,
    upper_pixels,
)

N_WORST = 10
WORST_APART = 12  # least distance in frames between two of a clip's worst
INCEPTION_BATCH = 16
PIXEL_FIGURES = ("psnr", "ssim", "psnr_still", "ssim_still", "upper_drift", "lpips", "laplacian", "laplacian_ref")


@dataclass
class LowerFaceFeatures:
    """Inception's statistics of the lower faces of all clips, for one FID."""

    network: InceptionV3
    generated: FeatureStatistics = field(default_factory=FeatureStatistics)
    reference: FeatureStatistics = field(default_factory=FeatureStatistics)
    _waiting: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def add(self, generated: np.ndarray, reference: np.ndarray) -> None:
        self._waiting.append((generated, reference))
        if len(self._waiting) == INCEPTION_BATCH:
            self.flush()

    def flush(self) -> None:
        if self._waiting:
            generated, reference = (np.stack(images) for images in zip(*self._waiting, strict=True))
            self.generated.add(self.network.features(generated))
            self.reference.add(self.network.features(reference))
            self._waiting.clear()


@dataclass(frozen=True)
class BadFrame:
    """A frame of low PSNR; reference, generated: the face as uint8 RGB [192, 192, 3]."""

    index: int
    psnr: float
    reference: np.ndarray
    generated: np.ndarray


@dataclass
class ClipSize:
    """Number of frames of a clip, and their width and height."""

    n_frames: int = 0
    size: tuple[int, int] = (0, 0)

    def count(self, frame: np.ndarray | None) -> None:
        if frame is not None:
            self.n_frames += 1
            self.size = (frame.shape[1], frame.shape[0])


@dataclass(frozen=True)
class Comparison:
    """Measurements of the n frames that both clips have; pixels[name] float64 [n], NaN where it was not measured.

    codec_noise: change of the pixels of ``upper_drift`` by encoding the reference anew, grey levels.
    """

    reference_size: ClipSize
    generated_size: ClipSize
    reference: FaceTrack
    generated: FaceTrack
    pixels: dict[str, np.ndarray]
    codec_noise: float
    worst: list[BadFrame]

    @property
    def n(self) -> int:
        return len(self.reference)

    @property
    def both_valid(self) -> np.ndarray:
        """bool [n]: both clips show a face."""
        return self.reference.valid & self.generated.valid


@dataclass(frozen=True)
class Instruments:
    """Trackers and networks of a comparison; generated_tracker None: its landmarks are not needed."""

    reference_tracker: LandmarkTracker
    generated_tracker: LandmarkTracker | None
    codec: CodecNoise | None = None
    lpips: Lpips | None = None
    features: LowerFaceFeatures | None = None


def compare_frames(
    reference: Iterable[np.ndarray], generated: Iterable[np.ndarray], instruments: Instruments
) -> Comparison:
    """Compare two clips of uint8 RGB frames at 25 fps in one pass. Frames beyond the shorter clip are only counted."""
    meter = _Meter(instruments)
    real_size, made_size = ClipSize(), ClipSize()
    for real, made in itertools.zip_longest(reference, generated):
        real_size.count(real)
        made_size.count(made)
        if real is not None and made is not None:
            meter.measure(*of_one_size(real, made))
    codec_noise = instruments.codec.measure() if instruments.codec is not None else float("nan")
    pixels = {name: np.array(values, np.float64) for name, values in meter.pixels.items()}
    real_track, made_track = _track_of(meter.reference_faces), _track_of(meter.generated_faces)
    return Comparison(real_size, made_size, real_track, made_track, pixels, codec_noise, meter.worst)


def of_one_size(reference: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bring the generated frame to the reference's size.

    A difference of one row or column (an encoder's padding of odd sides) is cropped, anything else is resized.
    """
    if reference.shape == generated.shape:
        return reference, generated
    height, width = (min(a, b) for a, b in zip(reference.shape[:2], generated.shape[:2], strict=True))
    if all(abs(a - b) <= 1 for a, b in zip(reference.shape, generated.shape, strict=True)):
        return reference[:height, :width], generated[:height, :width]
    is_larger = generated.shape[0] > reference.shape[0]
    resized = resize_image(generated, reference.shape[1], reference.shape[0], "area" if is_larger else "bilinear")
    return reference, resized


class _Meter:
    """Per-frame measurements of one pair of clips."""

    def __init__(self, instruments: Instruments) -> None:
        self._tools = instruments
        self.reference_faces: list[TrackedFace | None] = []
        self.generated_faces: list[TrackedFace | None] = []
        self.pixels: dict[str, list[float]] = {name: [] for name in PIXEL_FIGURES}
        self.worst: list[BadFrame] = []
        self._first_mouth: np.ndarray | None = None

    def measure(self, reference: np.ndarray, generated: np.ndarray) -> None:
        face = self._tools.reference_tracker(reference)
        box = None if face is None else face_box_from_68(face.points68)
        if box is None or box[2] <= box[0] or box[3] <= box[1]:
            face, box = None, None
        self.reference_faces.append(face)
        tracker = self._tools.generated_tracker
        self.generated_faces.append(None if tracker is None else tracker(generated))
        if self._tools.codec is not None:
            self._tools.codec.add(reference, box)
        found = {}
        if face is not None and box is not None:
            found = self._compare(reference, generated, box) | _detail(reference, generated, face)
        for name, values in self.pixels.items():
            values.append(found.get(name, float("nan")))

    def _compare(self, reference: np.ndarray, generated: np.ndarray, box: np.ndarray) -> dict[str, float]:
        real, made = lower_face(reference, box), lower_face(generated, box)
        found = {"psnr": psnr(made, real), "ssim": ssim(made, real)}
        found["upper_drift"] = mean_difference(upper_pixels(generated, box), upper_pixels(reference, box))
        if self._first_mouth is None:
            self._first_mouth = real
        else:
            found |= {"psnr_still": psnr(self._first_mouth, real), "ssim_still": ssim(self._first_mouth, real)}
        if self._tools.lpips is not None:
            found["lpips"] = self._tools.lpips.distance(made, real)
        if self._tools.features is not None:
            self._tools.features.add(made, real)
        self._keep_if_bad(found["psnr"], reference, generated, box)
        return found

    def _keep_if_bad(self, value: float, reference: np.ndarray, generated: np.ndarray, box: np.ndarray) -> None:
        """Keep the N_WORST frames of lowest PSNR, one within WORST_APART frames."""
        index = len(self.reference_faces) - 1
        if len(self.worst) == N_WORST and value >= self.worst[-1].psnr:
            return
        near = [bad for bad in self.worst if index - bad.index < WORST_APART]
        if any(bad.psnr <= value for bad in near):
            return
        view = enlarge_box(box, 1.0)  # the box made square
        new = BadFrame(index, value, cut_tile(reference, view), cut_tile(generated, view))
        rest = [bad for bad in self.worst if index - bad.index >= WORST_APART]
        self.worst = sorted([*rest, new], key=lambda bad: bad.psnr)[:N_WORST]


def _detail(reference: np.ndarray, generated: np.ndarray, face: TrackedFace) -> dict[str, float]:
    box, region = redrawn_region(face.landmarks[:, :2], (reference.shape[0], reference.shape[1]))
    sides = ("laplacian", generated), ("laplacian_ref", reference)
    return {name: laplacian_deviation(frame, box, region) for name, frame in sides}


def _track_of(faces: list[TrackedFace | None]) -> FaceTrack:
    """The track of detected faces."""
    replayed = iter(faces)
    return track_face(([] for _ in faces), lambda _: next(replayed), smoothing="none")  # type: ignore[arg-type,misc]
