"""Preparation of training data on real (short) clips: same files with any number of processes, stopped or killed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import preprocess_dataset
from tests.helpers import media
from tests.helpers.people_scene import at, two_people
from tests.helpers.talking_clip import ROOT
from utils.core.errors import BadInput, StageFailure
from utils.data.clips import open_clips

NAMES = ("a face", "b.v2", "c")
N_FRAMES = 8
SIZE = 256  # pixels; the face takes 79


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    frames, speech = media.face_frames(N_FRAMES, SIZE), media.speech_like(0.4, 48_000)
    for name in NAMES:
        media.write_clip(folder / f"{name}.mp4", frames, sound=speech)
    return folder


def command(clips: Path, result_dir: Path, *flags: str) -> list[str]:
    folders = ["--video_dir", str(clips), "--result_dir", str(result_dir)]
    return [sys.executable, "-u", str(ROOT / "preprocess_dataset.py"), *folders, "--gpu_id", "-1", *flags]


def prepare(clips: Path, result_dir: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(clips, result_dir, *flags), cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture(scope="module")
def folders(clips, tmp_path_factory) -> Path:
    """Output of one process."""
    result_dir = tmp_path_factory.mktemp("data") / "folders"
    done = prepare(clips, result_dir, "--num_workers", "1")
    assert done.returncode == 0, done.stderr
    assert "3 clips, 0 of them already there" in done.stdout
    return result_dir


@pytest.fixture(scope="module")
def shards(clips, tmp_path_factory) -> Path:
    """Output of two processes, as one shard."""
    result_dir = tmp_path_factory.mktemp("data") / "shards"
    done = prepare(clips, result_dir, "--num_workers", "2", "--format", "shards")
    assert done.returncode == 0, done.stderr
    return result_dir


def test_clips_open_for_training(folders):
    for clip in open_clips(folders, NAMES):
        assert len(clip) == N_FRAMES and clip.valid.sum() >= N_FRAMES - 1
        face, depth = clip.faces[3], clip.depths[3]
        assert face.std() > 20 and 0.1 < (depth > 0).mean() < 0.9
        inside = (clip.landmarks[3] > 0) & (clip.landmarks[3] < 256)
        assert inside.mean() > 0.95
        assert 0.35 < len(clip.audio) / 16_000 < 0.5


def test_shards_of_two_processes_hold_the_folders_of_one(folders, shards):
    assert sorted(path.name for path in shards.iterdir()) == [
        "shard-000000.json", "shard-000000.npy", "shard-000000.tar"
    ]  # fmt: skip
    for packed, plain in zip(open_clips(shards, NAMES), open_clips(folders, NAMES), strict=True):
        assert np.array_equal(packed.audio, plain.audio) and np.array_equal(packed.valid, plain.valid)
        for index in np.flatnonzero(plain.valid):
            for part in ("faces", "depths", "landmarks"):
                assert np.array_equal(getattr(packed, part)[index], getattr(plain, part)[index])


def test_finished_clips_are_skipped_in_either_format(clips, folders, shards, tmp_path, capsys):
    for source, other in ((folders, "shards"), (shards, "files")):
        copy = shutil.copytree(source, tmp_path / other)
        preprocess_dataset.main(command(clips, copy, "--format", other)[3:])
        assert "3 clips, 3 of them already there" in capsys.readouterr().out
        assert files_of(copy) == files_of(source)


def test_a_clip_that_has_changed_since_is_prepared_anew(clips, folders, tmp_path, capsys):
    data, others = shutil.copytree(folders, tmp_path / "data"), shutil.copytree(clips, tmp_path / "clips")
    changed, damaged = (others / f"{name}.mp4" for name in NAMES[:2])
    with changed.open("ab") as file:
        file.write(bytes(100))
    (data / damaged.stem / "track.json").write_text("{")
    preprocess_dataset.main(command(others, data, "--num_workers", "1")[3:])
    assert "3 clips, 1 of them already there" in capsys.readouterr().out
    before, after = files_of(folders), files_of(data)
    assert {path for path in before if after[path] != before[path]} == {f"{changed.stem}/track.json"}
    preprocess_dataset.main(command(others, data, "--num_workers", "1")[3:])
    assert "3 clips, 3 of them already there" in capsys.readouterr().out


@pytest.mark.parametrize("storage", ["files", "shards"])
def test_a_killed_run_is_finished_by_the_next(clips, folders, shards, tmp_path, storage):
    """SIGKILL to the whole run after its first clip; unfinished files are not read, then removed."""
    run = subprocess.Popen(command(clips, tmp_path, "--num_workers", "1", "--format", storage), cwd=ROOT)
    pattern = "*/track.json" if storage == "files" else ".waiting/[!.]*.tar"
    try:
        wait_until(lambda: list(tmp_path.glob(pattern)))
    finally:
        run.kill()
        run.wait()
    (tmp_path / ".partial-left").mkdir()
    done = prepare(clips, tmp_path, "--num_workers", "2", "--format", storage)
    assert done.returncode == 0, done.stderr
    assert "0 of them already there" not in done.stdout
    assert files_of(tmp_path) == files_of(folders if storage == "files" else shards)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_a_killed_process_costs_nothing(clips, folders, tmp_path):
    """SIGKILL to the worker process during a clip; a new one replaces it."""
    run = subprocess.Popen(command(clips, tmp_path, "--num_workers", "1"), cwd=ROOT)
    wait_until(lambda: list(tmp_path.glob(".partial-*")))
    os.kill(worker_of(run.pid), signal.SIGKILL)
    assert run.wait(timeout=300) == 0
    left = [path for path in tmp_path.iterdir() if path.name.startswith(".partial-")]
    for path in left:  # as the next run would
        shutil.rmtree(path)
    assert files_of(tmp_path) == files_of(folders)


def worker_of(pid: int) -> int:
    """The worker process, not multiprocessing's resource tracker."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (worker,) = (int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes())
    return worker


