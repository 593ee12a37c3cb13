"""What the pipeline costs: speed of every step, seconds per second of video, start-up time and peak memory.

    python -m benchmarks.bench_pipeline demo/portrait.mp4 demo/speech.wav

Runs the three stages as their commands do, then the steps one by one on the first frames of the clip, and prints one
Markdown table. Each step runs alone here; the commands overlap some of them.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from utils.core import cli
from utils.core.errors import StageFailure
from utils.core.types import MOTION_FPS, FaceTrack
from utils.results import store
from utils.weights import packs

if TYPE_CHECKING:
    import torch

    from models.editing.clip_analysis import FaceAnalyser, ReconstructedClip

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("inference_audio2motion.py", "inference_edit_expression.py", "inference_joygen.py")
N_HELP_RUNS = 3
KILOBYTE = 1 if sys.platform == "darwin" else 1024  # unit of ru_maxrss in bytes
MEBIBYTE = 1024 * 1024
BATCH_SIZE = 8


@dataclass(frozen=True)
class Row:
    """One line of the table; None where a column does not apply."""

    name: str
    frames_per_second: float | None = None
    seconds_per_second: float | None = None
    peak_mebibytes: float | None = None
    startup_seconds: float | None = None

    def __str__(self) -> str:
        cells = (
            _cell(self.frames_per_second, ".1f"),
            _cell(self.seconds_per_second, ".2f"),
            _cell(self.peak_mebibytes, ".0f"),
            _cell(self.startup_seconds, ".2f"),
        )
        return f"| {self.name} | {' | '.join(cells)} |"


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Benchmark the three stages and their steps.")
    parser.add_argument("clip", type=Path)
    parser.add_argument("speech", type=Path)
    parser.add_argument("--frames", type=int, default=100, help="of the clip, for the steps one by one (default 100)")
    cli.add_device_argument(parser)
    report(parser.parse_args(arguments))


def report(options: argparse.Namespace) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        work_dir = Path(folder)
        stages = list(bench_stages(options, work_dir))  # first: a child's peak memory counts what its parent held
        steps = bench_steps(options, work_dir)
    print(describe_machine(options))
    print("\n| | frames/s | s per s of video | peak MiB | start-up s |\n|---|---|---|---|---|")
    for row in (stages[0], stages[1], *steps[:3], stages[2], *steps[3:], *stages[3:]):
        print(row)


def bench_stages(options: argparse.Namespace, work_dir: Path) -> Iterator[Row]:
    """Run the commands; a row for each and one for all together."""
    motion_path = work_dir / f"{options.speech.stem}.npy"
    commands = (
        ["--drv_aud", options.speech, "--result_dir", work_dir, "--exp_file", motion_path.name],
        ["--infer_video_path", options.clip, "--infer_exp_coeff_path", motion_path, "--infer_result_dir", work_dir],
        ["--audio_path", options.speech, "--video_path", options.clip, "--intermediate_dir", work_dir,
         "--result_dir", work_dir, "--enable_pose_driven", "--gpu_id", options.gpu_id],
    )  # fmt: skip
    n_frames, rows = 0, []
    for script, flags in zip(STAGES, commands, strict=True):
        startup = statistics.median(run_stage(script, ["--help"])[0] for _ in range(N_HELP_RUNS))
        seconds, peak = run_stage(script, flags)
        n_frames = n_frames or len(store.load_motion(motion_path))
        video_seconds = n_frames / MOTION_FPS
        rows.append(Row(f"**{script}**", n_frames / seconds, seconds / video_seconds, peak, startup))
        yield rows[-1]
    yield Row(
        "**all three**",
        1 / sum(1 / row.frames_per_second for row in rows),
        sum(row.seconds_per_second for row in rows),
        max(row.peak_mebibytes for row in rows),
        sum(row.startup_seconds for row in rows),
    )
    yield bench_together(options, work_dir, video_seconds)


def bench_together(options: argparse.Namespace, work_dir: Path, video_seconds: float) -> Row:
    """The three stages in one process."""
    script = "inference_pipeline.py"
    startup = statistics.median(run_stage(script, ["--help"])[0] for _ in range(N_HELP_RUNS))
    flags = [options.speech, options.clip, work_dir / "together", "--gpu_id", options.gpu_id]
    seconds, peak = run_stage(script, flags)
    frames_per_second = video_seconds * MOTION_FPS / seconds
    return Row(f"**{script}**", frames_per_second, seconds / video_seconds, peak, startup)


def run_stage(script: str, flags: list[object]) -> tuple[float, float]:
    """Seconds and peak memory in MiB of one command."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, ROOT / script, *map(str, flags)], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise StageFailure(f"{script} failed: {log.read().decode(errors='replace').strip()[-400:]}")
    return seconds, usage.ru_maxrss * KILOBYTE / MEBIBYTE


