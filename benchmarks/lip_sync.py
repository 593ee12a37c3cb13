"""Lip sync of generated clips: correlation of the mouth's opening with the motion and with the original clip.

    python -m benchmarks.lip_sync CLIPS_DIR --clips menendez vr4 --work_dir work/lip_sync

Each clip is generated three times: from its own sound, from the next clip's sound (floor) and with a still mouth
(floor). The output is tracked with MediaPipe. Columns, all Pearson correlations of the inner-lip opening over the eye
distance:

    follows   output against the fitted mesh with the new expression, same frame (own sound)
    own       output against the original clip, best lag within +-2 frames; `lag` is the best within +-9
    wrong, still   the same against the original clip for the two floors, best within +-2
    motion    stage 1's motion alone (mesh opening) against the original, best within +-2
    amount, still amount   not correlations: deviation of the output's opening over the original's

A correlation does not depend on the size of a movement, so a still mouth's figure has to be read with its amount:
traces of the source's own mouth remain, more so if the frame itself is its reference (--reference same).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models.pipeline.edit_stage import edit_clip
from models.pipeline.motion_stage import make_motion
from models.pipeline.pipeline_options import PipelineOptions
from models.pipeline.talk_stage import draw_talk
from models.tracking.face_tracker import MediaPipeTracker, track_face
from utils.core import cli
from utils.core.config import Amount
from utils.core.monitor import TerminalMonitor
from utils.core.options import Options, option, parse_options
from utils.media.video import read_frames
from utils.metrics.mouth_motion import best_lag, correlation, mouth_opening
from utils.results import store

NEAR_LAG, FAR_LAG = 2, 9  # frames


@dataclass(frozen=True)
class Talk:
    """Mouth openings per output frame: tracked in the output, projected from the mesh, tracked in the source."""

    output: np.ndarray
    mesh: np.ndarray
    source: np.ndarray


def make_talk(options: PipelineOptions, still: bool = False) -> Talk:
    """Run the three stages and measure the openings of frames with a face in all three."""
    make_motion(options.motion, TerminalMonitor())
    if still:
        motion = store.load_motion(options.motion.motion_path)
        store.save_motion(options.motion.motion_path, np.repeat(motion.mean(0, keepdims=True), len(motion), axis=0))
    edit = edit_clip(options.edit, TerminalMonitor())
    talk = draw_talk(options.talk, TerminalMonitor())
    return compare(talk.path, options.talk.video_path, edit)


def compare(talk_path: Path, clip: Path, edit: store.EditResult) -> Talk:
    output, output_valid = tracked_opening(talk_path)
    source, source_valid = tracked_opening(clip)
    n = min(len(output), len(edit), len(source))
    usable = output_valid[:n] & source_valid[:n] & edit.valid[:n]
    return Talk(output[:n][usable], mouth_opening(edit.landmarks[:n])[usable], source[:n][usable])


def tracked_opening(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with MediaPipeTracker() as tracker:
        track = track_face(read_frames(path), tracker, "none")
    return mouth_opening(track.landmarks), track.valid


def table_row(clip: Path, wrong_speech: Path, work_dir: Path, flags: dict[str, Any]) -> dict[str, float]:
    own = make_talk(PipelineOptions.of(clip, clip, work_dir / "own", flags))
    wrong = make_talk(PipelineOptions.of(wrong_speech, clip, work_dir / "wrong", flags))
    still = make_talk(PipelineOptions.of(clip, clip, work_dir / "still", flags), still=True)
    return {
        "follows": correlation(own.output, own.mesh),
        "own": best_lag(own.output, own.source, NEAR_LAG).r,
        "lag": best_lag(own.output, own.source, FAR_LAG).lag,
        "wrong": best_lag(wrong.output, wrong.source, NEAR_LAG).r,
        "still": best_lag(still.output, still.source, NEAR_LAG).r,
        "motion": best_lag(own.mesh, own.source, NEAR_LAG).r,
        "amount": own.output.std() / own.source.std(),
        "still amount": still.output.std() / still.source.std(),
    }


@dataclass(frozen=True, kw_only=True)
class LipSyncOptions(Options):
    """Clips, and how they are generated."""

    clips_dir: Path = option(positional=True, help="folder of clips")
    clips: tuple[str, ...] = option(help="stems of the clips to measure")
    work_dir: Path = option(Path("work/lip_sync"), help="folder of the generated clips")
    temperature: Amount = option(0.2, help="temperature of stage 1")
    reference: Literal["auto", "same"] = option("auto", help="reference of stage 3 (default: auto)")


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(LipSyncOptions, "Measure the lip sync of generated clips.", arguments)
    flags = {"temperature": options.temperature, "reference": options.reference, "debug": True}
    paths = [options.clips_dir / f"{stem}.mp4" for stem in options.clips]
    rows = {}
    for path, wrong in zip(paths, paths[1:] + paths[:1], strict=True):
        rows[path.stem] = table_row(path, wrong, options.work_dir, flags)
    names = list(next(iter(rows.values())))
    print(f"| clip | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for stem, row in rows.items():
        print(f"| {stem} | {' | '.join(f'{row[name]:.2f}' for name in names)} |")
    print(f"| median | {' | '.join(f'{np.median([row[n] for row in rows.values()]):.2f}' for n in names)} |")


if __name__ == "__main__":
    cli.run(main)