def wait_until(condition) -> None:
    end = time.monotonic() + 1200  # generous, for a busy machine
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_unusable_clips_are_left_out_with_a_reason(clips, folders, tmp_path, capfd):
    bad = tmp_path / "clips"
    bad.mkdir()
    speech = media.speech_like(0.4, 48_000)
    shutil.copy(clips / "c.mp4", bad)
    (bad / "corrupt.mp4").write_bytes((clips / "c.mp4").read_bytes()[:400])
    media.write_clip(bad / "faceless.mp4", media.blank_frames(4), sound=speech)
    media.write_clip(bad / "mute.mp4", media.face_frames(4, SIZE), sound=np.zeros_like(speech))
    media.write_clip(bad / "silent.mp4", media.face_frames(4, SIZE))
    media.write_clip(bad / "tiny.mp4", media.face_frames(4, size=192), sound=speech)
    result_dir = tmp_path / "data"
    flags = ["--video_dir", str(bad), "--result_dir", str(result_dir), "--gpu_id", "-1", "--num_workers", "1"]
    with pytest.raises(StageFailure, match=r"5 of 6 clips could not be prepared, see above$"):
        preprocess_dataset.main(flags)
    reasons = [line for line in capfd.readouterr().err.splitlines() if line.startswith("left out")]
    expected = ("corrupt.mp4: media file cannot be opened", "faceless.mp4: no face found", "mute.mp4: clip is silent",
                "silent.mp4: clip is silent", "tiny.mp4: face too small")  # fmt: skip
    for reason, start in zip(reasons, expected, strict=True):
        assert reason.startswith(f"left out {start}")
    made = files_of(result_dir)
    assert made == {name: data for name, data in files_of(folders).items() if name.startswith("c/")}


def test_the_speaker_is_chosen_where_a_clip_shows_several(tmp_path, capfd):
    """Default in a clip without sound: the most prominent person; else the chosen one, if a person is there."""
    folder = tmp_path / "clips"
    folder.mkdir()
    media.write_clip(folder / "two.mp4", two_people(8, at(30), at(360)))
    flags = ["--video_dir", str(folder), "--gpu_id", "-1", "--num_workers", "1", "--keep_silent", "--min_face", "30"]

    def middle(*speaker: str) -> float:
        result_dir = tmp_path / "_".join(("data", *speaker))
        preprocess_dataset.main([*flags, "--result_dir", str(result_dir), *speaker])
        boxes = np.load(result_dir / "two" / "boxes.npy")
        assert len(boxes) == 8
        return float(boxes[:, [0, 2]].mean())

    assert middle() < 280
    assert middle("--speaker", "right") > 280
    assert middle("--speaker", "435,110") > 280
    with pytest.raises(StageFailure, match="1 of 1 clips could not be prepared"):
        middle("--speaker", "2")
    assert "left out two.mp4: no such speaker: expected --speaker 0 to 1, found 2 people" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        middle("--speaker", "middle")


def test_what_cannot_begin_is_refused(clips, tmp_path):
    with pytest.raises(BadInput, match="no such folder"):
        preprocess_dataset.main(["--video_dir", str(tmp_path / "nowhere")])
    with pytest.raises(BadInput, match="no clips"):
        preprocess_dataset.main(["--video_dir", str(tmp_path)])
    for suffix in (".mp4", ".mov"):
        (tmp_path / f"a{suffix}").touch()
    with pytest.raises(BadInput, match=r"two clips of one name.*a\.mov and a\.mp4"):
        preprocess_dataset.main(["--video_dir", str(tmp_path)])
    for flags in (["--num_workers", "0"], ["--ray_gpus", "nan"], ["--min_face", "-1"]):
        with pytest.raises(BadInput, match=f"{flags[0]}: expected"):
            preprocess_dataset.main(["--video_dir", str(clips), *flags])


def test_ray_is_asked_for_by_name(clips, tmp_path):
    if importlib.util.find_spec("ray"):
        pytest.skip("ray is installed")
    done = prepare(clips, tmp_path, "--ray_address", "auto")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: Ray is not installed") and "pip install -r requirements-cluster.txt" in line


@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="pip install -r requirements-cluster.txt")
@pytest.mark.parametrize("storage", ["files", "shards"])
def test_two_ray_workers_make_the_files_of_one_process(clips, folders, shards, tmp_path, storage):
    done = prepare(clips, tmp_path, "--ray_address", "local", "--num_workers", "2", "--format", storage)
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path) == files_of(folders if storage == "files" else shards)
