"""All benchmarks of the pipeline in one run: networks in each size and number type, then commands and their steps.

python -m benchmarks demo/portrait.mp4 demo/speech.wav [--official DIR]
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import bench_networks, bench_pipeline
from utils.core import cli
from utils.core.options import parse_options


@dataclass(frozen=True, kw_only=True)
class AllOptions(bench_networks.NetworkOptions, bench_pipeline.StepOptions):
    """Options of both benchmarks."""


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(AllOptions, "Benchmark the pipeline.", arguments)
    bench_networks.print_networks(options)  # first: a child's peak memory counts what its parent held
    print()
    bench_pipeline.report(options)


if __name__ == "__main__":
    cli.run(main)