def bench_steps(options: argparse.Namespace, work_dir: Path) -> list[Row]:
    """The steps one by one, in this process, on frames that are already decoded."""
    from utils.media.video import read_frames

    frames = list(read_frames(options.clip, stop=options.frames))
    edit = store.load_edit(store.edit_dir(work_dir, options.clip, options.speech))
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
    yield step("tracking", len(frames), seconds)
    start = FaceTrack(track.landmarks[:2], track.boxes[:2], track.valid[:2], track.five_points[:2])
    analyser.fit(start, lambda: iter(frames), size)  # compiles
    clip, seconds = timed(lambda: analyser.fit(track, lambda: iter(frames), size))
    yield step("coefficients of the face model", int(clip.track.valid.sum()), seconds)
    draw_all(analyser, clip, 1)  # compiles
    n_drawn, seconds = timed(lambda: draw_all(analyser, clip))
    yield step("drawing depth", n_drawn, seconds)


def draw_all(analyser: FaceAnalyser, clip: ReconstructedClip, n_most: int | None = None) -> int:
    indices = np.flatnonzero(clip.track.valid)[:n_most]
    for index in indices:
        analyser.render_face(clip.coeffs[index], clip.alignments[index], clip.track.boxes[index])
    return len(indices)


def bench_networks(
    options: argparse.Namespace, frames: list[np.ndarray], edit: store.EditResult, work_dir: Path
) -> Iterator[Row]:
    import torch

    from models.generation.face_crops import FaceEdit, prepare_crop
    from models.generation.talking_face import load_talking_face, paste
    from utils.imaging.images import stack_gray, stack_images
    from utils.media.video import VideoWriter
    from utils.media.windows import WINDOW_ROWS

    pack, device = packs.resolve_pack(), cli.resolve_device(options.gpu_id)
    talking_face, encoder = load_talking_face(
        pack.unet, pack.vae, pack.whisper, pack.image_size, device, cli.resolve_dtype(device)
    )
    rows = np.flatnonzero(edit.valid[: len(frames)])[:BATCH_SIZE]
    edits = [FaceEdit(edit.boxes[i], edit.landmarks[i], edit.source_landmarks[i], edit.depth(i)) for i in rows]
    prepared = [prepare_crop(frames[i], face, pack.image_size) for i, face in zip(rows, edits, strict=True)]
    faces, depths = stack_images([face.crop for face in prepared]), stack_gray([face.depth for face in prepared])
    audio = torch.zeros(len(rows), WINDOW_ROWS * encoder.n_states, encoder.dims.n_audio_state)
    n_batches = max(1, options.frames // len(rows))
    latents, seconds = repeated(lambda: talking_face.encode(faces, depths), n_batches, device)
    yield step("VAE encode", n_batches * len(rows), seconds)
    predicted, seconds = repeated(lambda: talking_face.generate(latents, audio), n_batches, device)
    yield step("UNet", n_batches * len(rows), seconds)
    images, seconds = repeated(lambda: talking_face.decode(predicted), n_batches, device)
    yield step("VAE decode", n_batches * len(rows), seconds)
    generated = list(images.permute(0, 2, 3, 1).cpu().numpy())
    start = time.perf_counter()
    with VideoWriter(work_dir / "bench.mp4", MOTION_FPS, options.speech) as writer:
        for i in range(len(frames)):
            face = i % len(rows)
            writer.write(paste(frames[rows[face]], generated[face], edits[face])[0])
    yield step("blend and video encode", len(frames), time.perf_counter() - start)


def repeated(work: Callable[[], torch.Tensor], n_times: int, device: torch.device) -> tuple[torch.Tensor, float]:
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


def step(name: str, n_frames: int, seconds: float) -> Row:
    return Row(f"– {name}", n_frames / seconds, seconds / n_frames * MOTION_FPS)


def describe_machine(options: argparse.Namespace) -> str:
    import torch

    from utils.media.video import probe_video

    device = cli.resolve_device(options.gpu_id)
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
