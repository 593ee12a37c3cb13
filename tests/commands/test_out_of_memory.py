"""Too little memory gives a one-line error, never a shorter clip."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch

from tests.helpers import media
from tests.helpers.stage_world import ROOT, arguments_of, contents, fill_world
from utils.core import cli
from utils.core.errors import is_out_of_memory


def raising(error: BaseException) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


CUDA = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 4.00 GiB of which\nmore"
FAILURES: list[tuple[Callable[[], object], str]] = [
    (lambda: np.empty(1 << 50), "out of memory: 8.00 PiB more could not be had; give a smaller --batch_size"),
    (lambda: torch.empty(1 << 50), "out of memory: 4194304.00 GiB more could not be had; give"),
    (lambda: bytearray(1 << 60), "out of memory; give a smaller --batch_size or --img_size"),
    (lambda: cv2.resize(np.zeros((4, 4, 3), np.uint8), (2_000_000, 1_500_000)), "out of memory: 8381.90 GiB more"),
    (raising(torch.OutOfMemoryError(CUDA)), "out of memory on the CUDA device: 2.50 GiB more could not be had; give"),
    (raising(RuntimeError("CUDA error: out of memory")), "out of memory on the CUDA device; give"),
    (raising(OSError(errno.ENOMEM, "Cannot allocate memory")), "out of memory; give"),
]


@pytest.mark.parametrize(("fail", "words"), FAILURES)
def test_one_line_with_advice(capsys, fail, words):
    def main(_arguments: list[str] | None) -> None:
        try:
            fail()
        except BaseException as error:
            error.add_note("finished parts are kept")
            raise

    with pytest.raises(SystemExit) as caught:
        cli.run(main)
    written = capsys.readouterr().err
    assert (caught.value.code, written.count("\n")) == (1, 1), written
    assert written.startswith(f"error: {words}"), written
    assert ("--gpu_id -1" in written) == ("CUDA" in written)
    assert written.endswith("; finished parts are kept\n")


def test_other_errors_are_no_lack_of_memory():
    for error in (RuntimeError("shapes differ"), ValueError("out of memory"), OSError(errno.ENOSPC, "full")):
        assert not is_out_of_memory(error)


LIMITED = """
import resource, sys
from pathlib import Path
def limit(n_bytes):
    n_mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (n_mapped + n_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))
"""
STAGE_3 = """
import inference_joygen, models.pipeline.talk_stage
from diffusers import AutoencoderKL, UNet2DConditionModel
from utils.core import cli
def main(_):
    limit(1 << 29)
    inference_joygen.main(sys.argv[1:])
cli.run(main)
"""
FRAMES = """
import logging
from utils.media.video import probe_video, read_frames
from utils.media.audio import load_waveform
path, warnings = Path(sys.argv[1]), []
logging.getLogger("utils.media.audio").addHandler(logging.Handler())
logging.getLogger("utils.media.audio").addFilter(lambda record: warnings.append(record.getMessage()))
def outcome(step):
    warnings.clear()
    try:
        result = step()
        return "warned" if warnings else result
    except BaseException as error:
        return type(error).__name__
whole = [probe_video(path), len(list(read_frames(path))), len(load_waveform(path))]
for n_bytes in (0, 1 << 19, 1 << 20, 3 << 20, 1 << 23, 9 << 20, 12 << 20, 17 << 20, 26 << 20, 1 << 28):
    found = []
    for step in (lambda: probe_video(path), lambda: len(list(read_frames(path))), lambda: len(load_waveform(path))):
        limit(n_bytes)
        found.append(outcome(step))
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    print(*("whole" if one == other else one for one, other in zip(found, whole)))
"""
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="the address space is limited otherwise")


def run_limited(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", LIMITED + code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@needs_linux
def test_a_stage_that_needs_too_much(tmp_path):
    world = fill_world(tmp_path)
    before = contents(world)
    arguments = arguments_of("inference_joygen", world, {"img_size": 4096, "batch_size": 8})
    result = run_limited(STAGE_3, *arguments)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1), result.stderr
    assert result.stderr.startswith("error: out of memory")
    assert "smaller --batch_size or --img_size" in result.stderr
    assert contents(world) == before


@needs_linux
def test_too_little_memory_is_no_end_of_a_clip(tmp_path):
    """A thread without memory for its stack is FFmpeg's EAGAIN, which PyAV calls BlockingIOError.

    FFmpeg itself takes some lacks of memory for damage in the file; then there is a warning.
    """
    clip = media.write_clip(tmp_path / "clip.mp4", media.numbered_frames(12), sound=media.speech_like(0.4, 48_000))
    result = run_limited(FRAMES, str(clip))
    assert result.returncode == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert len(lines) == 10 and lines[-1] == ["whole"] * 3
    assert {"whole", "MemoryError"} <= {word for line in lines for word in line} <= {"whole", "MemoryError", "warned"}
