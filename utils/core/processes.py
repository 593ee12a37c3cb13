"""Processes of a distributed training: index, means and barriers; without effect in a single process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.core.cli import resolve_device


@dataclass(frozen=True)
class Processes:
    """Process ``index`` of ``count``; all run the same steps."""

    index: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.index == 0

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace floating-point tensors by their means over all processes, in place."""
        if self.count == 1 or not tensors:
            return
        joined = torch.cat([tensor.detach().flatten() for tensor in tensors])
        torch.distributed.all_reduce(joined)
        joined /= self.count
        parts = joined.split([tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, parts, strict=True):
            tensor.detach().copy_(mean.view_as(tensor))

    def which(self, is_true: bool, device: torch.device) -> list[int]:
        """Indices of the processes in which it is true; the same list in all of them."""
        if self.count == 1:
            return [0] if is_true else []
        answers = torch.zeros(self.count, device=device)
        answers[self.index] = float(is_true)
        torch.distributed.all_reduce(answers)
        return answers.nonzero().flatten().tolist()

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.count > 1:
            torch.distributed.barrier()


def join_processes(gpu_id: int) -> tuple[Processes, torch.device]:
    """Join the others if ``accelerate launch`` or torchrun has started several; each CUDA process has its own device.

    gpu_id: device of a single process, see resolve_device; below 0 the CPU is used in any case.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(), resolve_device(gpu_id)
    from accelerate import PartialState

    state = PartialState(cpu=gpu_id < 0 or not torch.cuda.is_available())
    return Processes(state.process_index, state.num_processes), state.device


def leave_processes(processes: Processes) -> None:
    if processes.count > 1:
        torch.distributed.destroy_process_group()
