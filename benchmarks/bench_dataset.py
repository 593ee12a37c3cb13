"""Cost of preparing, storing and reading training data, as folders of files and as shards.

    OMP_NUM_THREADS=1 python -m benchmarks.bench_dataset DATA_DIR --clips CLIP.mp4 ...

DATA_DIR holds clips that preprocess_dataset.py wrote as files; they are packed into shards in a temporary folder beside
it. Reading is random in (clip, frame), as training does it: a face, its depth image and its landmarks, by one process.
"Cold" frames are not in the system's page cache (it is dropped before), "bytes" are not decoded. CPU seconds are those
of all threads, so other work on the machine does not count; video has 25 frames per second.
"""

from __future__ import annotations

import itertools
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measuring import Stopwatch
from models.editing.clip_preparation import PreparationJob, load_speech, open_analyser, write_clip
from models.tracking.clip_tracking import open_tracker
from models.tracking.face_tracker import track_face
from utils.core import cli
from utils.core.config import Amount, Count
from utils.core.options import Options, option, parse_options
from utils.core.types import MOTION_FPS
from utils.data.clips import clip_folders, clip_names, open_clips
from utils.data.shard_writer import ShardPacker, pack_clip, waiting_path
from utils.files.arrays import StoredPath
from utils.media.video import probe_video, read_frames
from utils.results.store import depth_path, face_path
from utils.weights import packs

FRAMES_PER_HOUR = 3600 * MOTION_FPS
STEP_COLD = 5  # every fifth frame is read cold, once
ALONE = "decoding alone (also part of the next row)"
BLOCK = 4096  # bytes, the file system's block size


@dataclass(frozen=True, kw_only=True)
class DatasetOptions(Options):
    """Training data, and how long its reading is measured."""

    data_dir: Path = option(positional=True, help="clips as files, from preprocess_dataset.py")
    clips: tuple[Path, ...] = option((), help="videos for the measurement of preparation")
    seconds: Amount = option(4.0, help="seconds that each reading is repeated")
    shard_mb: Count = option(1000, help="size of a shard, megabytes")


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(DatasetOptions, "Benchmark preparation and storage of training data.", arguments)
    cli.quiet_third_party_logs()
    with tempfile.TemporaryDirectory(dir=options.data_dir.parent) as name:
        shard_dir, packing = Path(name), Stopwatch(time.process_time)
        with packing.running("packing"):
            pack_all(options.data_dir, shard_dir, 10**6 * options.shard_mb)
        print_storage({"files": options.data_dir, "shards": shard_dir}, options.seconds)
    if options.clips:
        n_frames = sum(len(clip) for clip in open_clips(options.data_dir, clip_names(options.data_dir)))
        print_preparation(options.clips, packing.seconds["packing"] / n_frames * MOTION_FPS)


def pack_all(data_dir: Path, shard_dir: Path, shard_bytes: int) -> None:
    names = clip_names(data_dir)
    packer = ShardPacker(shard_dir, names, shard_bytes)
    for name in names:
        pack_clip(data_dir / name, name, waiting_path(shard_dir, name))
        packer.settle(name)
    packer.finish()


