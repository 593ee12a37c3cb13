"""Figures of pairs of clips: each pair from frames and sounds, and those that need all pairs (agreement, FID)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from models.evaluation.clip_comparison import BadFrame, Comparison, Instruments, LowerFaceFeatures, compare_frames
from models.evaluation.clip_figures import (
    ClipSound,
    FrameCurves,
    PredictedCurves,
    SoundModel,
    agreement_figures,
    frame_curves,
    is_other_sound,
    jitter_figures,
    mouth_figures,
    picture_figures,
    silence_figures,
)
from models.evaluation.inception import frechet_distance
from models.evaluation.lpips import Lpips
from models.lipsync.syncnet import SyncNet, SyncScore, cut_face, face_windows
from models.tracking.face_tracker import MediaPipeTracker
from utils.core.errors import BadInput
from utils.core.types import SAMPLES_PER_FRAME, FaceTrack, PictureFormat
from utils.metrics.codec_noise import CodecNoise
from utils.metrics.figures import BY_NAME

# those that need the generated clip's landmarks
FACE_METRICS = {"lmd", "opening", "width", "closures", "jitter", "av", "av_log_mel", "silence", "lse"}
GOOD_FID_FRAMES = 2048  # with fewer frames than features the covariances are singular and FID is biased upwards
OTHER_SPEECH = (
    "its sound is not the reference's: psnr, ssim, lpips, lmd, opening, width and closures compare different words"
)


@dataclass(frozen=True)
class Clip:
    """A clip to measure. frames: decodes it from its start at 25 fps; wave: float32 16 kHz mono, None without sound."""

    stem: str
    frames: Callable[[], Iterator[np.ndarray]]
    wave: np.ndarray | None
    picture: PictureFormat


@dataclass(frozen=True)
class Networks:
    """Networks of the wanted metrics; None for those that are not wanted. sound_models: by metric, of agreement."""

    sound_models: Mapping[str, SoundModel] = field(default_factory=dict)
    lpips: Lpips | None = None
    features: LowerFaceFeatures | None = None
    syncnet: SyncNet | None = None


@dataclass(frozen=True)
class PairResult:
    """Figures and notes of a pair, its series per frame, its worst frames; predicted: from its sounds, by metric."""

    n_frames: int
    figures: dict[str, float]
    notes: list[str]
    curves: FrameCurves
    pixels: dict[str, np.ndarray]
    predicted: Mapping[str, PredictedCurves]
    worst: list[BadFrame]
    sync: SyncScore | None = None


def measure_pair(generated: Clip, reference: Clip, metrics: Collection[str], networks: Networks) -> PairResult:
    """All figures but agreement with the sound, which needs other clips' sounds (with_agreement).

    Raises BadInput if no frame of the reference shows a face.
    """
    comparison = compare(generated, reference, metrics, networks)
    if not comparison.reference.valid.any():
        found = f"none in {comparison.n} frames"
        raise BadInput("no face in the reference", reference.stem, "a face in some frame", found)
    n = comparison.n
    made, real = (ClipSound(_sound_of(clip, n), n) for clip in (generated, reference))
    curves = frame_curves(comparison)
    figures = picture_figures(comparison, curves) | mouth_figures(curves)
    if "jitter" in metrics:
        figures |= jitter_figures(comparison, made, real)
    if "silence" in metrics:
        figures |= silence_figures(curves, made, real)
    names = (reference.stem, *generated.stem.split("#"))
    predicted = {metric: model.predict(names, n, made, real) for metric, model in networks.sound_models.items()}
    sync = None
    if networks.syncnet is not None:
        sync, real_sync = sync_scores(networks.syncnet, comparison, generated, reference)
        figures |= _sync_figures(sync, "") | _sync_figures(real_sync, "_ref")
    wanted = {name: value for name, value in figures.items() if BY_NAME[name].metric in metrics}
    notes = remarks(comparison, made, bool(FACE_METRICS & set(metrics)))
    return PairResult(n, wanted, notes, curves, comparison.pixels, predicted, comparison.worst, sync)


def compare(generated: Clip, reference: Clip, metrics: Collection[str], networks: Networks) -> Comparison:
    codec = CodecNoise(reference.picture) if "upper_drift" in metrics else None
    with MediaPipeTracker() as reference_tracker, MediaPipeTracker() as generated_tracker:
        second = generated_tracker if FACE_METRICS & set(metrics) else None
        tools = Instruments(reference_tracker, second, codec, networks.lpips, networks.features)
        if codec is None:
            return compare_frames(reference.frames(), generated.frames(), tools)
        with codec:
            return compare_frames(reference.frames(), generated.frames(), tools)


def _sound_of(clip: Clip, n_frames: int) -> np.ndarray | None:
    return None if clip.wave is None else clip.wave[: n_frames * SAMPLES_PER_FRAME]


def remarks(comparison: Comparison, sound: ClipSound, wants_landmarks: bool) -> list[str]:
    """Notes on missing faces and sound, and on differences of length and size."""
    found = []
    real, made = comparison.reference_size, comparison.generated_size
    if real.n_frames != made.n_frames:
        counts = f"generated clip has {made.n_frames} frames, reference {real.n_frames}"
        found.append(f"{counts}; the first {comparison.n} are compared")
    if real.size != made.size:
        sizes = "{}x{}".format(*made.size), "{}x{}".format(*real.size)
        found.append(f"generated clip is {sizes[0]}, reference {sizes[1]}; brought to the reference's size")
    sides = [("reference", comparison.reference)] + [("generated clip", comparison.generated)] * wants_landmarks
    for name, track in sides:
        if not track.valid.all():
            found.append(f"no face in {int((~track.valid).sum())} of {comparison.n} frames of the {name}")
    if sound.wave is None:
        found.append("the generated clip has no sound")
    return found


def with_agreement(results: Sequence[PairResult]) -> list[PairResult]:
    """Add agreement with the sound; the other pairs' sounds are the wrong ones. Clips with other speech get a note."""
    complete = []
    for result in results:
        figures = dict(result.figures)
        for metric, predicted in result.predicted.items():
            sounds = [other.predicted[metric].generated for other in results if other is not result]
            others = [curves for curves in sounds if curves is not None]
            figures |= agreement_figures(metric, result.curves, predicted, others)
        has_other = any(map(has_other_speech, result.predicted.values()))
        notes = [*result.notes, OTHER_SPEECH] if has_other else result.notes
        complete.append(replace(result, figures=figures, notes=notes))
    return complete


