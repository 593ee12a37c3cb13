"""Unwritable folders, unreadable files, and symbolic links to files and folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import media, talking_clip
from tests.helpers.permissions import permissions_hold
from tests.helpers.stage_world import EDIT, MOTION_NAME, STAGES, arguments_of, contents, fill_world, run_stage
from utils.files.work_folder import parts_folder
from utils.results import store

TALK_NAME = f"{Path(talking_clip.CLIP_NAME).stem}#{Path(talking_clip.SPEECH_NAME).stem}.mp4"
RESULTS = dict(zip(STAGES, (Path(MOTION_NAME), Path(EDIT).relative_to("edit"), Path(TALK_NAME)), strict=True))
RESULT_FLAG = {stage: "infer_result_dir" if "edit" in stage else "result_dir" for stage in STAGES}
INPUTS = [
    ("inference_audio2motion", "drv_aud", talking_clip.SPEECH_NAME),
    ("inference_edit_expression", "infer_video_path", talking_clip.CLIP_NAME),
    ("inference_edit_expression", "infer_exp_coeff_path", f"a2m/{MOTION_NAME}"),
    ("inference_joygen", "video_path", talking_clip.CLIP_NAME),
    ("inference_joygen", "audio_path", talking_clip.SPEECH_NAME),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    return fill_world(tmp_path_factory.mktemp("good"))


@pytest.fixture
def world(good, tmp_path, monkeypatch) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(good, tmp_path / "world"))


@pytest.fixture
def run(world, capsys) -> Callable[..., tuple[int, str]]:
    """Exit code and output of a stage."""

    def run_with(stage: str, **changes: object) -> tuple[int, str]:
        capsys.readouterr()
        code = run_stage(stage, arguments_of(stage, world, changes))
        return code, capsys.readouterr().err

    return run_with


@pytest.fixture
def refuses(world, run) -> Callable[..., str]:
    """Run a stage that must refuse in one line with ``reason``, and change nothing."""

    def check(stage: str, named: Path, reason: str, **changes: object) -> None:
        before = contents(world)
        with permissions_hold():
            code, error = run(stage, **changes)
        assert (code, error.count("\n")) == (2, 1), error
        assert error.startswith("error: ") and str(named) in error and reason in error, error
        assert contents(world) == before

    return check


@pytest.fixture
def locked(world):
    """Set modes of files and folders; they are reset in the end, so that they can be removed."""
    changed: list[Path] = []

    def lock(path: Path, mode: int) -> Path:
        changed.append(path)
        path.chmod(mode)
        return path

    yield lock
    for path in changed:
        path.chmod(0o700)


@pytest.mark.parametrize("stage", STAGES)
def test_result_folder_that_may_not_be_written(world, refuses, locked, stage):
    (world / "results").mkdir()
    folder = locked(world / "results", 0o500)
    refuses(stage, folder, "Permission denied", **{RESULT_FLAG[stage]: folder})
    refuses(stage, folder, "Permission denied", **{RESULT_FLAG[stage]: folder / "new"})


@pytest.mark.parametrize("stage", STAGES)
def test_old_result_that_may_not_be_replaced(world, refuses, run, locked, stage):
    assert run(stage) == (0, "")
    result = world / "results" / RESULTS[stage]
    place = locked(result if result.is_dir() else result.parent, 0o500)
    changes = {"seed": 1} if "joygen" in stage else {"smoothing": "all"} if "edit" in stage else {}
    refuses(stage, place, "Permission denied", **changes)


@pytest.mark.parametrize(("stage", "flag", "name"), INPUTS)
def test_input_that_may_not_be_read(world, run, locked, stage, flag, name):
    path = locked(world / name, 0o000)
    with permissions_hold():
        code, error = run(stage, **{flag: path})
    assert (code, error.count("\n")) == (2, 1), error
    assert str(path) in error and "Permission denied" in error
    assert not (world / "results").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_linked_inputs_and_result_folder(world, run, stage):
    """Links are followed; results are named after the links."""
    (world / "elsewhere").mkdir()
    (world / "results").symlink_to("elsewhere")
    for number, name in enumerate((talking_clip.CLIP_NAME, talking_clip.SPEECH_NAME, f"a2m/{MOTION_NAME}", EDIT)):
        (world / name).rename(world / f"target {number}")
        (world / name).symlink_to(world / f"target {number}")
    assert run(stage) == (0, "")
    assert (world / "results").is_symlink()
    result = world / "elsewhere" / RESULTS[stage]
    assert result.exists() and not result.is_symlink()


def test_clean_removes_a_linked_folder_s_link_alone(world, capsys):
    (world / EDIT).rename(world / "kept")
    (world / EDIT).symlink_to(world / "kept")
    assert run_stage("inference_joygen", [*arguments_of("inference_joygen", world, {}), "--clean"]) == 0
    assert not (world / EDIT).is_symlink()
    assert (world / "kept" / store.TRACK_NAME).is_file()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("target", ["nowhere", "results"])
def test_links_that_lead_nowhere(world, refuses, stage, target):
    """Links to a missing disk, or in a circle."""
    (world / "results").symlink_to(target)
    refuses(stage, world / "results", "leads nowhere")
    refuses(stage, world / "results", "leads nowhere", **{RESULT_FLAG[stage]: world / "results" / "new"})


@pytest.mark.parametrize(("stage", "flag", "name"), INPUTS)
@pytest.mark.parametrize("target", ["nowhere", "itself"])
def test_inputs_that_are_links_to_nothing(world, refuses, stage, flag, name, target):
    (world / "itself").symlink_to(target)
    refuses(stage, world / "itself", "expected", **{flag: world / "itself"})


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("target", ["precious", "nowhere"])
def test_a_link_in_the_place_of_a_result_is_replaced(world, run, refuses, stage, target):
    """The link's target is unchanged."""
    result, precious = world / "results" / RESULTS[stage], world / "precious"
    result.parent.mkdir(parents=True)
    if "edit" in stage:
        shutil.copytree(world / EDIT, precious)
        (precious / "boxes.npy").write_bytes(b"of another version")
    else:
        media.write_clip(precious.with_suffix(".mp4"), media.numbered_frames(1)).rename(precious)
    result.symlink_to(world / target)
    before = contents(precious), precious.stat().st_mtime_ns
    if "edit" in stage and target == "nowhere":
        refuses(stage, result, "leads nowhere")
        return
    assert run(stage) == (0, "")
    assert not result.is_symlink() and result.exists()
    assert (contents(precious), precious.stat().st_mtime_ns) == before
    assert not (world / "nowhere").exists()
    assert not parts_folder(result).exists()


@pytest.mark.parametrize("stage", STAGES[1:])
@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_stands_in_the_place_of_parts_is_not_touched(world, refuses, stage, kind):
    (world / "mine").mkdir()
    (world / "mine" / "holiday.jpg").write_bytes(b"a picture")
    parts = parts_folder(world / "results" / RESULTS[stage])
    parts.parent.mkdir(parents=True)
    if kind == "link":
        parts.symlink_to(world / "mine")
    else:
        (world / "mine").rename(parts)
    refuses(stage, parts, "a link" if kind == "link" else "another origin")


def test_permissions_do_hold(tmp_path):
    """Precondition of the tests above."""
    (tmp_path / "file").touch(0o400)
    with permissions_hold(), pytest.raises(PermissionError):
        (tmp_path / "file").open("r+b")
    assert os.access(tmp_path, os.W_OK)
