"""Turn talking clips into training data: face crops, depth images, landmarks, coefficients and sound of each clip.

python -u preprocess_dataset.py --video_dir CLIPS_DIR --result_dir results/preprocessed_dataset

Each clip is one unit of work, written whole or not at all; finished clips are skipped when run again, but for folders
whose clip has another size now (shards stay as they are).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from utils.core import cli
from utils.core.errors import BadInput, StageFailure
from utils.curation.ray_queue import run_on_ray
from utils.curation.work_queue import Outcome, run_local
from utils.data.shard_writer import SHARD_MEGABYTES, WAITING_FOLDER, ShardPacker, finished_names
from utils.files.atomic import require_writable
from utils.files.work_folder import sole_run
from utils.people.speaker import add_speaker_argument
from utils.results import store
from utils.results.training_clip import is_finished
from utils.weights import packs
from utils.weights.face_options import add_face_arguments, resolve_face_pack, smoothing_of

if TYPE_CHECKING:
    from models.editing.clip_preparation import PreparationJob

MIN_FACE = 64  # pixels
MOST_WORKERS = 8  # by default; each needs about a gigabyte


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Turn talking clips into training data.")
    parser.add_argument("--video_dir", type=Path, required=True, help="folder of clips, of one talking person each")
    parser.add_argument(
        "--result_dir",
        type=Path,
        default=Path("results/preprocessed_dataset"),
        help="default results/preprocessed_dataset",
    )
    parser.add_argument("--num_workers", type=cli.at_least(1), help="clips at once; default: one per core, at most 8")
    parser.add_argument(
        "--ray_address", help="do the work on a Ray cluster: auto, host:port, or local to start one here"
    )
    parser.add_argument(
        "--ray_gpus", type=cli.non_negative, default=0.0, help="share of a GPU for each clip on the cluster"
    )
    parser.add_argument("--format", choices=("files", "shards"), default="files", help="folders, or WebDataset shards")
    parser.add_argument(
        "--shard_mb", type=cli.at_least(1), default=SHARD_MEGABYTES, help="size of a shard (default 1000)"
    )
    parser.add_argument("--keep_silent", action="store_true", help="take clips without sound too")
    parser.add_argument(
        "--min_face", type=cli.at_least(0), default=MIN_FACE, help="least side of a face, pixels (default 64)"
    )
    add_speaker_argument(parser, "person whose face is taken from each clip")
    add_face_arguments(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    paths = clip_paths(options.video_dir)
    require_writable(options.result_dir)
    job = resolve_job(options)

    with sole_run(options.result_dir, WAITING_FOLDER):
        finished = finished_names(options.result_dir)
        if options.format == "files":  # what is packed in a shard stays as it is
            finished -= {path.stem for path in paths if has_changed(path, options.result_dir)}
        units = [path for path in paths if path.stem not in finished]
        print(f"{len(paths)} clips, {len(paths) - len(units)} of them already there", flush=True)
        packer = ShardPacker(options.result_dir, [path.stem for path in units], 10**6 * options.shard_mb)
        with closing(outcomes_of(units, job, options)) as outcomes:
            failures = follow(outcomes, len(units), packer)
        n_waiting = packer.finish()

    report(failures, len(paths), n_waiting)


def clip_paths(video_dir: Path) -> list[Path]:
    """Raises BadInput if there is no clip, or two would have the same result."""
    if not video_dir.is_dir():
        raise BadInput("no such folder", video_dir, "a folder of clips", "nothing", "check --video_dir")
    from utils.media.video import VIDEO_SUFFIXES, videos_in

    paths = videos_in(video_dir)
    if not paths:
        raise BadInput("no clips", video_dir, " ".join(VIDEO_SUFFIXES), "none", "check --video_dir")
    by_name: dict[str, Path] = {}
    for path in paths:
        if by_name.setdefault(path.stem, path) != path:
            found = f"{by_name[path.stem].name} and {path.name}"
            raise BadInput("two clips of one name", video_dir, "different names", found, "rename one of them")
    return paths


def has_changed(path: Path, result_dir: Path) -> bool:
    """Whether a finished folder does not tell of this clip: one of another size, or nobody knows which."""
    folder = result_dir / path.stem
    if not is_finished(folder):
        return False
    try:
        return store.load_track_record(folder).source_bytes != path.stat().st_size
    except BadInput:
        return True


def resolve_job(options: argparse.Namespace) -> PreparationJob:
    """Says what finds and draws the faces. Raises BadInput for unusable weights, before any work is done."""
    pack = resolve_face_pack(options)
    from models.editing.clip_preparation import PreparationJob, open_analyser

    job = PreparationJob(
        pack=pack,
        result_dir=options.result_dir,
        as_shards=options.format == "shards",
        gpu_id=0 if options.ray_gpus else options.gpu_id,
        smoothing=smoothing_of(options),
        faithful=options.faithful,
        use_opengl=options.use_opengl,
        keep_silent=options.keep_silent,
        min_face=options.min_face,
        speaker=options.speaker,
    )
    print(packs.describe(pack))
    print(open_analyser(job).describe())
    return job


def outcomes_of(
    units: Sequence[Path], job: PreparationJob, options: argparse.Namespace
) -> Generator[Outcome, None, None]:
    """Prepare the clips on this machine's cores, or on a Ray cluster."""
    from models.editing.clip_preparation import prepare_clip

    work = partial(prepare_clip, job)
    if options.ray_address:
        return run_on_ray(units, work, options.ray_address, options.num_workers, options.ray_gpus)
    return run_local(units, work, options.num_workers or min(MOST_WORKERS, os.cpu_count() or 1))


def follow(outcomes: Iterable[Outcome], n_units: int, packer: ShardPacker) -> list[Outcome]:
    """Say what becomes of each clip and pack what is finished; returns the clips that are left out."""
    failures = []
    for number, outcome in enumerate(outcomes, 1):
        if outcome.stop is not None:
            raise outcome.stop
        if outcome.failure is None:
            print(f"{number}/{n_units} {outcome.unit.name}: {outcome.note}", flush=True)
        else:
            failures.append(outcome)
            print(f"{number}/{n_units} {outcome.unit.name}: left out", flush=True)
        if outcome.is_final:
            packer.settle(outcome.unit.stem)
    return failures


def report(failures: Sequence[Outcome], n_clips: int, n_waiting: int) -> None:
    """List what is left out, with the reasons; raises StageFailure if anything is."""
    for outcome in sorted(failures, key=lambda failure: failure.unit):
        print(f"left out {outcome.unit.name}: {outcome.failure}", file=sys.stderr)
    again = "" if all(outcome.is_final for outcome in failures) else "; run the same command again"
    waiting = f"; {n_waiting} finished clips wait for their shard" if n_waiting else ""
    if failures:
        raise StageFailure(f"{len(failures)} of {n_clips} clips could not be prepared, see above{waiting}{again}")


if __name__ == "__main__":
    cli.run(main)
