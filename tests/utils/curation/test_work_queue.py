"""Units on several processes: all are done even if processes die; bad units are left out; a full disk stops the run."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from utils.core.errors import BadInput
from utils.curation.work_queue import default_workers, run_local, run_units
from utils.files.work_folder import sole_run

ROOT = Path(__file__).resolve().parents[3]


def note_threads(unit: Path) -> str:
    return f"{unit.name} {os.environ['OMP_NUM_THREADS']}"


def refuse_odd(unit: Path) -> str:
    if int(unit.name) % 2:
        raise BadInput("odd number", unit)
    return "fine"


def die_once(marks: Path, unit: Path) -> str:
    """Unit 1 ends its process the first time, unit 2 every time."""
    mark = marks / unit.name
    if unit.name == "2" or (unit.name == "1" and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def fill_disk(unit: Path) -> str:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(unit))


def sleep_long(marks: Path, unit: Path) -> str:
    (marks / f"{unit.name} {os.getpid()}").touch()
    time.sleep(120)
    return "slept"


@pytest.mark.parametrize("n_workers", [1, 3])
def test_every_unit_is_done_once_with_one_thread(n_workers):
    units = [Path(str(number)) for number in range(6)]
    outcomes = list(run_local(units, note_threads, n_workers))
    assert sorted(outcome.note for outcome in outcomes) == [f"{number} 1" for number in range(6)]
    assert list(run_local([], note_threads, n_workers)) == []


def test_bad_units_are_left_out_and_the_others_done():
    outcomes = {outcome.unit.name: outcome for outcome in run_local([Path("1"), Path("2"), Path("3")], refuse_odd, 2)}
    assert [outcomes[name].failure for name in "123"] == ["odd number (1)", None, "odd number (3)"]
    assert all(outcome.is_final for outcome in outcomes.values())


def test_a_unit_whose_process_is_killed_is_tried_again_once(tmp_path):
    units = [Path(str(number)) for number in range(4)]
    outcomes = {outcome.unit.name: outcome for outcome in run_local(units, partial(die_once, tmp_path), 2)}
    assert [outcomes[name].note for name in "0123"] == ["survived", "survived", "", "survived"]
    assert outcomes["2"].failure == "its process was ended by SIGKILL (out of memory?)"
    assert not outcomes["2"].is_final


def test_a_full_disk_is_handed_over():
    (outcome,) = run_local([Path("1")], fill_disk, 1)
    assert outcome.stop is not None and outcome.stop.errno == errno.ENOSPC


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def wait_until(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    program = f"""
from functools import partial
from pathlib import Path
from tests.utils.curation.test_work_queue import sleep_long
from utils.curation.work_queue import run_local
if __name__ == "__main__":
    list(run_local([Path("a"), Path("b")], partial(sleep_long, Path({str(tmp_path)!r})), 2))
"""
    script = tmp_path / "script.py"
    script.write_text(program)
    parent = subprocess.Popen([sys.executable, script], env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT)
    wait_until(lambda: len(list(tmp_path.glob("[ab] *"))) == 2)
    children = [int(path.name.split()[1]) for path in tmp_path.glob("[ab] *")]
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in children))


def test_one_run_at_a_time_which_clears_what_a_killed_one_left(tmp_path):
    leftovers = [tmp_path / ".partial-1" / "new", tmp_path / ".waiting" / ".partial-2", tmp_path / "clip"]
    for folder in leftovers:
        folder.mkdir(parents=True)
    with sole_run(tmp_path, ".waiting"):
        assert [folder.exists() for folder in leftovers] == [False, False, True]
        with pytest.raises(BadInput, match="another run uses this folder"), sole_run(tmp_path):
            pass
    with sole_run(tmp_path):
        pass


def test_one_worker_needs_no_process(monkeypatch):
    monkeypatch.setattr("utils.curation.work_queue.run_local", None)
    outcomes = {outcome.unit.name: outcome for outcome in run_units([Path("1"), Path("2")], refuse_odd, 1)}
    assert (outcomes["1"].failure, outcomes["2"].failure) == (outcomes["1"].failure, None)
    assert outcomes["1"].failure is not None
    assert outcomes["2"].failure is None


def test_some_processors_are_left_to_others():
    assert 1 <= default_workers() <= max(1, (os.cpu_count() or 1) // 2)
