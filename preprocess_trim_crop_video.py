"""Cut raw videos into training clips: one face, one speaker, one shot, with speech, cropped around the face.

python preprocess_trim_crop_video.py RAW_DIR CLIPS_DIR

Each video is one unit of work; a second run skips finished ones. CLIPS_DIR/report/ lists every segment of every video
and whether it was kept or why not (stretches.csv, histograms.png).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

from utils.core import cli
from utils.core.config import Amount, Bounds, Count
from utils.core.errors import BadInput, StageFailure
from utils.core.options import Options, option, parse_options
from utils.core.types import MOTION_FPS, VideoInfo
from utils.curation import clip_choice, clip_record, clip_report
from utils.curation.clip_choice import Limits, Segment
from utils.curation.clip_record import Row, VideoRecord
from utils.curation.work_queue import default_workers, run_units
from utils.files.atomic import require_writable

WORK_PREFIX = ".work-"  # of a video's folder in CLIPS_DIR, in which its clips are written


@dataclass(frozen=True, kw_only=True)
class TrimOptions(Options):
    """Raw videos and the limits of the segments that become clips."""

    raw_dir: Path = option(positional=True, help="folder of raw videos")
    clips_dir: Path = option(positional=True, help="folder for clips and report")
    min_frames: Annotated[int, Bounds(2 * clip_choice.TRIMMED + 1)] = option(
        clip_choice.MIN_FRAMES,
        help=f"shortest segment, frames at 25 fps before {clip_choice.TRIMMED} are trimmed at each end",
    )
    min_face: Amount = option(clip_choice.MIN_FACE, help="smallest shorter side of the face box, pixels")
    max_turn: Amount = option(clip_choice.MAX_TURN, help="largest turn of the head to the side, degrees")
    min_voiced: Amount = option(
        clip_choice.VOICED_SHARE[0], help="smallest share of a segment with a voice; 0 takes silent clips too"
    )
    num_workers: Count | None = option(None, help="processes (default: half the processors)")


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(TrimOptions, "Cut raw videos into training clips with one talking face each.", arguments)
    limits = Limits(options.min_frames, options.min_face, options.max_turn, options.min_voiced)
    paths = video_paths(options.raw_dir, options.clips_dir)
    require_writable(options.clips_dir)

    failures = []
    work = partial(prepare_video, clips_dir=options.clips_dir, limits=limits)
    for number, outcome in enumerate(run_units(paths, work, options.num_workers or default_workers()), 1):
        if outcome.stop is not None:
            raise outcome.stop
        print(f"{number}/{len(paths)} {outcome.unit.name}: {outcome.note or 'left out'}", flush=True)
        if outcome.failure:
            failures.append(f"{outcome.unit.name}: {outcome.failure}")

    report(options.clips_dir, sorted(failures), len(paths))


def video_paths(raw_dir: Path, clips_dir: Path) -> list[Path]:
    if not raw_dir.is_dir():
        raise BadInput("no such folder", raw_dir, "a folder of raw videos", "nothing", "check RAW_DIR")
    if raw_dir.resolve() == clips_dir.resolve():
        raise BadInput("clips would mix with raw videos", clips_dir, advice="choose another CLIPS_DIR")
    from utils.media.video import VIDEO_SUFFIXES, videos_in

    paths = videos_in(raw_dir)
    if not paths:
        raise BadInput("no videos", raw_dir, " ".join(VIDEO_SUFFIXES), "none", "check RAW_DIR")
    return paths


def prepare_video(path: Path, clips_dir: Path, limits: Limits) -> str:
    """Survey one video and cut its clips, unless that is done already; returns a summary.

    Raises BadInput for a video that cannot be read; its record then holds the reason.
    """
    record = record_of(path, clips_dir, limits)
    if record.failure:
        raise BadInput(record.failure)
    return describe(record)


def record_of(path: Path, clips_dir: Path, limits: Limits) -> VideoRecord:
    """The record of a video, of an earlier run or new. If it cannot be read, none of its clips stays."""
    record_file = clip_record.record_path(clips_dir, path)
    old = clip_record.load_record(record_file)
    if old is not None and old.fits(path, limits) and all((clips_dir / name).is_file() for name in old.clips):
        return old
    record = VideoRecord(path.name, path.stat().st_size, limits)
    clips_dir.mkdir(parents=True, exist_ok=True)
    try:
        video, facts, segments = survey(path, limits, clips_dir)
        record = replace(record, rows=clip_record.rows_of(path, float(video.fps), segments))
        clip_record.clear_clips(clips_dir, path, old, record)
        cut_clips(video, facts, segments, clips_dir, record.clips)
        record = replace(record, is_finished=True)
    except BadInput as error:
        record = replace(record, rows=[clip_record.failed_row(path.name, str(error))], failure=str(error))
        clip_record.clear_clips(clips_dir, path, clip_record.load_record(record_file), record)
        return record
    clip_record.save_record(clips_dir, path, record)
    return record


def survey(path: Path, limits: Limits, scratch: Path) -> tuple[VideoInfo, clip_choice.VideoFacts, list[Segment]]:
    """First pass; landmarks lie in ``scratch`` meanwhile. Raises BadInput if nothing can be decoded."""
    from models.tracking.people_tracker import PeopleTracker
    from models.tracking.video_survey import SURVEY_DETECT_EVERY, survey_frames, survey_sound
    from utils.media.audio import waveform_blocks
    from utils.media.video import probe_video, read_frames

    video = probe_video(path)
    with PeopleTracker(scratch, detect_every=SURVEY_DETECT_EVERY) as tracker:
        facts = survey_frames(read_frames(path), tracker)
    sound = survey_sound(waveform_blocks(path)) if video.has_audio else None
    return video, facts, clip_choice.choose_segments(facts, sound, limits)


def cut_clips(
    video: VideoInfo, facts: clip_choice.VideoFacts, segments: Sequence[Segment], clips_dir: Path, names: Sequence[str]
) -> None:
    """Second pass: write each kept segment, trimmed and cropped, with its sound."""
    from utils.imaging.geometry import crop_box
    from utils.media.video import VideoWriter, read_frames

    work_dir = clips_dir / f"{WORK_PREFIX}{clip_record.safe_stem(video.path)}"
    shutil.rmtree(work_dir, ignore_errors=True)  # of a run that was killed
    try:
        for name, segment in zip(names, filter(lambda one: one.is_kept, segments), strict=True):
            frames = segment.trimmed
            crop = clip_choice.crop_of(facts, frames)
            with VideoWriter(
                work_dir / name,
                audio_path=video.path if video.has_audio else None,
                audio_start=frames.start / MOTION_FPS,
                picture=video.picture,
            ) as writer:
                for frame in read_frames(video.path, start=frames.start, stop=frames.stop):
                    writer.write(crop_box(frame, crop))
            (work_dir / name).replace(clips_dir / name)
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)


def describe(record: VideoRecord) -> str:
    if not record.clips:
        return f"nothing kept: {clip_report.main_reason(record.rows)}"
    seconds = sum(row.clip_frames for row in record.rows) / MOTION_FPS
    return f"{len(record.clips)} clips, {seconds:.1f} s, out of {len(record.rows)} segments"


def report(clips_dir: Path, failures: Sequence[str], n_videos: int) -> None:
    """Write the report on all of CLIPS_DIR. Raises StageFailure if a video could not be read or no clip is there."""
    rows: list[Row] = [row for record in clip_record.load_records(clips_dir) for row in record.rows]
    folder = clip_report.write_report(clips_dir, rows)
    n_clips, seconds = sum(bool(row.clip) for row in rows), sum(row.clip_frames for row in rows) / MOTION_FPS
    print(f"{folder}: {n_clips} clips, {seconds / 60:.1f} minutes, out of {len(rows)} segments")
    for line in failures:
        print(f"left out {line}", file=sys.stderr)
    if failures:
        raise StageFailure(f"{len(failures)} of {n_videos} videos could not be prepared, see above")
    if not n_clips:
        raise StageFailure(f"no clip was kept ({folder / clip_report.TABLE_NAME} says why)")


if __name__ == "__main__":
    cli.run(main)
