"""Figures of a pair of clips from its comparison and its sounds; utils/metrics/figures.py defines each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from models.audio.speech_activity import SpeechActivity, speech_activity
from models.evaluation.clip_comparison import Comparison
from models.lipsync.av_agreement import Agreement, AvModel, agreement, mouth_curves, rolled, weighted_mean
from utils.core.types import FaceTrack
from utils.metrics.codec_noise import N_FRAMES
from utils.metrics.figures import BY_NAME
from utils.metrics.mouth_motion import (
    best_lag,
    correlation,
    face_jitter,
    lip_distance,
    lip_jitter,
    match_closures,
    still_mouth,
    variance_ratio,
)

NEAR_LAG, FAR_LAG = 2, 9  # frames
SAME_SOUND = 0.9  # least correlation of the curves predicted from two copies of one sound
PERCENT = 100.0
NOTHING = float("nan")


@dataclass(frozen=True)
class ClipSound:
    """A clip's sound, 16 kHz mono, over its frames; wave None: no sound, every frame is silent."""

    wave: np.ndarray | None
    n_frames: int

    @cached_property
    def activity(self) -> SpeechActivity:
        """Found when a figure first asks for it: the detector needs its wheel."""
        return speech_activity(np.zeros(1, np.float32) if self.wave is None else self.wave, self.n_frames)


@dataclass(frozen=True)
class FrameCurves:
    """Series per compared frame, NaN without a face: LMD and its floor (%), openings and widths of both mouths."""

    lmd: np.ndarray
    lmd_still: np.ndarray
    opening: np.ndarray
    width: np.ndarray
    opening_reference: np.ndarray
    width_reference: np.ndarray

    @property
    def mouth(self) -> Float[np.ndarray, "t 2"]:
        return np.stack([self.opening, self.width], axis=1)

    @property
    def mouth_reference(self) -> Float[np.ndarray, "t 2"]:
        return np.stack([self.opening_reference, self.width_reference], axis=1)


def frame_curves(comparison: Comparison) -> FrameCurves:
    real, made, both = comparison.reference, comparison.generated, comparison.both_valid
    curves = np.full((6, comparison.n), NOTHING)
    if both.any():
        curves[0][both] = PERCENT * lip_distance(made.landmarks[both], real.landmarks[both])
    if real.valid.any():
        shown = real.landmarks[real.valid]
        curves[1][real.valid] = PERCENT * lip_distance(still_mouth(shown), shown)
    for pair, track in ((curves[2:4], made), (curves[4:], real)):
        pair[:, track.valid] = mouth_curves(track.landmarks[track.valid]).T
    return FrameCurves(*curves)


def picture_figures(comparison: Comparison, curves: FrameCurves) -> dict[str, float]:
    """Figures that need no sound."""
    figures = {name: _mean(values) for name, values in comparison.pixels.items()}
    figures |= {"lmd": _mean(curves.lmd), "lmd_still": _mean(curves.lmd_still)}
    deviations = (_mean(comparison.pixels[name]) for name in ("laplacian", "laplacian_ref"))
    return figures | {
        "upper_codec": comparison.codec_noise,
        "upper_excess": _mean(comparison.pixels["upper_drift"][:N_FRAMES]) - comparison.codec_noise,
        "detail": _ratio(*deviations),
    }


def mouth_figures(curves: FrameCurves) -> dict[str, float]:
    """Opening, width and closures of the mouth against the reference's."""
    both = np.isfinite(curves.opening) & np.isfinite(curves.opening_reference)
    figures: dict[str, float] = {}
    for name, made, real in zip(
        ("opening", "width"), curves.mouth[both].T, curves.mouth_reference[both].T, strict=True
    ):
        figures[f"{name}_r"] = best_lag(made, real, NEAR_LAG).r
        figures[f"{name}_amount"] = _ratio(np.std(made), np.std(real)) if len(made) else NOTHING
    far = best_lag(curves.opening[both], curves.opening_reference[both], FAR_LAG)
    closed = asdict(match_closures(curves.opening, curves.opening_reference))
    figures |= {f"closure_{name}": value for name, value in closed.items()}
    return figures | {"opening_lag": float(far.lag) if far.r > 0 else NOTHING}


