"""Units of work on a Ray cluster, whose machines see the project and the data under the same paths."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from utils.core.errors import BadInput
from utils.curation.work_queue import N_TRIES, ONE_THREAD, Outcome, Work, attempt

ROOT = Path(__file__).resolve().parents[2]
LOCAL = "local"  # an address: start Ray on this machine, for this run
_INSTALL = "pip install -r requirements-cluster.txt"


def run_on_ray(
    units: Sequence[Path], work: Work, address: str, n_workers: int | None, gpu_share: float
) -> Generator[Outcome, None, None]:
    """Outcomes as they come, each unit a Ray task with one core and ``gpu_share`` of a GPU.

    address: "auto", host:port, or LOCAL. n_workers: units at once, at most; None: one per core.
    Raises BadInput if Ray is not installed or no cluster answers.
    """
    ray = _connect(address, n_workers)
    try:
        task = ray.remote(num_cpus=1, num_gpus=gpu_share, max_retries=N_TRIES - 1)(attempt)
        todo, running = list(reversed(units)), dict[Any, Path]()
        while todo or running:
            n_at_once = n_workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
            while todo and len(running) < n_at_once:
                unit = todo.pop()
                running[task.remote(work, unit)] = unit
            for reference in ray.wait(list(running))[0]:
                unit = running.pop(reference)
                try:
                    yield ray.get(reference)
                except ray.exceptions.RayError as error:
                    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                    yield Outcome(unit, failure=f"its Ray task failed: {reason}", is_final=False)
    finally:
        ray.shutdown()


def _connect(address: str, n_workers: int | None) -> Any:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # tasks without a GPU still see the devices
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise BadInput("Ray is not installed", None, "the package ray for --ray_address", "none", _INSTALL) from error
    environment = {"env_vars": {**ONE_THREAD, "PYTHONPATH": str(ROOT)}}
    own = {"num_cpus": n_workers, "include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address=address, runtime_env=environment, logging_level=logging.ERROR, log_to_driver=False, **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason, advice = str(error).splitlines()[0], "start it with ray start --head, or name its address"
        raise BadInput(f"no Ray cluster at {address}", None, "a running cluster", reason, advice) from error
    return ray