def print_storage(places: dict[str, Path], seconds: float) -> None:
    rows: dict[str, list[str]] = {}
    for place in places.values():
        names = clip_names(place)
        files = [path for path in place.rglob("*") if path.is_file()]
        sizes = [path.stat().st_size for path in files]
        blocks = sum(-(-size // BLOCK) for size in sizes)
        start = time.process_time()
        clips = open_clips(place, names)
        opening = (time.process_time() - start) / len(names)
        hours = sum(len(clip) for clip in clips) / FRAMES_PER_HOUR
        frames = [(i, int(frame)) for i, clip in enumerate(clips) for frame in np.flatnonzero(clip.valid)]
        folders = [clip_folders(place)[name] for name in names]
        values = {
            "clips, hours measured": f"{len(names)}, {hours:.3f}",
            "files per hour of video": f"{len(files) / hours:,.0f}",
            "GB per hour": f"{sum(sizes) / hours / 1e9:.2f}",
            f"GB per hour in blocks of {BLOCK} bytes": f"{blocks * BLOCK / hours / 1e9:.2f}",
            "opening a clip, CPU ms": f"{1000 * opening:.2f}",
        }
        ways: dict[str, Callable[[int, int], object]] = {
            "decoded": lambda i, frame, c=clips: (c[i].faces[frame], c[i].depths[frame], c[i].landmarks[frame]),
            "bytes": lambda i, frame, f=folders: read_bytes(f[i], frame),
        }
        for way, read in ways.items():
            values[f"random frames per CPU second, {way}"] = f"{rate(read, frames, seconds, time.process_time):,.0f}"
        forget(files)
        cold = rate(ways["bytes"], frames[::STEP_COLD], math.inf, time.perf_counter)
        values["random frames per second, bytes, cold"] = f"{cold:,.0f}"
        for row, value in values.items():
            rows.setdefault(row, []).append(value)
    print(f"| | {' | '.join(places)} |\n|---|{'---|' * len(places)}")
    for row, cells in rows.items():
        print(f"| {row} | {' | '.join(cells)} |")


def read_bytes(folder: StoredPath, frame: int) -> int:
    n_bytes = 0
    for path in (face_path(folder, frame), depth_path(folder, frame)):
        with path.open("rb") as file:
            n_bytes += len(file.read())
    return n_bytes


def rate(
    read: Callable[[int, int], object],
    frames: Sequence[tuple[int, int]],
    seconds: float,
    clock: Callable[[], float],
) -> float:
    """Frames per second of ``clock`` in random order, repeated for ``seconds``; infinite: each frame once."""
    order = [frames[index] for index in np.random.default_rng(0).permutation(len(frames))]
    n_read, start = 0, clock()
    for place in order if math.isinf(seconds) else itertools.cycle(order):
        read(*place)
        n_read += 1
        if clock() - start > seconds:
            break
    return n_read / (clock() - start)


def forget(files: Sequence[Path]) -> None:
    """Drop the files from the page cache."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def print_preparation(paths: Sequence[Path], packing: float) -> None:
    """packing: CPU seconds per second of video, measured before."""
    start = time.process_time()
    job = PreparationJob(packs.mini_pack(), Path())
    open_analyser(job)
    opening = time.process_time() - start
    measure_clip(paths[0], job, Stopwatch(time.process_time))  # compiles the rasteriser
    cost = Stopwatch(time.process_time)
    n_frames = sum(measure_clip(path, job, cost) for path in paths)
    per_second = MOTION_FPS / n_frames
    print("\n| step | CPU seconds per second of video |\n|---|---|")
    for step, seconds in cost.seconds.items():
        print(f"| {step} | {seconds * per_second:.3f} |")
    print(f"| packing into shards | {packing:.3f} |")
    total = sum(seconds for step, seconds in cost.seconds.items() if step != ALONE)
    print(f"| **together** | **{total * per_second + packing:.3f}** |")
    print(
        f"\n{len(paths)} clips, {n_frames / MOTION_FPS:.0f} s; each process first opens the face model: {opening:.1f} s"
    )


def measure_clip(path: Path, job: PreparationJob, cost: Stopwatch) -> int:
    """Prepare one clip step by step; returns its frames."""
    analyser, video = open_analyser(job), probe_video(path)
    with cost.running("sound"):
        wave = load_speech(path, keep_silent=False)
    with cost.running(ALONE):
        n_frames = sum(1 for _ in read_frames(path))
    with cost.running("decoding and face tracking"), open_tracker(job.pack, cli.resolve_device(-1)) as tracker:
        track = track_face(read_frames(path), tracker, job.smoothing)
    with cost.running("coefficients, fitted to landmarks"):
        clip = analyser.fit(track, lambda: read_frames(path), (video.width, video.height))
    with cost.running("decoding again, depth, crops, JPEG and PNG"), tempfile.TemporaryDirectory() as folder:
        write_clip(Path(folder), video, clip, analyser, wave, job.pack.name)
    return n_frames


if __name__ == "__main__":
    cli.run(main)
