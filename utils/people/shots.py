"""Cuts of a video, and changes of the person without a cut, found frame by frame (streaming).

Measured on 66 single-shot clips of talking and acting people and on all 739 pairs of different speakers among 39 of
the clips, put one after the other:

                        largest within a clip      smallest at a cut       limit
    colour histogram    0.12                       0.25                    0.20
    grey levels         23                         20                      12      both must be exceeded
    face's way          0.25 of its height         -                       0.40
    face's height       x 1.26                     -                       x 1.50
    appearance          0.051                      0.040; 98 % over 0.065  0.065   for dissolves, which are no cuts

Of clips joined in the middle, all of 50 cuts were found, and 18 of 20 dissolves of one second; nothing else was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from utils.imaging.geometry import five_points, landmarks_68

THUMBNAIL = 48  # pixels
HISTOGRAM_BINS = (8, 4, 8)  # hue, saturation, value
MAX_HISTOGRAM_CHANGE = 0.20  # share of the pixels that change their bin
MAX_GREY_CHANGE = 12.0  # grey levels, mean over thumbnail and channels
MAX_FACE_STEP = 0.40  # of the face's height, from one frame to the next
MAX_FACE_GROWTH = 1.50

APPEARANCE_WINDOW = 75  # frames on either side
APPEARANCE_GAP = 5  # frames without a face that a window passes over
MAX_APPEARANCE_DISTANCE = 0.065  # 1 - cosine of the mean descriptors
DISTANCE_PER_DEGREE = 0.0035  # added to it by a turn of the head between the two windows
_FACE_SIDE = 64  # pixels of the aligned face
_FACE_POINTS = np.array([[0.31, 0.36], [0.69, 0.36], [0.5, 0.58], [0.35, 0.78], [0.65, 0.78]], np.float32)
_CELL = (8, 8)  # pixels; blocks of 2 x 2 cells, 9 orientations, as in Dalal and Triggs' descriptor


class CutDetector:
    """Decides for each frame, in order, whether it begins another shot."""

    def __init__(self) -> None:
        self._thumbnail: np.ndarray | None = None
        self._histogram = np.zeros(0, np.float32)

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"]) -> bool:
        thumbnail = cv2.resize(frame, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
        histogram = colour_histogram(thumbnail)
        is_cut = False
        if self._thumbnail is not None:
            grey_change = np.abs(thumbnail.astype(np.int16) - self._thumbnail).mean()
            histogram_change = 0.5 * np.abs(histogram - self._histogram).sum()
            is_cut = bool(histogram_change > MAX_HISTOGRAM_CHANGE and grey_change > MAX_GREY_CHANGE)
        self._thumbnail, self._histogram = thumbnail, histogram
        return is_cut


def colour_histogram(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, " bins"]:
    """Shares of the pixels per HSV bin."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    counts = cv2.calcHist([hsv], [0, 1, 2], None, HISTOGRAM_BINS, [0, 180, 0, 256, 0, 256])
    return counts.ravel() / counts.sum()


def leaps(before: Float[np.ndarray, "468 3"], after: Float[np.ndarray, "468 3"]) -> bool:
    """Whether a face moved or grew more between two neighbouring frames than a head can."""
    heights = np.ptp(before[:, 1]), np.ptp(after[:, 1])
    way = np.linalg.norm(before[:, :2].mean(axis=0) - after[:, :2].mean(axis=0))
    return bool(way > MAX_FACE_STEP * min(heights) or max(heights) > MAX_FACE_GROWTH * min(heights))


@dataclass(frozen=True)
class Appearance:
    """Appearance of a face in a frame. descriptor: float [1764]; turn: yaw of the head, degrees."""

    frame: int
    descriptor: np.ndarray
    turn: float


