"""Expression style: a motion adapted to the clip's speaker (stage 2, --style).

The face at rest, the range of the mouth and slow changes such as smiles do not follow from sound; they are estimated
from the clip that is edited.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.ndimage import gaussian_filter1d

from models.face3d.closed_mouth import LipGaps
from models.face3d.face_model import FaceModel
from utils.core.types import MOTION_FPS
from utils.media.timeline import nearest, time_scale

TYPICAL_SPREAD = 0.045  # standard deviation of a talking mouth's opening, over the eye distance
MIN_SCALE, MAX_SCALE = 0.7, 1.4
STILL_SPREAD, TALKING_SPREAD = 0.01, 0.03  # spreads with certainty 0 and 1
SHUT_SHARE = 0.1  # of the wide openings of a motion; frames below it are pauses
SLOW = 25.0  # frames at 25 Hz, standard deviation of the smoothing: slower changes are not speech


def in_speakers_style(
    motion: Float[np.ndarray, "t 64"],
    expression: Float[np.ndarray, "n 64"],
    identity: Float[np.ndarray, "n 80"],
    valid: Bool[np.ndarray, " n"],
    frame_index: np.ndarray,
    face: FaceModel,
    fps: float = MOTION_FPS,
) -> Float32[np.ndarray, "t 64"]:
    """The motion in the style of a clip's speaker, given the clip's coefficients.

    frame_index int [T]: the clip's frame under each frame of the motion. fps: of clip and motion.
    """
    gaps = LipGaps.of(face, identity[valid].mean(axis=0))
    style = SpeakerStyle.of(expression, valid, gaps, fps)
    return style.apply(motion, frame_index, gaps, LipGaps.of(face))


@dataclass(frozen=True)
class SpeakerStyle:
    """Style of a clip's speaker.

    closed [64]: the mean expression with the mouth shut; talking [64]: the mean expression less ``closed``;
    certainty: 0 (still mouth) to 1 (talking mouth); scale: of the mouth's movements, 1 is typical;
    drift [N, 64]: slow changes of the expression about its mean, without the directions that open the mouth.
    """

    closed: np.ndarray
    talking: np.ndarray
    certainty: float
    scale: float
    drift: np.ndarray

    @classmethod
    def of(
        cls,
        expression: Float[np.ndarray, "n 64"],
        valid: Bool[np.ndarray, " n"],
        gaps: LipGaps,
        fps: float = MOTION_FPS,
    ) -> SpeakerStyle:
        """``gaps``: of the speaker's own face. Raises ValueError without any valid frame."""
        if not valid.any():
            raise ValueError("no frame shows a face")
        mean = expression[valid].mean(axis=0)
        closed = gaps.closed(mean)
        spread = float(gaps.opening(expression[valid]).std())
        certainty = float(np.clip((spread - STILL_SPREAD) / (TALKING_SPREAD - STILL_SPREAD), 0, 1))
        scale = 1 + certainty * (np.clip(spread / TYPICAL_SPREAD, MIN_SCALE, MAX_SCALE) - 1)
        slow, within = smoothed(expression - mean, valid, fps), gaps.directions()
        return cls(closed, mean - closed, certainty, float(scale), slow - slow @ within @ within.T)

    def apply(
        self, motion: Float[np.ndarray, "t 64"], frame_index: np.ndarray, gaps: LipGaps, motion_gaps: LipGaps
    ) -> Float32[np.ndarray, "t 64"]:
        """The motion about the speaker's mean, with the speaker's scale, and shut where the motion is shut.

        frame_index [T]: the clip's frame under each frame of the motion. ``motion_gaps``: of the motion's
        face, the mean face.

            shut ──────► mean ──────► wide open      of the motion
              │            │ scale
            closed ─────► mean ──────► wide open      of the speaker
        """
        opening = np.maximum(motion_gaps.opening(motion), 0)
        mean = motion[is_open(opening)].mean(axis=0) if opening.any() else motion.mean(axis=0)
        shut = motion_gaps.closed(mean)
        way = np.clip(opening / max(float(motion_gaps.opening(mean[None])[0]), 1e-6), 0, 1)[:, None]
        talking = self.certainty * self.talking + (1 - self.certainty) * (mean - shut)
        moved = motion - (shut + way * (mean - shut))
        styled = self.closed + way * talking + self.scale * moved + self.drift[frame_index]
        return gaps.uncrossed(styled)


def is_open(opening: Float[np.ndarray, " t"]) -> Bool[np.ndarray, " t"]:
    """Frames of a motion whose mouth is open, unlike in pauses; at least one if any opens."""
    found: np.ndarray = opening > SHUT_SHARE * np.percentile(opening, 90)
    return found if found.any() else opening == opening.max()


def smoothed(
    values: Float[np.ndarray, "n c"], valid: Bool[np.ndarray, " n"], fps: float = MOTION_FPS
) -> Float[np.ndarray, "n c"]:
    """Series smoothed over time; invalid frames follow from their neighbours."""
    sigma = SLOW * time_scale(fps)
    weight = gaussian_filter1d(valid.astype(np.float64), sigma, mode="nearest")
    total = gaussian_filter1d(values * valid[:, None], sigma, axis=0, mode="nearest")
    result = total / np.maximum(weight, 1e-6)[:, None]
    far = weight < 1e-3
    if far.any():
        result[far] = result[nearest(valid)[far]]
    return result
