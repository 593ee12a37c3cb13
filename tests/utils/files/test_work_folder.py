"""Work folders: parts kept by key, one run at a time; digests and keys."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from utils.core.errors import BadInput
from utils.files import digests
from utils.files import work_folder as work_folder_module
from utils.files.atomic import remove
from utils.files.digests import file_digest, path_digest
from utils.files.work_folder import drop_parts, parts_folder, reading, work_folder
from utils.results import content_key

ROOT = Path(__file__).resolve().parents[3]


def begin(result: Path, key: str = "one", afresh: bool = False, inner: tuple[str, ...] = ()) -> set[str]:
    """The parts that a run finds; it is then interrupted."""
    found = set()
    with pytest.raises(KeyboardInterrupt), work_folder(result, key, afresh, inner) as folder:
        found = {path.name for path in folder.iterdir()} - {"key.txt"}
        (folder / f"part-{len(found)}").touch()
        raise KeyboardInterrupt
    return found


def test_parts_stay_for_the_same_work_only(tmp_path):
    result = tmp_path / "new" / "it's a #1.mp4"
    assert begin(result) == set()
    assert begin(result) == {"part-0"}
    assert begin(result) == {"part-0", "part-1"}
    assert begin(result, key="another") == set()
    assert begin(result, key="another", afresh=True) == set()
    assert begin(result, key="another") == {"part-0"}
    with work_folder(result, "another"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert list(result.parent.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), SystemExit(143)])
def test_a_note_names_kept_parts(tmp_path, error):
    result = tmp_path / "result.mp4"
    with pytest.raises(type(error)), work_folder(result, "key"):
        raise error
    assert not hasattr(error, "__notes__")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(type(error)), work_folder(result, "key") as folder:
        (folder / "part").touch()
        raise error
    assert str(folder) in "".join(error.__notes__)


def test_parts_of_bad_input_go(tmp_path):
    with pytest.raises(BadInput), work_folder(tmp_path / "new" / "result.mp4", "key") as folder:
        (folder / "part").touch()
        raise BadInput("the clip has changed")
    assert list(tmp_path.iterdir()) == []


def test_unfinished_files_are_removed(tmp_path):
    folder = parts_folder(tmp_path / "result")
    begin(tmp_path / "result")
    for place in (folder, folder / "inner"):
        (place / ".partial-dir").mkdir(parents=True)
        (place / ".partial-file").touch()
    assert begin(tmp_path / "result", inner=("inner",)) == {"part-0", "inner"}
    assert list((folder / "inner").iterdir()) == []


def parts_of_a_run_killed_at_the_end(result: Path, n_removed: int, monkeypatch, afresh: bool = False) -> Path:
    """A run that is killed while it removes its parts, or those before it, after ``n_removed`` of them."""
    folder = parts_folder(result)
    for _ in range(3):
        begin(result)
    removed: list[Path] = []

    def remove_or_die(path: Path) -> None:
        if len(removed) == n_removed:
            raise SystemExit(137)
        removed.append(path)
        remove(path)

    with monkeypatch.context() as context, pytest.raises(SystemExit):
        context.setattr(work_folder_module, "remove", remove_or_die)
        with work_folder(result, "one", afresh):
            pass
    assert folder.is_dir()
    return folder


@pytest.mark.parametrize("afresh", [True, False])
@pytest.mark.parametrize("n_removed", range(4))
def test_parts_of_a_run_killed_while_removing_are_not_used(tmp_path, monkeypatch, n_removed, afresh):
    for key in ("one", "another"):
        parts_of_a_run_killed_at_the_end(tmp_path / key, n_removed, monkeypatch, afresh)
        assert begin(tmp_path / key, key) == set()


@pytest.mark.parametrize("n_removed", range(4))
def test_a_finished_result_keeps_no_parts(tmp_path, monkeypatch, n_removed):
    result = tmp_path / "result"
    folder = parts_of_a_run_killed_at_the_end(result, n_removed, monkeypatch)
    drop_parts(result, "one")
    assert not folder.exists()
    begin(result)
    drop_parts(result, "another")
    assert folder.exists()
    with pytest.raises(KeyboardInterrupt), work_folder(result, "one") as folder:
        drop_parts(result, "one")  # another run holds the folder
        assert folder.exists()
        raise KeyboardInterrupt
    drop_parts(result, "another", "one")
    assert not folder.exists()
    drop_parts(result, "one")


def test_a_folder_that_vanishes_while_it_is_locked_is_named(tmp_path, monkeypatch):
    folder = tmp_path / "result"
    folder.mkdir()

    def vanish(*_: object) -> bool:
        folder.rmdir()
        return True

    monkeypatch.setattr("utils.files.work_folder._lock", vanish)
    with pytest.raises(FileNotFoundError), reading(folder):
        pass


def test_one_run_at_a_time_and_no_lock_of_a_dead_one(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from utils.files.work_folder import work_folder\n"
        "with work_folder(Path(sys.argv[1]), 'key') as folder:\n"
        "    (folder / 'part').touch(); print('working', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "result")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"working\n"
        with pytest.raises(BadInput, match="another run"), work_folder(tmp_path / "result", "key"):
            pass
        assert (parts_folder(tmp_path / "result") / "part").exists()
        process.send_signal(signal.SIGKILL)
    assert begin(tmp_path / "result", "key") == {"part"}


@pytest.fixture
def reads(tmp_path, monkeypatch) -> list[Path]:
    """Files that are read whole; from 10 bytes on they are large."""
    monkeypatch.setenv("JOYGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "LARGE", 10)
    read, original = [], digests.sha256
    monkeypatch.setattr(digests, "sha256", lambda path: (read.append(path), original(path))[1])
    return read


def write_aged(path: Path, text: str, seconds: float) -> None:
    path.write_text(text)
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_large_files_are_read_once_until_they_change(tmp_path, reads):
    weights = tmp_path / "weights"
    write_aged(weights, "0123456789", 100)
    first = file_digest(weights)
    assert (file_digest(weights), len(reads)) == (first, 1)
    write_aged(weights, "9876543210", 50)
    assert file_digest(weights) != first
    assert len(reads) == 2
    write_aged(weights, "0123456789", 0)  # it could change within the clock's resolution
    assert (file_digest(weights), file_digest(weights), len(reads)) == (first, first, 4)
    (tmp_path / "cache" / "digests.json").write_text("[1, 2")
    write_aged(weights, "0123456789", 10)
    assert (file_digest(weights), len(reads)) == (first, 5)
    assert (file_digest(weights), len(reads)) == (first, 5)


def test_the_latest_digests_are_remembered(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(digests, "_MOST_ENTRIES", 2)
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    for age, path in ((90, one), (80, two), (70, one), (60, three)):
        write_aged(path, "0123456789", age)
        file_digest(path)
    reads.clear()
    for path in (one, three):
        file_digest(path)
    assert reads == []


def test_a_full_disk_leaves_no_half_of_the_digests(tmp_path, reads, monkeypatch):
    write_aged(tmp_path / "weights", "0123456789", 100)
    folder = tmp_path / "cache"
    folder.mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write that is too long is an OSError
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
        file_digest(tmp_path / "weights")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert list(folder.iterdir()) == []


def test_folders_count_by_names_and_contents(tmp_path, reads):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("1")
    before = path_digest(tmp_path / "a")
    (tmp_path / "a" / "b" / "c").rename(tmp_path / "a" / "b" / "d")
    renamed = path_digest(tmp_path / "a")
    (tmp_path / "a" / "b" / "d").write_text("2")
    assert len({before, renamed, path_digest(tmp_path / "a")}) == 3


def test_every_value_counts(tmp_path, reads):
    for name in ("clip", "speech"):
        (tmp_path / name).write_text(name)
    inputs = {name: tmp_path / name for name in ("clip", "speech")}
    keys = [
        content_key.content_key(values, files)
        for values in ({"seed": 0}, {"seed": 1}, {"seed": "0"}, {"seeds": 0})
        for files in (inputs, {"clip": inputs["clip"]}, {"clip": inputs["speech"], "speech": inputs["clip"]})
    ]
    assert len(set(keys)) == len(keys) == 12
    assert content_key.content_key({"seed": 0}, dict(reversed(inputs.items()))) == keys[0]
