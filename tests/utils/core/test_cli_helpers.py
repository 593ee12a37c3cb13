"""Exit codes and messages of entry points, device choice, flags."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from utils.core import cli
from utils.core.errors import BadInput, StageFailure
from utils.core.options import parse_options

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _same_process(monkeypatch):
    """run() sets a signal handler and environment variables; both are restored."""
    before = signal.getsignal(signal.SIGTERM)
    for name in ("GLOG_minloglevel", "TF_CPP_MIN_LOG_LEVEL", "DIFFUSERS_VERBOSITY", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "0")
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (BadInput("bad", "a.mp4", found="b"), 2, "error: bad (a.mp4): found b\n"),
        (StageFailure("3 of 4 failed"), 1, "error: 3 of 4 failed\n"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.txt"), 2, "(a.txt); check the path"),
        (PermissionError(errno.EACCES, "Permission denied", "a.txt"), 2, "error: Permission denied (a.txt)"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), 2, "error: Not a directory (a/b)"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "aaa"), 2, "error: File name too long (aaa)"),
        (OSError(errno.EROFS, "Read-only file system", "a"), 2, "error: Read-only file system"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "error: No space left on device; check the free space"),
        (OSError("odd"), 1, "error: odd"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_become_one_line_and_a_code(capsys, raised, code, message):
    def main(_arguments: list[str] | None) -> None:
        raise raised

    with pytest.raises(SystemExit) as caught:
        cli.run(main)
    written = capsys.readouterr()
    assert caught.value.code == code
    assert message in written.err
    assert written.err.count("\n") == 1
    assert written.out == ""


def test_success_exits_normally_and_bugs_are_not_hidden():
    cli.run(lambda _arguments: None)

    def main(_arguments: list[str] | None) -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        cli.run(main)


def test_termination_removes_temporary_files(tmp_path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from utils.core import cli; from utils.files.atomic import atomic_path\n"
        "def main(_):\n"
        "    with atomic_path(Path(sys.argv[1])):\n"
        "        print('writing', flush=True); time.sleep(60)\n"
        "cli.run(main)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "new" / "result.npy")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM
        assert process.stderr.read() == b"terminated\n"
    assert list(tmp_path.iterdir()) == []


def test_device_choice(monkeypatch):
    assert parse_options(cli.DeviceOptions, "", []).gpu_id == 0
    assert parse_options(cli.DeviceOptions, "", ["--gpu_id", "-1"]).device == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert cli.resolve_device(0) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert cli.resolve_device(1) == torch.device("cuda", 1)
    with pytest.raises(BadInput, match=r"CUDA device 2 does not exist: expected 0 to 1"):
        cli.resolve_device(2)


def test_number_format_of_a_device(monkeypatch):
    assert cli.resolve_dtype(torch.device("cuda")) == torch.float16
    monkeypatch.setattr(cli, "_cpu_has_bfloat16", lambda: True)
    assert cli.resolve_dtype(torch.device("cpu")) == torch.bfloat16
    monkeypatch.setattr(cli, "_cpu_has_bfloat16", lambda: False)
    assert cli.resolve_dtype(torch.device("cpu")) == torch.float32
    assert cli.resolve_dtype(torch.device("mps")) == torch.float32


@pytest.mark.parametrize(("gibibytes", "size"), [(2, 8), (6, 12), (8, 16), (24, 32), (141, 32)])
def test_batch_size_of_a_gpu(monkeypatch, gibibytes, size):
    properties = SimpleNamespace(total_memory=gibibytes << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    assert cli.resolve_batch_size(torch.device("cuda", 0)) == size
    assert cli.resolve_batch_size(torch.device("cpu")) == 8


def test_progress_is_quiet_without_a_terminal(capfd):
    assert list(cli.progress(range(3), 3, "work")) == [0, 1, 2]
    assert capfd.readouterr() == ("", "")


def test_importing_the_helpers_loads_nothing_heavy():
    modules = "utils.core.cli, utils.weights.packs, utils.results.store, utils.media.timeline"
    code = f"import sys, {modules}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "av", "mediapipe", "scipy", "cv2"} & set(loaded.stdout.split())
