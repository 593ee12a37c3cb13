"""A motion in the manner of the person who is to show it (stage 2, --style).

What a face looks like at rest, how far its mouth opens and how it smiles meanwhile cannot be heard, but the clip that
is edited shows it.
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

TYPICAL_SPREAD = 0.045  # standard deviation of a talking mouth's opening, over the distance of the eyes
MIN_SCALE, MAX_SCALE = 0.7, 1.4
STILL_SPREAD, TALKING_SPREAD = 0.01, 0.03  # a mouth that moves less than the first says nothing of how it talks
SHUT_SHARE = 0.1  # of the wide openings of a motion; frames below it are pauses
SLOW = 25.0  # frames at 25 Hz, standard deviation of the smoothing: what changes over seconds is no speech


def in_persons_style(
    motion: Float[np.ndarray, "t 64"],
    expression: Float[np.ndarray, "n 64"],
    identity: Float[np.ndarray, "n 80"],
    valid: Bool[np.ndarray, " n"],
    frame_index: np.ndarray,
    face: FaceModel,
    fps: float = MOTION_FPS,
) -> Float32[np.ndarray, "t 64"]:
    """The motion as the person of a clip with these coefficients would make it.

    frame_index int [T]: which of the clip's frames each frame of the motion is put on. fps: of clip and motion.
    """
    gaps = LipGaps.of(face, identity[valid].mean(axis=0))
    style = PersonStyle.of(expression, valid, gaps, fps)
    return style.show(motion, frame_index, gaps, LipGaps.of(face))


@dataclass(frozen=True)
class PersonStyle:
    """What a clip shows of a person's manner.

    closed [64]: the mean expression with the mouth shut; talking [64]: what leads from there to the mean expression;
    certainty: 0 if the clip shows a still mouth, 1 if it surely talks; scale: of the mouth's movements beside others';
    drift [N, 64]: how the expression changes slowly about its mean, without what opens the mouth.
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
    ) -> PersonStyle:
        """``gaps``: of the person's own face. Raises ValueError without any valid frame."""
        if not valid.any():
            raise ValueError("no frame shows a face")
        mean = expression[valid].mean(axis=0)
        closed = gaps.closed(mean)
        spread = float(gaps.opening(expression[valid]).std())
        certainty = float(np.clip((spread - STILL_SPREAD) / (TALKING_SPREAD - STILL_SPREAD), 0, 1))
        scale = 1 + certainty * (np.clip(spread / TYPICAL_SPREAD, MIN_SCALE, MAX_SCALE) - 1)
        slow, within = smoothed(expression - mean, valid, fps), gaps.directions()
        return cls(closed, mean - closed, certainty, float(scale), slow - slow @ within @ within.T)

    def show(
        self, motion: Float[np.ndarray, "t 64"], frame_index: np.ndarray, gaps: LipGaps, motion_gaps: LipGaps
    ) -> Float32[np.ndarray, "t 64"]:
        """The motion on this person: about their own mean, as lively as they are, and shut where the motion is shut.

        frame_index [T]: the clip's frame under each frame of the motion. ``motion_gaps``: of the face that the motion
        is meant for, the mean face.

            shut ──────► mean ──────► wide open      of the motion
              │            │ scale
            closed ─────► mean ──────► wide open      of the person
        """
        opening = np.maximum(motion_gaps.opening(motion), 0)
        mean = motion[is_open(opening)].mean(axis=0) if opening.any() else motion.mean(axis=0)
        shut = motion_gaps.closed(mean)
        way = np.clip(opening / max(float(motion_gaps.opening(mean[None])[0]), 1e-6), 0, 1)[:, None]
        talking = self.certainty * self.talking + (1 - self.certainty) * (mean - shut)
        moved = motion - (shut + way * (mean - shut))
        shown = self.closed + way * talking + self.scale * moved + self.drift[frame_index]
        return gaps.uncrossed(shown)


def is_open(opening: Float[np.ndarray, " t"]) -> Bool[np.ndarray, " t"]:
    """Frames of a motion whose mouth is not shut as in a pause; at least one if any opens."""
    found: np.ndarray = opening > SHUT_SHARE * np.percentile(opening, 90)
    return found if found.any() else opening == opening.max()


def smoothed(
    values: Float[np.ndarray, "n c"], valid: Bool[np.ndarray, " n"], fps: float = MOTION_FPS
) -> Float[np.ndarray, "n c"]:
    """Each series without its quick changes; frames that are not valid follow from those around them."""
    sigma = SLOW * time_scale(fps)
    weight = gaussian_filter1d(valid.astype(np.float64), sigma, mode="nearest")
    total = gaussian_filter1d(values * valid[:, None], sigma, axis=0, mode="nearest")
    result = total / np.maximum(weight, 1e-6)[:, None]
    far = weight < 1e-3
    if far.any():
        result[far] = result[nearest(valid)[far]]
    return result
