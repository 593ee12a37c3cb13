"""Constants and the frozen records that the stages exchange.

CONVENTIONS (the only place where they are written down)
- Images: uint8 RGB [H, W, 3] in utils/; float [-1, 1] RGB [B, 3, H, W] in models/.
- Image coordinates: x right, y down, pixels; a pixel's centre is at +0.5 for the rasteriser.
- Boxes: int32 x1, y1, x2, y2 with x2 and y2 exclusive; a box may leave the frame, the part outside is black.
- Landmarks: MediaPipe's order of 468 points, in pixels.
- Time: motion at 25 Hz, video at 25 Hz unless it keeps its own rate, audio features at 50 Hz, waveforms at 16 kHz
  mono in [-1, 1).
- Face space: x right, y up, z towards the camera; the camera stands at z = +distance and looks along -z.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

VERSION = "0.1.0"  # of the software, as in pyproject.toml; results carry it


SAMPLE_RATE = 16_000  # Hz
FEATURE_RATE = 50  # Hz, audio features
MOTION_FPS = 25  # Hz, motion; and video unless it keeps its own rate
SAMPLES_PER_FEATURE = SAMPLE_RATE // FEATURE_RATE
SAMPLES_PER_FRAME = SAMPLE_RATE // MOTION_FPS
INAUDIBLE = 1e-3  # peak of a silent sound: -60 dB of full scale

N_ID, N_EXP, N_TEX, N_ANGLE, N_GAMMA, N_TRANS = 80, 64, 80, 3, 27, 3
N_COEFFS = N_ID + N_EXP + N_TEX + N_ANGLE + N_GAMMA + N_TRANS  # 257
N_LANDMARKS = 468

FrameRate = Literal["25", "source"]  # of a result: MOTION_FPS, or the clip's own
Length = Literal["pingpong", "loop", "hold", "cut", "silence"]  # see utils/media/timeline.py


@dataclass(frozen=True)
class Camera:
    """Pinhole camera of Deep3DFaceRecon: square image, lengths in pixels and face-model units."""

    focal: float = 1015.0
    center: float = 112.0
    distance: float = 10.0
    image_size: int = 224
    near: float = 5.0
    far: float = 15.0


@dataclass(frozen=True)
class PictureFormat:
    """Colour codes of ITU-T H.273 (1 is BT.709, 2 untagged) and pixel shape of a video.

    An untagged matrix is read as BT.601. pixel_aspect: width of a pixel over its height.
    """

    matrix: int = 1
    primaries: int = 1
    transfer: int = 1
    pixel_aspect: Fraction = Fraction(1)


@dataclass(frozen=True)
class VideoInfo:
    """A video stream: display size after rotation, frames per second (if they are uneven: the
    constant rate that shows them all, see utils/media/video_timing.py), seconds."""

    path: Path
    width: int
    height: int
    fps: Fraction
    duration: float
    has_audio: bool
    picture: PictureFormat = PictureFormat()


@dataclass(frozen=True)
class TrackedFace:
    """One face in one frame.

    landmarks: float32 [468, 3], x and y in source-frame pixels, z at the same scale (smaller is nearer).
    points68:  float32 [68, 2], the iBUG points, source-frame pixels; the box and the alignment come from them.
    """

    landmarks: np.ndarray
    points68: np.ndarray


@dataclass(frozen=True)
class FaceTrack:
    """One face followed through a clip of N frames at 25 Hz.

    landmarks:   float32 [N, 468, 3], x and y in source-frame pixels, z at the same scale (smaller is nearer).
    boxes:       int32 [N, 4], source-frame pixels.
    valid:       bool [N]; false where no face was found (its landmarks, box and five points are zero).
    five_points: float32 [N, 5, 2], alignment points: eye centres, nose tip, mouth corners; source-frame pixels.
    """

    landmarks: np.ndarray
    boxes: np.ndarray
    valid: np.ndarray
    five_points: np.ndarray

    def __len__(self) -> int:
        return len(self.valid)
