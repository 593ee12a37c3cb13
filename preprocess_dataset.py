"""Turn talking clips into training data: face crops, depth images, landmarks, coefficients and sound of each clip.

python -u preprocess_dataset.py --video_dir CLIPS_DIR --result_dir results/preprocessed_dataset

Each clip is one unit of work, written whole or not at all; finished clips are skipped when run again, but for folders
whose clip has another size now (shards stay as they are).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from models.pipeline.options import FaceOptions
from utils.core import cli
from utils.core.config import Amount, Count, Whole
from utils.core.errors import BadInput, StageFailure
from utils.core.options import option, parse_options
from utils.curation.ray_queue import run_on_ray
from utils.curation.work_queue import Outcome, run_local
from utils.data.shard_writer import SHARD_MEGABYTES, WAITING_FOLDER, ShardPacker, finished_names
from utils.files.atomic import require_writable
from utils.files.work_folder import sole_run
from utils.results import store
from utils.results.training_clip import is_finished
from utils.weights import packs

if TYPE_CHECKING:
    from models.editing.clip_preparation import PreparationJob

MIN_FACE = 64  # pixels
MOST_WORKERS = 8  # by default; each needs about a gigabyte


@dataclass(frozen=True, kw_only=True)
class DatasetOptions(FaceOptions):
    """Clips and how they become training data."""

    video_dir: Path = option(help="folder of clips, each of one talking person")
    result_dir: Path = option(Path("results/preprocessed_dataset"), help="folder of the training data")
    num_workers: Count | None = option(None, help="clips at once (default: one per core, at most 8)")
    ray_address: str | None = option(
        None, help="Ray cluster that does the work: auto, host:port, or local to start one here"
    )
    ray_gpus: Amount = option(0.0, help="share of a GPU for each clip on the cluster")
    format: Literal["files", "shards"] = option("files", help="form of the data: folders, or WebDataset shards")
    shard_mb: Count = option(SHARD_MEGABYTES, help="size of a shard, megabytes")
    keep_silent: bool = option(False, help="take clips without sound too")
    min_face: Whole = option(MIN_FACE, help="least side of a face, pixels")

    @property
    def n_workers(self) -> int:
        return self.num_workers or min(MOST_WORKERS, os.cpu_count() or 1)


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(DatasetOptions, "Turn talking clips into training data.", arguments)
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


def resolve_job(options: DatasetOptions) -> PreparationJob:
    """How faces are found and rendered. Raises BadInput for unusable weights, before any work is done."""
    pack = options.resolve_pack()
    from models.editing.clip_preparation import PreparationJob, open_analyser

    job = PreparationJob(
        pack=pack,
        result_dir=options.result_dir,
        as_shards=options.format == "shards",
        gpu_id=0 if options.ray_gpus else options.gpu_id,
        smoothing=options.resolved_smoothing,
        faithful=options.faithful,
        use_opengl=options.use_opengl,
        keep_silent=options.keep_silent,
        min_face=options.min_face,
        speaker=options.speaker,
    )
    print(packs.describe(pack))
    print("\n".join([open_analyser(job).describe(), *options.notes()]))
    return job


def outcomes_of(units: Sequence[Path], job: PreparationJob, options: DatasetOptions) -> Generator[Outcome, None, None]:
    """Prepare the clips on this machine's cores, or on a Ray cluster."""
    from models.editing.clip_preparation import prepare_clip

    work = partial(prepare_clip, job)
    if options.ray_address:
        return run_on_ray(units, work, options.ray_address, options.num_workers, options.ray_gpus)
    return run_local(units, work, options.n_workers)


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
