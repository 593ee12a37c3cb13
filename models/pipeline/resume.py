"""When a finished result is kept: its key says what it was made from (stages 2 and 3)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from models.pipeline.options import StageOptions
from utils.core.monitor import Monitor
from utils.core.options import keyed_values
from utils.files.work_folder import drop_parts
from utils.results.content_key import content_key
from utils.weights.packs import Pack


def result_key(
    options: StageOptions,
    pack: Pack,
    weights: Collection[str],
    inputs: Mapping[str, Path],
    resolved: Mapping[str, object],
) -> str:
    """The key of a result: its options, the content of its inputs and weights, the device and the number of threads.

    weights: the parts of ``pack`` that the stage opens. resolved: values that options leave open.
    """
    import torch

    values = keyed_values(options) | {"pack": pack.name} | dict(resolved)
    values |= {"device": options.device.type, "threads": torch.get_num_threads()}
    opened = {name: getattr(pack, name) for name in weights}
    return content_key(values, dict(inputs) | {name: path for name, path in opened.items() if path is not None})


def make_unless_current(
    result: Path, is_current: bool, make: Callable[[], None], part_keys: Collection[str], monitor: Monitor
) -> None:
    """Call ``make`` unless the result is current; then only parts that an ended run has left are removed."""
    if not is_current:
        make()
        return
    drop_parts(result, *part_keys)
    monitor.say(f"{result} is up to date")
