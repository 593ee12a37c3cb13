"""Peak memory of every stage for a short and a long clip, and disk space of their results.

    python -m benchmarks.bench_memory demo/portrait.mp4 demo/speech.wav

Clip and speech are shrunk and repeated to 20 seconds and 10 minutes, the three commands run on both, and one Markdown
table is printed. ``--seconds`` and ``--width`` make it shorter; at 10 minutes the mini pack takes about half an hour.
"""

from __future__ import annotations

import itertools
import math
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.bench_pipeline import BenchmarkOptions
from benchmarks.measuring import MEBIBYTE, run_python
from utils.core import cli
from utils.core.config import Count
from utils.core.options import option, parse_options
from utils.core.types import MOTION_FPS, SAMPLE_RATE

SHORT_SECONDS, LONG_SECONDS = 20, 600
WIDTH = 128  # pixels


@dataclass(frozen=True, kw_only=True)
class MemoryOptions(BenchmarkOptions):
    """Length and sizes of the long clip."""

    seconds: Count = option(LONG_SECONDS, help="length of the long clip")
    width: Count = option(WIDTH, help="width of the frames in pixels")
    image_size: int | None = option(
        None, flag="img_size", help="size of the face crops; smaller is faster (default: the pack's)"
    )


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(MemoryOptions, "Measure the stages' memory against the clip's length.", arguments)
    with tempfile.TemporaryDirectory() as folder:
        peaks: dict[str, list[float]] = {}
        for seconds in (SHORT_SECONDS, options.seconds):
            place = Path(folder) / str(seconds)
            place.mkdir()
            clip, speech = repeat_clip(options, place, seconds), repeat_speech(options.speech, place, seconds)
            stages = replace(options, clip=clip, speech=speech).stages(place, img_size=options.image_size)
            for script, words in stages.commands().items():
                run = run_python([script, *words])
                peaks.setdefault(script, []).append(run.mebibytes)
                print(f"{script}, {seconds} s: {run.mebibytes:.0f} MiB, done in {run.seconds:.0f} s", file=sys.stderr)
            left = disk_use(stages.edit.result_dir, seconds) | disk_use(stages.motion.result_dir, seconds)
    print(f"\n| | {SHORT_SECONDS} s, MiB | {options.seconds} s, MiB | ratio |\n|---|---|---|---|")
    for script, (short, long) in peaks.items():
        print(f"| {script} | {short:.0f} | {long:.0f} | {long / short:.2f} |")
    print(f"\nDisk space per minute of video, MiB: {', '.join(f'{name} {size:.1f}' for name, size in left.items())}")


def repeat_clip(options: MemoryOptions, place: Path, seconds: int) -> Path:
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
    from utils.media.audio import load_waveform, write_mp3

    samples = np.resize(load_waveform(path), seconds * SAMPLE_RATE)
    write_mp3(place / "speech.mp3", samples)
    return place / "speech.mp3"


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
