"""Peak memory of every stage for a short and a long clip, and disk space of their results.

    python -m benchmarks.bench_memory demo/portrait.mp4 demo/speech.wav

Clip and speech are shrunk and repeated to 20 seconds and 10 minutes, the three commands run on both, and one Markdown
table is printed. ``--seconds`` and ``--width`` make it shorter; at 10 minutes the mini pack takes about half an hour.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import tempfile
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.bench_pipeline import STAGES, run_stage
from utils.core import cli
from utils.core.types import MOTION_FPS, SAMPLE_RATE

SHORT_SECONDS, LONG_SECONDS = 20, 600
WIDTH = 128  # pixels
MEBIBYTE = 1024 * 1024


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure the memory of the three stages against the clip's length.")
    parser.add_argument("clip", type=Path)
    parser.add_argument("speech", type=Path)
    parser.add_argument(
        "--seconds", type=int, default=LONG_SECONDS, help=f"length of the long clip (default {LONG_SECONDS})"
    )
    parser.add_argument("--width", type=int, default=WIDTH, help=f"width of the frames in pixels (default {WIDTH})")
    parser.add_argument("--img_size", type=int, help="size of the face crops; smaller is faster (default: the pack's)")
    cli.add_device_argument(parser)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        peaks = {}
        for seconds in (SHORT_SECONDS, options.seconds):
            place = Path(folder) / str(seconds)
            place.mkdir()
            clip, speech = repeat_clip(options, place, seconds), repeat_speech(options.speech, place, seconds)
            peaks[seconds] = []
            for script, flags in commands(options, clip, speech, place):
                taken, peak = run_stage(script, flags)
                peaks[seconds].append(peak)
                print(f"{script}, {seconds} s: {peak:.0f} MiB, done in {taken:.0f} s", file=sys.stderr)
            left = disk_use(place / "edit", seconds) | disk_use(place / "a2m", seconds)
    print(f"\n| | {SHORT_SECONDS} s, MiB | {options.seconds} s, MiB | ratio |\n|---|---|---|---|")
    for script, short, long in zip(STAGES, peaks[SHORT_SECONDS], peaks[options.seconds], strict=True):
        print(f"| {script} | {short:.0f} | {long:.0f} | {long / short:.2f} |")
    print(f"\nDisk space per minute of video, MiB: {', '.join(f'{name} {size:.1f}' for name, size in left.items())}")


def commands(options: argparse.Namespace, clip: Path, speech: Path, place: Path) -> Iterator[tuple[str, list[object]]]:
    motion = place / "a2m" / f"{speech.stem}.npy"
    size = [] if options.img_size is None else ["--img_size", options.img_size]
    gpu = ["--gpu_id", options.gpu_id]
    yield STAGES[0], ["--drv_aud", speech, "--result_dir", motion.parent, "--exp_file", motion.name, *gpu]
    given = ["--infer_video_path", clip, "--infer_exp_coeff_path", motion, "--infer_result_dir", place / "edit"]
    yield STAGES[1], [*given, *gpu]
    given = ["--audio_path", speech, "--video_path", clip, "--intermediate_dir", place / "edit"]
    yield STAGES[2], [*given, "--result_dir", place / "talk", "--enable_pose_driven", *size, *gpu]


def repeat_clip(options: argparse.Namespace, place: Path, seconds: int) -> Path:
    """The clip forwards and backwards for that long: encoded once, then joined to itself."""
    from utils.imaging.geometry import resize_image
    from utils.media.video import VideoWriter, read_frames
    from utils.media.video_parts import join_parts

    first, whole = place / "first.mp4", place / "clip.mp4"
    frames = []
    for frame in itertools.islice(read_frames(options.clip), SHORT_SECONDS * MOTION_FPS):
        height = round(frame.shape[0] * options.width / frame.shape[1] / 2) * 2
        frames.append(resize_image(frame, options.width, height, "area"))
    shown = itertools.islice(itertools.cycle([*frames, *reversed(frames)]), SHORT_SECONDS * MOTION_FPS)
    with VideoWriter(first) as writer:
        for frame in shown:
            writer.write(frame)
    join_parts(whole, [first] * math.ceil(seconds / SHORT_SECONDS))
    return whole


def repeat_speech(path: Path, place: Path, seconds: int) -> Path:
    from utils.media.audio import load_waveform

    samples = np.resize(load_waveform(path), seconds * SAMPLE_RATE)
    with wave.open(str(place / "speech.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return place / "speech.wav"


def disk_use(folder: Path, seconds: int) -> dict[str, float]:
    """MiB per minute of video in disk blocks, by kind of file."""
    sizes: dict[str, int] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            kind = "depth images" if path.suffix == ".png" else path.name
            sizes[kind] = sizes.get(kind, 0) + (path.stat().st_blocks * 512 or path.stat().st_size)
    return {kind: size / MEBIBYTE / seconds * 60 for kind, size in sorted(sizes.items())}


if __name__ == "__main__":
    cli.run(main)
