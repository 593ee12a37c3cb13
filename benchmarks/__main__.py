"""All benchmarks of the pipeline in one run: networks in each size and number type, then commands and their steps.

python -m benchmarks demo/portrait.mp4 demo/speech.wav [--official DIR]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import bench_networks, bench_pipeline
from utils.core import cli


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Benchmark the pipeline.")
    parser.add_argument("clip", type=Path)
    parser.add_argument("speech", type=Path)
    parser.add_argument(
        "--frames", type=int, default=100, help="frames of the clip for the step benchmarks (default 100)"
    )
    bench_networks.add_arguments(parser)
    cli.add_device_argument(parser)
    options = parser.parse_args(arguments)
    print(bench_networks.HEADER)
    for line in bench_networks.network_rows(options):  # first: a child's peak memory counts what its parent held
        print(line, flush=True)
    print()
    bench_pipeline.report(options)


if __name__ == "__main__":
    cli.run(main)
