"""Atomic writing of files and folders."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.permissions import permissions_hold
from utils.core.errors import BadInput
from utils.files.atomic import atomic_dir, atomic_path, require_writable

ROOT = Path(__file__).resolve().parents[3]


def listing(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))


def test_atomic_path_replaces_on_success_only(tmp_path):
    target = tmp_path / "a" / "b" / "result.npy"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".npy"
        temporary.write_text("new")
        assert not target.exists()
    assert listing(tmp_path) == ["a", "a/b", "a/b/result.npy"]
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "new"
    assert listing(tmp_path) == ["a", "a/b", "a/b/result.npy"]


@pytest.mark.parametrize("atomic", [atomic_path, atomic_dir])
def test_failure_leaves_no_new_folders(tmp_path, atomic):
    with pytest.raises(KeyboardInterrupt), atomic(tmp_path / "x" / "y" / "z"):
        raise KeyboardInterrupt
    assert listing(tmp_path) == []


def test_atomic_dir_swaps_whole_folders(tmp_path):
    target = tmp_path / "results" / "clip"
    for content in ("old", "new"):
        with atomic_dir(target) as temporary:
            (temporary / f"{content}.txt").write_text(content)
        assert listing(tmp_path) == ["results", "results/clip", f"results/clip/{content}.txt"]
    with pytest.raises(RuntimeError), atomic_dir(target) as temporary:
        (temporary / "half.txt").write_text("half")
        raise RuntimeError
    assert listing(tmp_path) == ["results", "results/clip", "results/clip/new.txt"]


def test_atomic_dir_keeps_the_old_folder_if_the_swap_fails(tmp_path, monkeypatch):
    target = tmp_path / "clip"
    target.mkdir()
    (target / "old.txt").write_text("old")
    rename = Path.rename

    def failing(self: Path, other: Path) -> Path:
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="No space"), atomic_dir(target):
        pass
    assert listing(tmp_path) == ["clip", "clip/old.txt"]


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_killed_writer_leaves_no_result(tmp_path, signal_number):
    code = (
        "import signal, sys, time; from pathlib import Path; from utils.files.atomic import atomic_path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # background jobs are started with it ignored
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); print('writing', flush=True); time.sleep(60)\n"
    )
    target = tmp_path / "result.mp4"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(target)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process:
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal_number)
        process.wait(20)
    assert not target.exists()
    if signal_number == signal.SIGINT:
        assert listing(tmp_path) == []


def test_writable_folders_are_not_made_by_asking(tmp_path):
    require_writable(tmp_path / "new" / "deep")
    assert listing(tmp_path) == []
    file = tmp_path / "file"
    file.write_text("mine")
    for directory in (file, file / "below", tmp_path / ("x" * 300)):
        with pytest.raises(BadInput, match="result folder cannot be written") as caught:
            require_writable(directory)
        assert str(directory) in str(caught.value)
    assert listing(tmp_path) == ["file"]


def test_folder_without_write_permission(tmp_path):
    tmp_path.chmod(0o500)
    with permissions_hold(), pytest.raises(BadInput, match="Permission denied"):
        require_writable(tmp_path / "new")
    tmp_path.chmod(0o700)
