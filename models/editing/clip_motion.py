"""Stage 1's motion → that of each frame of a result: at its rate, in the person's manner, at rest after the speech."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from jaxtyping import Float, Int

from models.editing.clip_store import StoredClip
from models.face3d.closed_mouth import rest_expression
from models.face3d.face_model import EXPRESSION, IDENTITY, FaceModel
from models.motion.expression_style import in_speakers_style
from utils.media.timeline import resample_motion, settle


def motion_of_frames(
    motion: Float[np.ndarray, "t 64"],
    rate: Fraction,
    clip: StoredClip,
    frame_index: Int[np.ndarray, " n"],
    face_model: FaceModel,
    with_style: bool,
) -> Float[np.ndarray, "n 64"]:
    """The motion (at 25 Hz) of a result at ``rate`` whose frames show these of the clip.

    with_style: in the manner of the clip's person, see expression_style.py; for the mini pack's face model.
    """
    moved = resample_motion(motion, rate)[: len(frame_index)]
    if with_style:
        coeffs, shown = clip.coeffs.all(), frame_index[: len(moved)]
        expression, identity = coeffs[:, EXPRESSION], coeffs[:, IDENTITY]
        moved = in_speakers_style(moved, expression, identity, clip.valid, shown, face_model, float(rate))
    if len(moved) == len(frame_index):
        return moved
    return settle(moved, len(frame_index), rest_expression(face_model, clip.coeffs, clip.valid), rate)
