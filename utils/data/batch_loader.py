"""Hands the batches of a training to its processes, in an order that a continued training can take up."""

from __future__ import annotations

import os
from collections.abc import Iterator

from torch.utils.data import DataLoader, Dataset

from utils.core.errors import BadInput
from utils.data.dataset import Batch, TrainingBatches


class NumberedBatches(Dataset[tuple[int, "Batch | BadInput"]]):
    """Batches with their numbers; an unusable file is handed over, because a worker can only raise with a traceback."""

    def __init__(self, batches: TrainingBatches) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> tuple[int, Batch | BadInput]:
        try:
            return number, self._batches[number]
        except BadInput as error:
            return number, error


def numbered_batches(
    batches: TrainingBatches, first: int, process: int, n_processes: int, n_workers: int
) -> Iterator[tuple[int, Batch]]:
    """Numbers first + process, first + process + n_processes, ... and their batches; raises BadInput as they do."""
    order = range(first + process, len(batches), n_processes)
    n_workers = min(n_workers, os.cpu_count() or 1)
    for number, batch in DataLoader(NumberedBatches(batches), batch_size=None, sampler=order, num_workers=n_workers):
        if isinstance(batch, BadInput):
            raise batch
        yield number, batch