def has_other_speech(predicted: PredictedCurves) -> bool:
    """Whether a clip was generated from another sound than its reference's own."""
    if predicted.generated is None or predicted.reference is None:
        return False
    return is_other_sound(predicted.generated, predicted.reference)


def sync_scores(
    network: SyncNet, comparison: Comparison, generated: Clip, reference: Clip
) -> tuple[SyncScore | None, SyncScore | None]:
    """SyncNet's scores of both clips, each decoded once more; None without sound or face."""
    scale = np.divide(comparison.generated_size.size, comparison.reference_size.size)
    return (
        _sync_score(network, comparison.generated, generated, scale),
        _sync_score(network, comparison.reference, reference, np.ones(2)),
    )


def _sync_score(network: SyncNet, track: FaceTrack, clip: Clip, scale: np.ndarray) -> SyncScore | None:
    if clip.wave is None or not track.valid.any():
        return None
    windows = face_windows(track.landmarks[..., :2] * scale.astype(np.float32), track.valid)
    crops = (cut_face(frame, window) for frame, window in zip(clip.frames(), windows, strict=False))
    return network.score(crops, clip.wave)


def _sync_figures(score: SyncScore | None, suffix: str) -> dict[str, float]:
    if score is None:
        return {}
    figures = {f"lse_c{suffix}": score.confidence, f"lse_d{suffix}": score.distance}
    return figures if suffix else figures | {"lse_offset": float(score.offset)}


def overall_figures(features: LowerFaceFeatures | None) -> tuple[dict[str, float], str]:
    """FID of all frames, and a remark on how many there were; nothing with fewer than two."""
    if features is None:
        return {}, ""
    features.flush()
    n = features.generated.n
    if n < 2:
        return {}, "FID needs two frames"
    remark = f"FID of {n} frames" + (f"; biased upwards below {GOOD_FID_FRAMES}" if n < GOOD_FID_FRAMES else "")
    return {"fid": frechet_distance(features.generated, features.reference)}, remark