def jitter_figures(comparison: Comparison, made: ClipSound, real: ClipSound) -> dict[str, float]:
    """Jitter of the lips in speech and in silence, and of the rest of the face; each clip by its own sound."""
    figures = {}
    for track, sound, suffix in ((comparison.generated, made, ""), (comparison.reference, real, "_ref")):
        lips, face = (PERCENT * _where_unbroken(track, measure) for measure in (lip_jitter, face_jitter))
        figures["jitter_speech" + suffix] = _mean(lips[sound.activity.speech])
        figures["jitter_silence" + suffix] = _mean(lips[sound.activity.silence])
        figures["jitter_face" + suffix] = _mean(face)
    return figures


def _where_unbroken(track: FaceTrack, measure: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A second difference per frame, NaN unless the frame and both its neighbours show the face."""
    values = np.full(len(track), NOTHING)
    if len(track) > 2:
        found = measure(track.landmarks)
        whole = track.valid[2:] & track.valid[1:-1] & track.valid[:-2]
        values[1:-1][whole] = found[whole]
    return values


def silence_figures(curves: FrameCurves, made: ClipSound, real: ClipSound) -> dict[str, float]:
    """Variance of the opening in silence over that in speech, of both clips; NaN with too few frames of either."""
    figures = {}
    sides = (curves.opening, made, "silence"), (curves.opening_reference, real, "silence_ref")
    for opening, sound, name in sides:
        valid = np.isfinite(opening)
        figures[name] = variance_ratio(opening, sound.activity.silence & valid, sound.activity.speech & valid)
    return figures


@dataclass(frozen=True)
class PredictedCurves:
    """Curves [T, O] of the mouth predicted from the sounds of a pair; None without sound."""

    generated: np.ndarray | None
    reference: np.ndarray | None


@dataclass(frozen=True)
class SoundModel:
    """A model of agreement, and the features, in blocks, that it takes of a wave for a number of frames."""

    model: AvModel
    features: Callable[[np.ndarray, int], Iterable[np.ndarray]]

    def predict(self, names: Collection[str], n_frames: int, made: ClipSound, real: ClipSound) -> PredictedCurves:
        """Predict with weights fitted without the speaker, if the model was fitted on one of the clips' ``names``."""
        speaker = self.model.speaker_of(*names)
        predictions = [
            None if sound.wave is None else self.model.predict(self.features(sound.wave, n_frames), without=speaker)
            for sound in (made, real)
        ]
        return PredictedCurves(*predictions)


def agreement_figures(
    metric: str, curves: FrameCurves, predicted: PredictedCurves, others: Sequence[np.ndarray]
) -> dict[str, float]:
    """The generated clip, the reference with its own sound (ceiling) and wrong sounds (floor); names begin with metric.

    ``others``: curves predicted from other clips' sounds; they and the clip's own, shifted, are the wrong sounds.
    """
    figures: dict[str, float] = {}
    if predicted.generated is not None:
        made = curves.mouth[:, : predicted.generated.shape[1]]
        figures |= _agreement_figures(agreement(made, predicted.generated), "")
        wrong = [other for other in others if is_other_sound(predicted.generated, other)] + rolled(predicted.generated)
        scores = [score for prediction in wrong if (score := agreement(made, prediction))]
        figures["r_wrong"] = _mean(np.array([score.best.r for score in scores]))
        figures["r_sync_wrong"] = _mean(np.array([score.in_sync for score in scores]))
    if predicted.reference is not None:
        real = curves.mouth_reference[:, : predicted.reference.shape[1]]
        figures |= _agreement_figures(agreement(real, predicted.reference), "_real")
    named = {f"{metric}_{name}": value for name, value in figures.items()}
    return {name: value for name, value in named.items() if name in BY_NAME}


def is_other_sound(own: Float[np.ndarray, "t o"], other: Float[np.ndarray, "u o"]) -> bool:
    """Whether two predictions come from different sounds; one sound may drive several clips."""
    n = min(len(own), len(other))
    return weighted_mean(tuple(map(correlation, own[:n].T, other[:n].T))) < SAME_SOUND


def _agreement_figures(score: Agreement | None, suffix: str) -> dict[str, float]:
    if score is None:
        return {}
    values = {"r": score.best.r, "lag": float(score.best.lag), "r_sync": score.in_sync}
    values |= zip(("opening_r", "width_r"), score.parts, strict=False)
    return {name + suffix: value for name, value in values.items()}


def _ratio(value: float, reference: float) -> float:
    return float(value / reference) if reference > 0 else NOTHING


def _mean(values: np.ndarray) -> float:
    """Mean of the finite values; NaN without any."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else NOTHING
