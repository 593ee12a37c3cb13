"""What the pipeline costs: speed of every step, seconds per second of video, start-up time and peak memory.

    python -m benchmarks.bench_pipeline demo/portrait.mp4 demo/speech.wav

Runs the three stages as their commands do, then the steps one by one on the first frames of the clip, and prints one
Markdown table. Each step runs alone here; the commands overlap some of them.
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from benchmarks.measuring import run_python
from models.pipeline.pipeline_options import PipelineOptions
from utils.core import cli
from utils.core.config import Count
from utils.core.options import option, parse_options
from utils.core.types import MOTION_FPS, FaceTrack
from utils.results import store
from utils.weights import packs

if TYPE_CHECKING:
    import torch

    from models.editing.clip_analysis import FaceAnalyser, ReconstructedClip

T = TypeVar("T")

N_HELP_RUNS = 3
BATCH_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions(cli.DeviceOptions):
    """A clip and the speech that it is given."""

    clip: Path = option(positional=True, help="clip to edit")
    speech: Path = option(positional=True, help="speech")

    def stages(self, result_dir: Path, **flags: object) -> PipelineOptions:
        return PipelineOptions.of(self.speech, self.clip, result_dir, {"gpu_id": self.gpu_id, **flags})


@dataclass(frozen=True, kw_only=True)
class StepOptions(BenchmarkOptions):
    """How much of the clip the steps see."""

    frames: Count = option(100, help="frames of the clip for the steps one by one")


@dataclass(frozen=True)
class Row:
    """One line of the table; None where a column does not apply."""

    name: str
    n_frames: int
    seconds: float
    peak_mebibytes: float | None = None
    startup_seconds: float | None = None

    def __str__(self) -> str:
        cells = [f"{self.n_frames / self.seconds:.1f}", f"{self.seconds / self.n_frames * MOTION_FPS:.2f}"]
        cells.append("" if self.peak_mebibytes is None else f"{self.peak_mebibytes:.0f}")
        cells.append("" if self.startup_seconds is None else f"{self.startup_seconds:.2f}")
        return f"| {self.name} | {' | '.join(cells)} |"


def main(arguments: list[str] | None = None) -> None:
    report(parse_options(StepOptions, "Benchmark the three stages and their steps.", arguments))


def report(options: StepOptions) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        work_dir = Path(folder)
        stages = list(bench_stages(options, work_dir))  # first: a child's peak memory counts what its parent held
        steps = bench_steps(options, work_dir)
    print(describe_machine(options))
    print("\n| | frames/s | s per s of video | peak MiB | start-up s |\n|---|---|---|---|---|")
    for row in (stages[0], stages[1], *steps[:3], stages[2], *steps[3:], *stages[3:]):
        print(row)


def bench_stages(options: StepOptions, work_dir: Path) -> Iterator[Row]:
    """Rows of the three commands, of the three together, and of all stages in one process."""
    stages = options.stages(work_dir)
    together = [options.speech, options.clip, work_dir / "together", "--gpu_id", options.gpu_id]
    rows = []
    for script, words in {**stages.commands(), "inference_pipeline.py": together}.items():
        startup = statistics.median(run_python([script, "--help"]).seconds for _ in range(N_HELP_RUNS))
        run = run_python([script, *words])
        n_frames = len(store.load_motion(stages.motion.motion_path))
        rows.append(Row(f"**{script}**", n_frames, run.seconds, run.mebibytes, startup))
    *apart, whole = rows
    yield from apart
    yield Row(
        "**all three**",
        n_frames,
        sum(row.seconds for row in apart),
        max(row.peak_mebibytes for row in apart),
        sum(row.startup_seconds for row in apart),
    )
    yield whole


def bench_steps(options: StepOptions, work_dir: Path) -> list[Row]:
    """The steps one by one, in this process, on frames that are already decoded."""
    from utils.media.video import read_frames

    frames = list(read_frames(options.clip, stop=options.frames))
    edit = store.load_edit(store.edit_dir(options.stages(work_dir).edit.result_dir, options.clip, options.speech))
    return [*bench_geometry(frames), *bench_networks(options, frames, edit, work_dir)]


def bench_geometry(frames: list[np.ndarray]) -> Iterator[Row]:
    import torch

    from models.editing.clip_analysis import load_analyser
    from models.tracking.face_tracker import MediaPipeTracker, track_face

    analyser = load_analyser(packs.resolve_pack(), torch.device("cpu"))
    size = (frames[0].shape[1], frames[0].shape[0])
    with MediaPipeTracker() as tracker:
        tracker(frames[0])
        track, seconds = timed(lambda: track_face(frames, tracker))
    yield Row("– tracking", len(frames), seconds)
    start = FaceTrack(track.landmarks[:2], track.boxes[:2], track.valid[:2], track.five_points[:2])
    analyser.fit(start, lambda: iter(frames), size)  # compiles
    clip, seconds = timed(lambda: analyser.fit(track, lambda: iter(frames), size))
    yield Row("– coefficients of the face model", int(clip.track.valid.sum()), seconds)
    render_all(analyser, clip, 1)  # compiles
    n_rendered, seconds = timed(lambda: render_all(analyser, clip))
    yield Row("– rendering depth", n_rendered, seconds)


def render_all(analyser: FaceAnalyser, clip: ReconstructedClip, n_most: int | None = None) -> int:
    indices = np.flatnonzero(clip.track.valid)[:n_most]
    for index in indices:
        analyser.render_face(clip.coeffs[index], clip.alignments[index], clip.track.boxes[index])
    return len(indices)


def bench_networks(
    options: StepOptions, frames: list[np.ndarray], edit: store.EditResult, work_dir: Path
) -> Iterator[Row]:
    import torch

    from models.generation.face_crops import FaceEdit, SourceFrame, prepare_crop
    from models.generation.face_pasting import paste
    from models.generation.talking_face import load_talking_face
    from utils.imaging.images import stack_gray, stack_images
    from utils.media.video import VideoWriter
    from utils.media.windows import WINDOW_ROWS

    pack, device = packs.resolve_pack(), options.device
    talking_face, encoder = load_talking_face(
        pack.unet, pack.vae, pack.whisper, pack.image_size, device, cli.resolve_dtype(device)
    )
    rows = np.flatnonzero(edit.valid[: len(frames)])[:BATCH_SIZE]
    edits = [FaceEdit(edit.boxes[i], edit.landmarks[i], edit.source_landmarks[i], edit.depth(i)) for i in rows]
    prepared = [prepare_crop(frames[i], face, pack.image_size) for i, face in zip(rows, edits, strict=True)]
    faces, depths = stack_images([face.crop for face in prepared]), stack_gray([face.depth for face in prepared])
    audio = torch.zeros(len(rows), WINDOW_ROWS * encoder.n_states, encoder.width)
    n_batches = max(1, options.frames // len(rows))
    latents, seconds = repeated(lambda: talking_face.encode(faces, depths), n_batches, device)
    yield Row("– VAE encode", n_batches * len(rows), seconds)
    predicted, seconds = repeated(lambda: talking_face.generate(latents, audio), n_batches, device)
    yield Row("– UNet", n_batches * len(rows), seconds)
    generated, seconds = repeated(lambda: talking_face.decode(predicted), n_batches, device)
    yield Row("– VAE decode", n_batches * len(rows), seconds)
    sources = [SourceFrame(frames[i], face) for i, face in zip(rows, edits, strict=True)]
    start = time.perf_counter()
    with VideoWriter(work_dir / "bench.mp4", MOTION_FPS, options.speech) as writer:
        for i in range(len(frames)):
            face = i % len(rows)
            writer.write(paste(sources[face], prepared[face], generated[face])[0])
    yield Row("– blend and video encode", len(frames), time.perf_counter() - start)


def repeated(work: Callable[[], T], n_times: int, device: torch.device) -> tuple[T, float]:
    """The result of one batch, and the seconds that ``n_times`` more of them take."""
    import torch

    result = work()

    def repeat() -> None:
        for _ in range(n_times):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return result, timed(repeat)[1]


def timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def describe_machine(options: StepOptions) -> str:
    import torch

    from utils.media.video import probe_video

    device = options.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    video = probe_video(options.clip)
    numbers = str(cli.resolve_dtype(device)).removeprefix("torch.")
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {numbers}, {packs.resolve_pack().name} "
        f"pack; {options.clip.name} {video.width}x{video.height}, {options.speech.name}"
    )


def processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    cli.run(main)
