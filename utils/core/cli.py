"""What every entry script shares: exit codes, device choice, progress bars."""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from utils.core.errors import BadInput, StageFailure, is_out_of_memory, printable, wanted_memory
from utils.core.options import Options, option

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

EXIT_BAD_INPUT = 2
EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130

CPU_BATCH_SIZE, LARGEST_BATCH_SIZE = 8, 32
# Bytes of a GPU. In 16 bits the official VAE takes 85 MiB for a frame of 256 px, counted on a CPU; the rest is for
# weights (2.2 GiB) and what the allocator leaves between.
MEMORY_PER_FRAME = 512 * 1024 * 1024

# OSErrors of a badly chosen path; any other (no space left ...) is a failure.
_PATH_ERRORS = (PermissionError, NotADirectoryError, IsADirectoryError, FileNotFoundError, FileExistsError)
_PATH_ERROR_NUMBERS = (errno.ENAMETOOLONG, errno.EROFS, errno.ELOOP)


def run(main: Callable[[list[str] | None], None]) -> None:
    """Run an entry point and turn its errors into one line on stderr and an exit code."""
    quiet_third_party_logs()
    print_any_name()
    signal.signal(signal.SIGTERM, _stop)  # so that temporary files are removed
    try:
        _run_in_memory(main)
    except BadInput as error:
        _exit(f"error: {error}", EXIT_BAD_INPUT)
    except StageFailure as error:
        _exit(_with_notes(f"error: {error}", error), EXIT_FAILURE)
    except OSError as error:
        where = f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, (str, bytes)) else ""
        is_input = isinstance(error, _PATH_ERRORS) or error.errno in _PATH_ERROR_NUMBERS
        advice = "check the path and its permissions" if is_input else "check the free space and the disk"
        if error.errno == errno.ENAMETOOLONG:
            advice = "give a shorter name"
        code = EXIT_BAD_INPUT if is_input else EXIT_FAILURE
        _exit(_with_notes(f"error: {error.strerror or error}{where}; {advice}", error), code)
    except KeyboardInterrupt as error:
        _exit(_with_notes("interrupted", error), EXIT_INTERRUPTED)
    except _Terminated as error:
        _exit(_with_notes("terminated", error), error.code)


def _run_in_memory(main: Callable[[list[str] | None], None]) -> None:
    """Run ``main``; an out-of-memory error of any library becomes a StageFailure."""
    try:
        main(None)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        on_gpu = "CUDA" in str(error)
        size = wanted_memory(error)
        wanted = f": {size} more could not be had" if size else ""
        advice = "give a smaller --batch_size or --img_size where the command has them, or "
        advice += "use --gpu_id -1 or a larger device" if on_gpu else "free some memory or use a machine with more"
        failure = StageFailure(f"out of memory{' on the CUDA device' if on_gpu else ''}{wanted}; {advice}")
        for note in getattr(error, "__notes__", []):
            failure.add_note(note)
        raise failure from error


def print_any_name() -> None:
    """Escape characters that the terminal's encoding lacks, as in names of files, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


class _Terminated(SystemExit):
    """SIGTERM was received; context managers clean up on the way out."""

    code: int


def _with_notes(message: str, error: BaseException) -> str:
    """The message, then the error's notes, such as where finished parts are kept."""
    return "; ".join([message, *getattr(error, "__notes__", [])])


def _exit(message: str, code: int) -> None:
    print(printable(message), file=sys.stderr)
    sys.exit(code)


def _stop(signal_number: int, _frame: FrameType | None) -> None:
    raise _Terminated(128 + signal_number)


def quiet_third_party_logs() -> None:
    """Keep the C++ logs of MediaPipe and the notices of libraries off the user's terminal."""
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    logging.getLogger("absl").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"google\.protobuf")


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(Options):
    """Where networks run."""

    gpu_id: int = option(0, help="CUDA device, if there is one (default: 0; -1: the CPU)", keyed=False)

    @property
    def device(self) -> torch.device:
        """Raises BadInput for a CUDA device that this machine does not have."""
        return resolve_device(self.gpu_id)


def resolve_device(gpu_id: int) -> torch.device:
    """The CUDA device of that number if this machine has it, Apple's MPS if present, else the CPU."""
    import torch

    if gpu_id >= 0 and torch.cuda.is_available():
        if gpu_id >= torch.cuda.device_count():
            n_devices = torch.cuda.device_count()
            raise BadInput(f"CUDA device {gpu_id} does not exist", expected=f"0 to {n_devices - 1}")
        return torch.device("cuda", gpu_id)
    if gpu_id >= 0 and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def resolve_dtype(device: torch.device) -> torch.dtype:
    """The fastest number format whose networks stay faithful: bfloat16 where the hardware multiplies it."""
    import torch

    if device.type == "cuda":
        return torch.float16
    if device.type == "cpu" and _cpu_has_bfloat16():
        return torch.bfloat16
    return torch.float32


def resolve_batch_size(device: torch.device) -> int:
    """Frames per batch of the networks: CPU_BATCH_SIZE on a CPU, by total memory on a GPU.

    Not by free memory: that differs from run to run, and a resumed run must make the same batches.
    """
    import torch

    if device.type != "cuda":
        return CPU_BATCH_SIZE
    memory = torch.cuda.get_device_properties(device).total_memory
    return max(CPU_BATCH_SIZE, min(LARGEST_BATCH_SIZE, memory // MEMORY_PER_FRAME))


def _cpu_has_bfloat16() -> bool:
    import torch

    capabilities = torch.backends.cpu.get_cpu_capability()
    if capabilities != "AVX512":
        return False
    cpuinfo = "/proc/cpuinfo"
    if not os.path.exists(cpuinfo):
        return False
    with open(cpuinfo) as lines:
        return any("avx512_bf16" in line for line in lines if line.startswith("flags"))


@contextmanager
def holding_messages() -> Iterator[None]:
    """Hold back warnings and progress bars of other threads while the block runs, which may silence stderr."""
    from tqdm import tqdm

    handler = logging.lastResort  # what prints warnings, as nothing else is set up
    with nullcontext() if handler is None or handler.lock is None else handler.lock, tqdm.get_lock():
        yield


def progress(iterable: Iterable[T], total: int | None, description: str) -> Iterator[T]:
    """A progress bar on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    yield from tqdm(iterable, total=total, desc=description, disable=not sys.stderr.isatty(), leave=False)
