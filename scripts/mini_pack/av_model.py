"""Fit the model of audio-visual agreement, evaluate.py's sync measure.

    python -m scripts.mini_pack.av_model --clips CLIPS_DIR --out pretrained_models/mini/av_agreement.safetensors \
        --same_speaker lieu_a lieu_b --same_speaker vox_00104 vox_741400163

Ridge regression from log-mel windows to the opening of the inner lips, on every clip with sound and a face. For every
speaker the weights of a fit without that speaker's clips are stored too and judge these clips; the leave-one-out
figures are printed and stored with the model. Clips whose lag by a first fit is reliable are shifted by it before the
final fit.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.lipsync.av_agreement import (
    Agreement,
    AvModel,
    SpeakingClip,
    agreement,
    fit_av_model,
    rolled,
    sound_features,
)
from models.tracking.face_tracker import MediaPipeTracker, track_face
from utils.core import cli
from utils.core.errors import BadInput
from utils.core.options import CommandParser
from utils.core.types import MOTION_FPS, VERSION
from utils.media.audio import has_audio, load_waveform
from utils.media.video import read_frames
from utils.metrics.clip_pairs import list_videos
from utils.metrics.mouth_motion import mouth_opening

FIRM_R, FIRM_LAG = 0.35, 5  # smallest correlation and largest lag in frames of a reliable estimate
MIN_SECONDS = 2.0


def open_clip(path: Path, speaker: str) -> SpeakingClip | None:
    """Track a clip; None if it has no sound or no face for two seconds."""
    if not has_audio(path):
        return None
    with MediaPipeTracker() as tracker:
        track = track_face(read_frames(path), tracker, "none")
    if track.valid.sum() < MIN_SECONDS * MOTION_FPS:
        return None
    opening = mouth_opening(track.landmarks)
    return SpeakingClip(path.stem, speaker, sound_features(load_waveform(path), len(track)), opening, track.valid)


def scores(model: AvModel, clips: list[SpeakingClip]) -> dict[str, tuple[Agreement, float]]:
    """Agreement of each clip by the weights fitted without its speaker, and mean r at lag 0 with shifted sound."""
    found = {}
    for clip in clips:
        predicted = model.predict(clip.features, without=clip.speaker)
        tracked = np.where(clip.valid, clip.opening, np.nan)
        own = agreement(tracked, predicted)
        wrong = [agreement(tracked, late) for late in rolled(predicted)]
        if own is not None:
            found[clip.name] = own, float(np.mean([score.in_sync for score in wrong if score is not None]))
    return found


def in_time(clip: SpeakingClip, lag: int) -> SpeakingClip:
    """Move the lips ``lag`` frames earlier."""
    if lag == 0:
        return clip
    n = len(clip.opening) - abs(lag)
    lips = slice(max(lag, 0), max(lag, 0) + n)
    sound = slice(max(-lag, 0), max(-lag, 0) + n)
    return replace(clip, features=clip.features[sound], opening=clip.opening[lips], valid=clip.valid[lips])


def main(arguments: list[str] | None = None) -> None:
    parser = CommandParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True, help="folder of real clips whose sound fits their lips")
    parser.add_argument("--exclude", nargs="*", default=[], help="stems of clips to leave out")
    parser.add_argument("--same_speaker", nargs="+", action="append", default=[], help="stems of one person's clips")
    parser.add_argument("--out", type=Path, required=True, help=".safetensors to write")
    options = parser.parse_args(arguments)
    speakers = {stem: group[0] for group in options.same_speaker for stem in group}
    paths = [path for path in list_videos(options.clips) if path.stem not in options.exclude]
    opened = [open_clip(path, speakers.get(path.stem, path.stem)) for path in cli.progress(paths, len(paths), "clips")]
    clips = [clip for clip in opened if clip is not None]
    if len({clip.speaker for clip in clips}) < 2:
        raise BadInput("too few clips", options.clips, "two speakers with sound and a face", f"{len(clips)} clips")
    model, figures = fit_in_time(clips)
    seconds = sum(len(clip.opening) for clip in clips) / MOTION_FPS
    model.save(options.out, {"left_out": json.dumps(figures), "seconds": f"{seconds:.0f}", "joygen": VERSION})
    rs = np.array([row["r"] for row in figures.values()])
    print(f"{options.out}: {len(clips)} clips, {seconds:.0f} s; r of speakers left out: median {np.median(rs):.2f}")


def fit_in_time(clips: list[SpeakingClip]) -> tuple[AvModel, dict[str, dict[str, float]]]:
    """Fit twice, the second time with the lags removed; the figures are of the unshifted clips."""
    first = scores(fit_av_model(clips), clips)
    lags = {
        name: own.best.lag for name, (own, _) in first.items() if own.best.r >= FIRM_R and abs(own.best.lag) <= FIRM_LAG
    }
    model = fit_av_model([in_time(clip, lags.get(clip.name, 0)) for clip in clips])
    figures = {}
    for name, (own, wrong) in scores(model, clips).items():
        figures[name] = {"r": round(own.best.r, 3), "lag": own.best.lag, "r_sync": round(own.in_sync, 3)}
        figures[name]["r_wrong"] = round(wrong, 3)
        print(f"{name:20s} r {own.best.r:.2f} at lag {own.best.lag:+d}, in sync {own.in_sync:.2f}, wrong {wrong:+.2f}")
    return model, figures


if __name__ == "__main__":
    cli.run(main)
