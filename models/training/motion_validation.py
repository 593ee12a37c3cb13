"""Validation of audio2motion on held-out speakers: correlation of the mouth's opening, error of the lips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from jaxtyping import Float

from models.audio.audio_features import fit_length, speech_features
from models.face3d.face_model import FaceModel
from models.motion.audio2motion import Audio2Motion
from models.training.motion_batches import clip_features
from utils.data.motion_dataset import STEPS_PER_FRAME, MotionClip
from utils.imaging.landmarks import INNER_LIPS, LOWER_INNER_LIP, OUTER_EYE_CORNERS, OUTER_LIPS, UPPER_INNER_LIP
from utils.metrics.mouth_motion import LaggedCorrelation, best_lag
from utils.metrics.ridge import ridge_predictions

MAX_LAG = 4  # motion frames either way
TABLE_TITLE = (
    "lip error, % of the distance between the outer eye corners (in brackets: each clip's mean difference taken out)"
)


def predict_clips(network: Audio2Motion, clips: Sequence[MotionClip]) -> dict[str, Float[np.ndarray, "t 64"]]:
    """The most likely motion (temperature 0) of whole clips, as long as the clips and moved by their lag."""
    network.eval()
    predicted = {}
    for clip in clips:
        features = clip_features(clip, network.config)
        motion = network.predict(features, temperature=0.0, mouth_amp=clip.mouth_amp, eye_amp=clip.eye_amp)
        rows = np.clip(np.arange(clip.n_frames) - round(clip.lag), 0, len(motion) - 1)
        predicted[clip.name] = motion[rows]
    return predicted


def opening_direction(expression_basis: Float[np.ndarray, "468 3 e"]) -> Float[np.ndarray, " e"]:
    """Vertical distance of the inner lips' middles per expression coefficient, on the unposed mean face."""
    return expression_basis[UPPER_INNER_LIP, 1] - expression_basis[LOWER_INNER_LIP, 1]


def opening_of(expression: Float[np.ndarray, "t 64"], direction: Float[np.ndarray, " e"]) -> Float[np.ndarray, " t"]:
    return expression[:, : len(direction)] @ direction


def opening_matches(
    predicted: Mapping[str, np.ndarray], clips: Sequence[MotionClip], direction: Float[np.ndarray, " e"]
) -> dict[str, LaggedCorrelation]:
    """Correlation of predicted and tracked opening of the mouth at the best lag, per clip."""
    return {clip.name: _match(opening_of(predicted[clip.name], direction), clip, direction) for clip in clips}


def ridge_matches(
    training: Sequence[MotionClip], clips: Sequence[MotionClip], direction: Float[np.ndarray, " e"]
) -> dict[str, LaggedCorrelation]:
    """The same of a linear model on MFCC, the baseline."""
    openings = [opening_of(clip.expression, direction) for clip in training]
    train_features, clip_features = ([_frame_features(clip) for clip in group] for group in (training, clips))
    predictions = ridge_predictions(train_features, openings, clip_features)
    return {clip.name: _match(curve, clip, direction) for clip, curve in zip(clips, predictions, strict=True)}


def median_correlation(matches: Mapping[str, LaggedCorrelation]) -> float:
    return float(np.median([match.r for match in matches.values()]))


def match_line(label: str, matches: Mapping[str, LaggedCorrelation]) -> str:
    """r of the mouth's opening at the best lag, per clip and as a median."""
    per_clip = "  ".join(f"{name} {match.r:.2f}@{match.lag:+d}" for name, match in matches.items())
    return f"{label}  {per_clip}  median {median_correlation(matches):.3f}"


def _match(
    predicted: Float[np.ndarray, " t"], clip: MotionClip, direction: Float[np.ndarray, " e"]
) -> LaggedCorrelation:
    """A positive lag: the lips come later than predicted."""
    return best_lag(opening_of(clip.expression, direction), predicted, MAX_LAG)


def _frame_features(clip: MotionClip) -> Float[np.ndarray, "t c"]:
    """MFCC of one clip, both steps of every motion frame side by side."""
    steps = speech_features(clip.wave, "mfcc", with_pitch=False).audio
    return fit_length(steps, STEPS_PER_FRAME * clip.n_frames).reshape(clip.n_frames, -1)


