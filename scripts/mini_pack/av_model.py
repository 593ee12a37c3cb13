"""Fit the model of audio-visual agreement, evaluate.py's sync measure.

    python -m scripts.mini_pack.av_model --clips CLIPS_DIR --out pretrained_models/mini/av_agreement.safetensors \
        --same_speaker lieu_a lieu_b --same_speaker vox_00104 vox_741400163

Ridge regression from the states of a speech encoder to opening and width of the mouth, on every clip with sound and a
face. For every speaker the weights of a fit without that speaker's clips are stored too and judge these clips; the
leave-one-out figures are printed and stored with the model. Only the principal components of the states are those of
all clips: without a speaker's clips they give the same figures. Clips whose lag by a first fit is reliable are shifted
by it before the final fit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from models.audio.speech_encoder import SpeechEncoder
from models.lipsync.av_agreement import (
    MAX_LAG,
    Agreement,
    AvModel,
    agreement,
    encoder_features,
    mouth_curves,
    rolled,
)
from models.lipsync.av_fit import SpeakingClip, fit_av_model, fit_projection
from models.tracking.face_tracker import MediaPipeTracker, track_face
from utils.core import cli
from utils.core.errors import BadInput
from utils.core.options import CommandParser
from utils.core.types import MOTION_FPS, VERSION
from utils.media.audio import has_audio, load_waveform
from utils.media.video import read_frames
from utils.metrics.clip_pairs import list_videos

FIRM_R, FIRM_LAG = 0.35, 5  # smallest agreement and largest lag in frames of a reliable estimate
MIN_SECONDS = 2.0


def open_clip(path: Path, speaker: str, encoder: SpeechEncoder) -> SpeakingClip | None:
    """Track a clip; None if it has no sound or no face for two seconds."""
    if not has_audio(path):
        return None
    with MediaPipeTracker() as tracker:
        track = track_face(read_frames(path), tracker, "none")
    if track.valid.sum() < MIN_SECONDS * MOTION_FPS:
        return None
    features = np.concatenate(list(encoder_features(encoder, load_waveform(path), len(track))))
    return SpeakingClip(path.stem, speaker, features, mouth_curves(track.landmarks), track.valid)


def own_agreement(model: AvModel, clip: SpeakingClip) -> Agreement | None:
    """Agreement of a clip by the weights fitted without its speaker."""
    return agreement(tracked(clip), model.predict([clip.features], without=clip.speaker))


def tracked(clip: SpeakingClip) -> Float[np.ndarray, "t o"]:
    return np.where(clip.valid[:, None], clip.curves, np.nan)


def wrong_sounds(model: AvModel, clip: SpeakingClip, clips: list[SpeakingClip]) -> list[Agreement]:
    """Agreement of a clip with the sounds of all other speakers, repeated to its length, and with its own, late."""
    others = [other for other in clips if other.speaker != clip.speaker]
    predicted = [model.predict([other.features], without=clip.speaker) for other in others]
    sounds = [np.resize(curves, clip.curves.shape) for curves in predicted]
    sounds += rolled(model.predict([clip.features], without=clip.speaker))
    return [score for sound in sounds if (score := agreement(tracked(clip), sound)) is not None]


def in_time(clip: SpeakingClip, lag: int) -> SpeakingClip:
    """Move the lips ``lag`` frames earlier."""
    if lag == 0:
        return clip
    n = len(clip.curves) - abs(lag)
    lips = slice(max(lag, 0), max(lag, 0) + n)
    sound = slice(max(-lag, 0), max(-lag, 0) + n)
    return replace(clip, features=clip.features[sound], curves=clip.curves[lips], valid=clip.valid[lips])


def fit_in_time(clips: list[SpeakingClip]) -> AvModel:
    """Fit twice, the second time with the lags of reliable clips removed."""
    projection = fit_projection(clips)
    first = fit_av_model(clips, projection)
    moved = []
    for clip in clips:
        found = own_agreement(first, clip)
        is_firm = found is not None and found.best.r >= FIRM_R and abs(found.best.lag) <= FIRM_LAG
        moved.append(in_time(clip, found.best.lag) if found is not None and is_firm else clip)
    return fit_av_model(moved, projection)


def left_out_figures(model: AvModel, clips: list[SpeakingClip]) -> dict[str, dict[str, float]]:
    """Figures of every clip, not shifted, by the weights fitted without its speaker.

    r, opening, width, at the best ``lag``; r_sync: at lag 0; r_wrong, r_wrong_sync: mean of wrong sounds; above: share
    of the wrong sounds that agree less than the clip's own.
    """
    figures = {}
    for clip in clips:
        own = own_agreement(model, clip)
        if own is None:
            continue
        wrong = wrong_sounds(model, clip, clips)
        figures[clip.name] = {
            "r": round(own.best.r, 3),
            "opening": round(own.parts[0], 3),
            "width": round(own.parts[-1], 3),
            "lag": own.best.lag,
            "r_sync": round(own.in_sync, 3),
            "r_wrong": round(float(np.mean([score.best.r for score in wrong])), 3),
            "r_wrong_sync": round(float(np.mean([score.in_sync for score in wrong])), 3),
            "above": round(float(np.mean([score.best.r < own.best.r for score in wrong])), 3),
        }
    return figures


def print_figures(figures: Mapping[str, Mapping[str, float]]) -> None:
    for name, row in figures.items():
        parts = f"opening {row['opening']:.2f}, width {row['width']:.2f}"
        wrong = f"wrong {row['r_wrong']:.2f} (at lag 0 {row['r_wrong_sync']:+.2f})"
        print(f"{name:20s} r {row['r']:.2f} at lag {row['lag']:+d} ({parts}), {wrong}, above {row['above']:.0%}")
    means = {key: np.mean([row[key] for row in figures.values()]) for key in ("r", "opening", "width", "r_wrong")}
    n_clear = sum(row["above"] == 1 for row in figures.values())
    text = ", ".join(f"{key} {value:.3f}" for key, value in means.items())
    print(f"mean of {len(figures)} clips, lags within ±{MAX_LAG}: {text}; above every wrong sound: {n_clear}")


def main(arguments: list[str] | None = None) -> None:
    parser = CommandParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True, help="folder of real clips whose sound fits their lips")
    parser.add_argument("--exclude", nargs="*", default=[], help="stems of clips to leave out")
    parser.add_argument("--same_speaker", nargs="+", action="append", default=[], help="stems of one person's clips")
    parser.add_argument("--out", type=Path, required=True, help=".safetensors to write")
    options = parser.parse_args(arguments)
    speakers = {stem: group[0] for group in options.same_speaker for stem in group}
    paths = [path for path in list_videos(options.clips) if path.stem not in options.exclude]
    encoder = SpeechEncoder.load()
    opened = [
        open_clip(path, speakers.get(path.stem, path.stem), encoder)
        for path in cli.progress(paths, len(paths), "clips")
    ]
    clips = [clip for clip in opened if clip is not None]
    if len({clip.speaker for clip in clips}) < 2:
        raise BadInput("too few clips", options.clips, "two speakers with sound and a face", f"{len(clips)} clips")
    model = fit_in_time(clips)
    figures = left_out_figures(model, clips)
    print_figures(figures)
    seconds = sum(len(clip.curves) for clip in clips) / MOTION_FPS
    model.save(options.out, {"left_out": json.dumps(figures), "seconds": f"{seconds:.0f}", "joygen": VERSION})
    print(f"{options.out}: {len(clips)} clips, {seconds:.0f} s")


if __name__ == "__main__":
    cli.run(main)
