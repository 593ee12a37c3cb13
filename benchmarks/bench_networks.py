"""Speed of stage 3's networks in each size and number type, and in the reference's schedule.

    python -m benchmarks.bench_networks demo/portrait.mp4 demo/speech.wav [--official DIR] [--frames 4]

Every row runs in its own process, for its peak memory; all rows see the same crops and depth images of the
clip. FLOPs are counted while the row runs, without skipped work; their rate is compared with that of
a large matrix product in the same numbers. ``reference-schedule``: float32, the plain memory layout and diffusers' own
blocks; of every frame the masked crop, the crop and the depth image encoded one at a time; frame, crop and depth image
as JPEG files on the way. The ratio in brackets is to its frames/s. The milliseconds are one worker's; a CPU generates
with several workers at once, one thread or more each.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.bench_pipeline import BenchmarkOptions
from benchmarks.measuring import run_python
from utils.core import cli
from utils.core.config import Count
from utils.core.errors import BadInput
from utils.core.options import option, parse_options
from utils.results import store
from utils.weights import packs

REFERENCE = "reference-schedule"
SCHEDULES = (REFERENCE, "float32", "bfloat16")  # the reference first, for the ratio
COLUMNS = (
    *("networks", "numbers", "frames/s", "ms per frame: encode, UNet, decode, rest"),
    *("GFLOP per frame", "GFLOP/s", "first batch", "peak MiB"),
)
HEADER = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(BenchmarkOptions):
    """Networks and schedules that are measured."""

    official: Path | None = option(
        None, metavar="DIR", help="tree of official sizes; made with random weights if absent"
    )
    batch: Count = option(4, help="frames per batch")
    schedules: tuple[Literal["reference-schedule", "float32", "bfloat16"], ...] = option(
        SCHEDULES, help="rows (default: all)"
    )


def main(arguments: list[str] | None = None) -> None:
    print_networks(
        parse_options(NetworkOptions, "Benchmark stage 3's networks and the reference's schedule.", arguments)
    )


def print_networks(options: NetworkOptions) -> None:
    print(HEADER)
    for line in network_rows(options):
        print(line, flush=True)


def network_rows(options: NetworkOptions) -> Iterator[str]:
    """The table's lines, each as soon as it is measured."""
    sizes = [mini_networks()] + ([official_networks(options.official)] if options.official else [])
    with tempfile.TemporaryDirectory() as folder:
        edit_dir = edit_clip(options, Path(folder))
        for name, networks in sizes:
            reference = None
            for schedule in (schedule for schedule in SCHEDULES if schedule in options.schedules):
                job = {"clip": str(options.clip), "edit_dir": str(edit_dir), "n_frames": options.batch}
                found = run_row(job | networks | {"gpu_id": options.gpu_id, "schedule": schedule})
                seconds = found["seconds"] / found["n_frames"]
                reference = seconds if schedule == REFERENCE else reference
                yield describe(name, schedule, found, None if reference is None else reference / seconds)


def describe(name: str, schedule: str, found: dict[str, float], ratio: float | None) -> str:
    steps, n_frames = [found[step] for step in ("encode", "unet", "decode", "rest")], found["n_frames"]
    rate = found["flops"] / sum(steps[:3]) * found["n_workers"]
    times = "" if ratio is None or schedule == REFERENCE else f" ({ratio:.1f}×)"
    cells = (
        name,
        schedule,
        f"{n_frames / found['seconds']:.2f}{times}",
        ", ".join(f"{1e3 * seconds / n_frames:.0f}" for seconds in steps),
        f"{found['flops'] / n_frames / 1e9:.1f}",
        f"{rate / 1e9:.0f}, {rate / found['peak_rate']:.0%} of a product's",
        f"{found['first']:.1f} s",
        f"{found['mebibytes']:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def mini_networks() -> tuple[str, dict[str, Any]]:
    pack = packs.resolve_pack()
    return pack.name, job_part(pack)


def official_networks(folder: Path) -> tuple[str, dict[str, Any]]:
    """Networks of a tree in the official layout; a missing tree is made with random weights."""
    from scripts import make_filled_weights

    if not folder.exists():
        make_filled_weights.main([str(folder)])
    pack = packs.official_pack(folder)
    for path in (pack.unet, pack.vae, pack.whisper):
        if path is None or not path.exists():
            raise BadInput("incomplete tree of weights", path, "the official tree", "nothing", "name a new folder")
    return "official size", job_part(pack)


def job_part(pack: packs.Pack) -> dict[str, Any]:
    return {
        "unet": str(pack.unet),
        "vae": str(pack.vae),
        "whisper": str(pack.whisper or ""),
        "refiner": str(pack.refiner or ""),
        "image_size": pack.image_size,
    }


def edit_clip(options: NetworkOptions, folder: Path) -> Path:
    """Stages 1 and 2, so that the rows see real crops, depth images and boxes."""
    stages = options.stages(folder)
    commands = stages.commands()
    for script in [*commands][:2]:
        run_python([script, *commands[script]])
    return store.edit_dir(stages.edit.result_dir, options.clip, stages.motion.motion_path)


def run_row(job: dict[str, Any]) -> dict[str, float]:
    """Measurements of one row in its own process, and its peak memory."""
    job |= {"started": time.time()}
    run = run_python(["-m", "benchmarks.network_schedules", json.dumps(job)])
    found: dict[str, float] = json.loads(run.output.splitlines()[-1])
    return found | {"mebibytes": run.mebibytes}


if __name__ == "__main__":
    cli.run(main)