@dataclass(frozen=True)
class LipErrors:
    """Mean distance of 40 lip landmarks from the tracked ones, as a share of the distance of the outer eye corners.

    network, and its baselines: the training clips' mean expression, and the network's motion for another speaker's
    sound. The last three: the same with each clip's mean difference subtracted, which leaves the motion.
    """

    network: float
    mean_motion: float
    other_sound: float
    network_moving: float
    mean_motion_moving: float
    other_sound_moving: float


def lip_errors(
    predicted: Mapping[str, np.ndarray],
    clips: Sequence[MotionClip],
    mean_expression: Float[np.ndarray, " 64"],
    face: FaceModel,
) -> dict[str, tuple[int, LipErrors]]:
    """Valid frames and errors of every speaker, and of all under the name "all"."""
    frames: dict[str, int] = {}
    sums: dict[str, np.ndarray] = {}
    for clip in clips:
        candidates = (
            predicted[clip.name],
            np.broadcast_to(mean_expression, clip.expression.shape),
            _other_sound(predicted, clips, clip),
        )
        errors = np.array([_lip_error(candidate, clip, face) for candidate in candidates]).T.reshape(-1)
        n_frames = int(clip.valid.sum())
        for name in (clip.speaker, "all"):
            frames[name] = frames.get(name, 0) + n_frames
            sums[name] = sums.get(name, np.zeros(len(errors))) + n_frames * errors
    order = [*sorted(set(sums) - {"all"}), "all"]
    return {name: (frames[name], LipErrors(*(sums[name] / frames[name]).tolist())) for name in order}


def _other_sound(predicted: Mapping[str, np.ndarray], clips: Sequence[MotionClip], clip: MotionClip) -> np.ndarray:
    """The prediction for the next other speaker, repeated to the clip's length; for one alone, moved by half a clip."""
    names = [other.name for other in clips]
    after = names.index(clip.name)
    others = [other.name for other in (*clips[after:], *clips[:after]) if other.speaker != clip.speaker]
    if not others:
        return np.roll(predicted[clip.name], clip.n_frames // 2, axis=0)
    return np.resize(predicted[others[0]], clip.expression.shape)


def _lip_error(predicted: Float[np.ndarray, "t 64"], clip: MotionClip, face: FaceModel) -> tuple[float, float]:
    """Mean distance, and the same with the mean difference subtracted."""
    mean, identity_basis, expression_basis = (basis.cpu().numpy() for basis in face.landmark_bases())
    identity = clip.identity[clip.valid].mean(axis=0)[: identity_basis.shape[2]]
    left, right = (mean[corner] + identity_basis[corner] @ identity for corner in OUTER_EYE_CORNERS)
    lips = expression_basis[[*OUTER_LIPS, *INNER_LIPS]]
    wrong = (predicted - clip.expression)[clip.valid][:, : lips.shape[2]]
    errors = [
        np.linalg.norm(np.einsum("te,lce->tlc", difference, lips), axis=2).mean()
        for difference in (wrong, wrong - wrong.mean(axis=0))
    ]
    distance = float(np.linalg.norm(left - right))
    return float(errors[0]) / distance, float(errors[1]) / distance


def error_table(errors: Mapping[str, tuple[int, LipErrors]]) -> str:
    width = max(len(name) for name in (*errors, "speaker"))
    lines = [TABLE_TITLE, f"{'speaker':{width}}  frames       network   mean motion   other sound"]
    for name, (n_frames, found) in errors.items():
        shares = [100 * value for value in astuple(found)]
        cells = "  ".join(f"{whole:5.2f} ({moving:4.2f})" for whole, moving in zip(shares[:3], shares[3:], strict=True))
        lines.append(f"{name:{width}}  {n_frames:6d}  {cells}")
    return "\n".join(lines)


def error_figures(errors: Mapping[str, tuple[int, LipErrors]]) -> dict[str, float]:
    """For the log: <which>/<speaker>."""
    return {
        f"{which}/{name}": value
        for name, (_, found) in errors.items()
        for which, value in (
            ("lip_error", found.network),
            ("lip_error_mean_motion", found.mean_motion),
            ("lip_error_other_sound", found.other_sound),
            ("lip_motion_error", found.network_moving),
            ("lip_motion_error_mean_motion", found.mean_motion_moving),
            ("lip_motion_error_other_sound", found.other_sound_moving),
        )
    }
