"""A full disk at each write of the three stages in turn: one line, exit code 1, no partial or lost files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers import media, talking_clip
from tests.helpers.full_disk import Disk
from tests.helpers.stage_world import EDIT, MOTION_NAME, arguments_of, contents, fill_world, run_stage
from utils.files.atomic import PARTIAL
from utils.files.work_folder import parts_folder
from utils.results import store

TALK_NAME = f"{Path(talking_clip.CLIP_NAME).stem}#{Path(talking_clip.SPEECH_NAME).stem}.mp4"
EDIT_NAME = Path(EDIT).relative_to("edit")

# stage and flags, its result, number of failing writes of one kind, writes that must be among them
STAGES = [
    ("inference_audio2motion", [], Path(MOTION_NAME), 9, ["/.partial-*.npy"]),
    (
        "inference_edit_expression",
        [],
        EDIT_NAME,
        99,
        [
            ".parts/",
            ".parts/.partial-*.txt",
            ".parts/.partial-/new/.partial-*.npy",
            "/new/depth/.png",
            "/new/.partial-*",
        ],
    ),
    ("inference_edit_expression", ["--list-speakers"], EDIT_NAME.parent / "speakers.png", 9, ["/.partial-*.png"]),
    ("inference_joygen", ["--debug"], Path(TALK_NAME), 2, [".parts/.partial-*.mp4", ".npy", ".txt", ".png"]),
]
IDS = ["motion", "edit", "speakers", "talk"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return fill_world(tmp_path_factory.mktemp("world"))


def put_old_result(world: Path, result: Path) -> None:
    """Files of an earlier run with other options."""
    result.parent.mkdir(parents=True)
    if result.suffix == ".npy":
        shutil.copy(world / "a2m" / MOTION_NAME, result)
    elif result.suffix == ".mp4":
        media.write_clip(result, media.numbered_frames(2))
        result.with_suffix(".png").write_bytes(b"a contact sheet")
    elif result.suffix == ".png":
        result.write_bytes(b"a picture")
    else:
        shutil.copytree(world / EDIT, result)
        record = result / store.TRACK_NAME
        record.write_text(record.read_text().replace('"key": "', '"key": "old '))


@pytest.mark.parametrize(("stage", "flags", "name", "most_alike", "expected"), STAGES, ids=IDS)
@pytest.mark.parametrize("has_names", [True, False], ids=["content", "names"])
def test_disk_full(world, tmp_path, monkeypatch, capsys, stage, flags, name, most_alike, expected, has_names):
    """Each run fails one write later than the previous one, and resumes from it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    flag = "infer_result_dir" if "edit" in stage else "result_dir"
    assert run_stage(stage, [*arguments_of(stage, world, {flag: tmp_path / "results"}), *flags]) == 0
    undisturbed = contents(tmp_path)
    shutil.rmtree(tmp_path / "results")
    result = tmp_path / "results" / name
    put_old_result(world, result)
    before, inputs, parts = contents(tmp_path), contents(world), parts_folder(result)
    arguments = [*arguments_of(stage, world, {flag: tmp_path / "results"}), *flags]
    disk, failed = Disk(tmp_path, has_names, most_alike if has_names else 1), []
    while True:
        capsys.readouterr()
        with disk.filling_up():
            code = run_stage(stage, arguments)
        error = capsys.readouterr().err
        if disk.failed is None:
            break
        failed.append(disk.failed)
        assert (code, error.count("\n")) == (1, 1), f"{disk.failed}: {error}"
        assert error.startswith("error: "), error
        assert ("File too large" if has_names else "No space left on device") in error
        assert "check the free space" in error
        assert str(tmp_path) in error
        after = contents(tmp_path)
        if "rename" in disk.failed and disk.failed.endswith(".mp4"):  # the contact sheet is new, the video old
            after[result.with_suffix(".png").relative_to(tmp_path).as_posix()] = before["results/" + name.stem + ".png"]
        assert {path: after.get(path) for path in before} == before, disk.failed
        assert ("are kept in" in error) == parts.exists(), error
        new = [tmp_path / path for path in after if path not in before]
        assert all(path.is_relative_to(parts) for path in new), disk.failed
        assert not any(PARTIAL in path.name for path in new), disk.failed
    assert (code, error) == (0, "")
    assert contents(tmp_path) == undisturbed
    assert not has_names or all(any(wanted in write for write in failed) for wanted in expected), failed
    assert contents(world) == inputs