class AppearanceDescriber:
    """A histogram of oriented gradients of the face aligned by its eyes, nose and mouth."""

    def __init__(self) -> None:
        self._hog = cv2.HOGDescriptor((_FACE_SIDE, _FACE_SIDE), (16, 16), _CELL, _CELL, 9)

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"], landmarks: np.ndarray) -> Float[np.ndarray, " d"]:
        matrix = similarity(five_points(landmarks_68(landmarks[:, :2])), _FACE_POINTS * _FACE_SIDE)
        size = (_FACE_SIDE, _FACE_SIDE)
        aligned = cv2.warpAffine(frame, matrix, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(self._hog.compute(cv2.cvtColor(aligned, cv2.COLOR_RGB2GRAY)), np.float64).ravel()


class PersonChangeDetector:
    """Compares a face's appearance in the APPEARANCE_WINDOW frames before and after each frame of a shot.

    Memory holds two windows. ``changes``: the frames from which the face is another person's.
    """

    def __init__(self) -> None:
        self.changes: list[int] = []
        self._describe = AppearanceDescriber()
        self._faces: deque[Appearance] = deque()
        self._peak = (0.0, -1)  # largest excess over the limit, and its frame

    def __call__(
        self, frame_number: int, frame: UInt8[np.ndarray, "h w 3"], landmarks: np.ndarray, turn: float
    ) -> None:
        """Take a frame with a face; the caller skips frames without one."""
        if self._faces and frame_number - self._faces[-1].frame > APPEARANCE_GAP + 1:
            self.new_shot()
        self._faces.append(Appearance(frame_number, self._describe(frame, landmarks), turn))
        if len(self._faces) > 2 * APPEARANCE_WINDOW:
            self._faces.popleft()
        if len(self._faces) == 2 * APPEARANCE_WINDOW:
            faces = list(self._faces)
            before, after = MeanAppearance(faces[:APPEARANCE_WINDOW]), MeanAppearance(faces[APPEARANCE_WINDOW:])
            self._follow(before.distance(after) - MAX_APPEARANCE_DISTANCE, faces[APPEARANCE_WINDOW].frame)

    def new_shot(self) -> None:
        """Forget the frames before; also called at the end of the video."""
        self._faces.clear()
        self._follow(-1.0, -1)

    def _follow(self, excess: float, frame_number: int) -> None:
        """Keep the frame where the distance exceeds the limit most."""
        if excess > self._peak[0]:
            self._peak = (excess, frame_number)
        elif excess <= 0 < self._peak[0]:
            self.changes.append(self._peak[1])
            self._peak = (0.0, -1)


class MeanAppearance:
    """The mean of appearances, to which more can be added."""

    def __init__(self, appearances: Iterable[Appearance]) -> None:
        """At least one appearance."""
        self._total, self._turns = np.zeros(1, np.float32), list[float]()
        self.add(appearances)

    def add(self, appearances: Iterable[Appearance]) -> None:
        for one in appearances:
            self._total = self._total + one.descriptor
            self._turns.append(one.turn)

    @property
    def descriptor(self) -> Float[np.ndarray, " d"]:
        return self._total / len(self._turns)

    @property
    def turn(self) -> float:
        return float(np.mean(self._turns))

    def distance(self, other: MeanAppearance) -> float:
        """Appearance distance: 1 - cosine of the mean descriptors, less what the turn of the head explains."""
        mine, others = self.descriptor, other.descriptor
        cosine = mine @ others / max(float(np.linalg.norm(mine) * np.linalg.norm(others)), 1e-12)
        return float(1 - cosine - DISTANCE_PER_DEGREE * abs(self.turn - other.turn))


def similarity(source: Float[np.ndarray, "n 2"], target: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "2 3"]:
    """Rotation, scale and shift that map ``source`` to ``target`` with the least squared error."""
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    from_points, to_points = source - source_mean, target - target_mean
    extent = max(float((from_points**2).sum()), 1e-12)
    along = (from_points * to_points).sum() / extent
    across = (from_points[:, 0] * to_points[:, 1] - from_points[:, 1] * to_points[:, 0]).sum() / extent
    matrix = np.array([[along, -across], [across, along]])
    return np.column_stack([matrix, target_mean - matrix @ source_mean])
