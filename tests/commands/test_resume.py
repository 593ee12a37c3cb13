"""Stages 2 and 3 killed and run again: finished parts are not computed twice, and the result is the same."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import inference_edit_expression
import inference_joygen
from models.editing import expression_edit
from models.pipeline import edit_stage, talk_stage
from models.pipeline.options import EditOptions, TalkOptions
from tests.helpers.talking_clip import CLIP_NAME, FACE_MODELS, SPEECH_NAME, fill_folder, flags, result_of
from utils.core.errors import BadInput
from utils.core.monitor import CallbackMonitor
from utils.core.options import parse_options
from utils.files.image_files import read_rgb
from utils.files.work_folder import parts_folder, reading, replacing, sole_run
from utils.media.video import VideoWriter
from utils.results import store

ROOT = Path(__file__).resolve().parents[2]
PART = 4  # frames; of 20 in all
N_DEPTHS = 10  # rendered by stage 2; the face is hidden in the others, frames 9 to 18

# Run a stage in small parts, and stop it after some calls of one of its functions.
STOPPED_RUN = """
import importlib, os, pkgutil, resource, sys
from utils.core import cli

import models.editing.expression_edit, utils.media.video_parts
models.editing.expression_edit.PART_FRAMES = utils.media.video_parts.PART_FRAMES = {part}
place = pkgutil.resolve_name({place!r})
original, calls = getattr(place, {name!r}), []

def stopping(*arguments, **named):
    calls.append(1)
    if len(calls) == {n_calls} + 1:
        {stop}
    return original(*arguments, **named)

setattr(place, {name!r}, stopping)
cli.run(importlib.import_module({stage!r}).main)
"""
KILL, TERMINATE = "os.kill(os.getpid(), 9)", "os.kill(os.getpid(), 15)"
FILL_DISK = "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
KEPT = "; finished parts are kept in {folder}; the same command resumes from them\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    fill_folder(folder)
    return folder


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("models.editing.expression_edit.PART_FRAMES", PART)
    monkeypatch.setattr("utils.media.video_parts.PART_FRAMES", PART)


def stopped_run(stage: str, arguments: list[str], place: str, name: str, n_calls: int, stop: str) -> tuple[int, str]:
    """Exit code and stderr of a separate process, stopped by ``stop`` at the call after ``n_calls``."""
    code = STOPPED_RUN.format(part=PART, place=place, name=name, n_calls=n_calls, stop=stop, stage=stage)
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    return result.returncode, result.stderr


def edit_flags(folder: Path, result_dir: Path) -> list[str]:
    face_model = next(path for path in FACE_MODELS if path.exists())
    return [
        *("--infer_video_path", str(folder / CLIP_NAME), "--infer_result_dir", str(result_dir), "--gpu_id", "-1"),
        *("--infer_exp_coeff_path", str(folder / "a2m" / Path(SPEECH_NAME).with_suffix(".npy").name)),
        *("--bfm_folder", str(face_model)),
    ]


def contents(directory: Path) -> dict[str, str]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def count_calls(monkeypatch, place: object, name: str) -> list[int]:
    original, calls = getattr(place, name), []
    monkeypatch.setattr(place, name, lambda *args, **named: (calls.append(1), original(*args, **named))[1])
    return calls


def test_stage_2_resumes_where_it_was_killed(folder, tmp_path, monkeypatch, capsys):
    stage = "inference_edit_expression"
    inference_edit_expression.main(edit_flags(folder, tmp_path / "whole"))
    code, _ = stopped_run(
        stage, edit_flags(folder, tmp_path / "killed"), "models.editing.expression_edit", "write_gray", 6, KILL
    )
    assert code == -signal.SIGKILL
    result = store.edit_dir(tmp_path / "killed", folder / CLIP_NAME, folder / SPEECH_NAME)
    assert not result.exists()
    found = count_calls(monkeypatch, edit_stage, "frame_source")
    rendered = count_calls(monkeypatch, expression_edit, "write_gray")
    inference_edit_expression.main(edit_flags(folder, tmp_path / "killed"))
    assert (len(found), len(rendered)) == (0, N_DEPTHS - PART)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    capsys.readouterr()
    inference_edit_expression.main(edit_flags(folder, tmp_path / "killed"))
    assert capsys.readouterr().out.splitlines()[-1] == f"{result} is up to date"
    assert len(rendered) == N_DEPTHS - PART
    inference_edit_expression.main([*edit_flags(folder, tmp_path / "killed"), "--force"])
    assert (len(found), len(rendered)) == (1, 2 * N_DEPTHS - PART)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("name", ["clip/boxes.npy", "clip/valid.npy", "clip/coeffs.npy", "landmarks-00000000.npy"])
def test_damaged_parts_are_refused_and_do_not_stay(folder, tmp_path, monkeypatch, name):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "save_edit_arrays", interrupt)
        with pytest.raises(KeyboardInterrupt):
            inference_edit_expression.main(edit_flags(folder, tmp_path))
    parts = parts_folder(store.edit_dir(tmp_path, folder / CLIP_NAME, folder / SPEECH_NAME))
    (parts / name).write_bytes((parts / name).read_bytes()[:-9])
    with pytest.raises(BadInput, match=f"{name}.*give --force"):
        inference_edit_expression.main(edit_flags(folder, tmp_path))
    assert not parts.exists()


@pytest.mark.parametrize(
    ("extra", "place", "name", "n_calls", "stop", "code", "n_left"),
    [
        (["--faithful"], "utils.media.video:VideoWriter", "write", 9, KILL, -signal.SIGKILL, 12),
        (["--debug"], "utils.media.video:VideoWriter", "write", 9, FILL_DISK, 1, 11),
        ([], "utils.media.video_parts", "AudioEncoder", 0, TERMINATE, 143, 0),
    ],
)
def test_stage_3_goes_on_where_it_was_stopped(
    folder, tmp_path, monkeypatch, capsys, extra, place, name, n_calls, stop, code, n_left
):
    inference_joygen.main([*flags(folder, tmp_path / "whole"), *extra])
    result = result_of(folder, tmp_path / "stopped")
    arguments = [*flags(folder, result.parent), *extra]
    assert parts_folder(result).name == f"{result.name}.parts"
    ended, words = stopped_run("inference_joygen", arguments, place, name, n_calls, stop)
    assert ended == code, words
    assert [path.name for path in result.parent.iterdir()] == [f"{result.name}.parts"]
    if stop != KILL:
        assert words.endswith(KEPT.format(folder=parts_folder(result)))
        assert words.count("\n") == 1
    written = count_calls(monkeypatch, VideoWriter, "write")
    inference_joygen.main(arguments)
    assert len(written) == n_left
    assert contents(result.parent) == contents(tmp_path / "whole")
    capsys.readouterr()
    inference_joygen.main(arguments)
    assert capsys.readouterr().out.splitlines()[-1] == f"{result} is up to date"
    assert len(written) == n_left


def test_a_sheet_is_beside_the_same_video(folder, tmp_path, capsys):
    """Earlier parts without tiles for the contact sheet are generated again."""
    result = result_of(folder, tmp_path / "talk")
    arguments = flags(folder, result.parent)
    ended, words = stopped_run("inference_joygen", arguments, "utils.media.video_parts", "AudioEncoder", 0, TERMINATE)
    assert ended == 143, words
    inference_joygen.main([*arguments, "--debug"])
    assert read_rgb(result.with_suffix(".png"), "advice").std() > 10
    inference_joygen.main(flags(folder, tmp_path / "plain"))
    assert result.read_bytes() == result_of(folder, tmp_path / "plain").read_bytes()
    capsys.readouterr()
    inference_joygen.main(arguments)
    assert capsys.readouterr().out.splitlines()[-1] == f"{result} is up to date"


def test_a_second_run_keeps_away_and_clean_leaves_the_video_alone(folder, tmp_path):
    shutil.copytree(folder / "edit", tmp_path / "edit")
    arguments = [*flags(folder, tmp_path / "talk", intermediate_dir=tmp_path / "edit"), "--clean"]
    result = result_of(folder, tmp_path / "talk")
    with sole_run(parts_folder(result)), pytest.raises(BadInput, match="another run"):
        inference_joygen.main(arguments)
    assert not result.exists()
    inference_joygen.main(arguments)
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["edit", "talk", result.name]


def test_a_clip_that_changed_after_stage_2_is_another(folder, tmp_path):
    content = bytearray((folder / CLIP_NAME).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / CLIP_NAME).write_bytes(content)
    with pytest.raises(BadInput, match="another clip"):
        inference_joygen.main(flags(folder, tmp_path / "talk", video_path=tmp_path / CLIP_NAME))
    (tmp_path / CLIP_NAME).unlink()
    with pytest.raises(BadInput, match="missing"):
        inference_joygen.main(flags(folder, tmp_path / "talk", video_path=tmp_path / CLIP_NAME))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stage", [inference_edit_expression, inference_joygen])
@pytest.mark.parametrize("is_gone", [False, True])
def test_a_clip_that_changes_while_it_is_used(folder, tmp_path, monkeypatch, stage, is_gone):
    """No result mixes two clips, and no parts are kept."""
    clip = Path(shutil.copy(folder / CLIP_NAME, tmp_path / CLIP_NAME))
    place, name = (edit_stage, "render_parts") if stage is inference_edit_expression else (talk_stage, "write_parts")
    original = getattr(place, name)

    def work(*arguments: object, **named: object) -> object:
        result = original(*arguments, **named)
        clip.unlink() if is_gone else clip.write_bytes(clip.read_bytes() + b"more")
        return result

    monkeypatch.setattr(place, name, work)
    arguments = flags(folder, tmp_path / "results", video_path=clip)
    if stage is inference_edit_expression:
        arguments = [*edit_flags(folder, tmp_path / "results"), "--infer_video_path", str(clip)]
    with pytest.raises(BadInput, match="changed while it was used"):
        stage.main(arguments)
    assert [path.name for path in tmp_path.iterdir()] == ([] if is_gone else [CLIP_NAME])


def test_a_speech_that_changes_while_it_is_used(folder, tmp_path, monkeypatch):
    speech = Path(shutil.copy(folder / SPEECH_NAME, tmp_path / SPEECH_NAME))
    original = talk_stage.write_parts

    def work(*arguments: object) -> None:
        original(*arguments)
        speech.write_bytes(speech.read_bytes()[:-2] + b"\0\1")

    monkeypatch.setattr(talk_stage, "write_parts", work)
    with pytest.raises(BadInput, match="changed while it was used"):
        inference_joygen.main(flags(folder, tmp_path / "results", audio_path=speech))
    assert list(tmp_path.iterdir()) == [speech]


def test_a_motion_that_another_run_writes_is_not_taken_for_the_one_read(folder, tmp_path, monkeypatch):
    """Otherwise a run on the other input would find a finished result under its key."""
    arguments = edit_flags(folder, tmp_path / "edit")
    motion = tmp_path / "motion.npy"
    store.save_motion(motion, store.load_motion(folder / "a2m" / Path(SPEECH_NAME).with_suffix(".npy").name))
    original = edit_stage.result_key

    def key_meanwhile(*values: object) -> str:
        store.save_motion(motion, store.load_motion(motion) + 1)
        return original(*values)

    monkeypatch.setattr(edit_stage, "result_key", key_meanwhile)
    with pytest.raises(BadInput, match="changed while it was used"):
        inference_edit_expression.main([*arguments, "--infer_exp_coeff_path", str(motion)])
    assert list(tmp_path.iterdir()) == [motion]


def test_stage_2_does_not_replace_what_stage_3_reads(folder, tmp_path, monkeypatch):
    """Otherwise the video would mix two results of stage 2, under the key of the first."""
    edit = Path(shutil.copytree(folder / "edit", tmp_path / "edit"))
    before, original, refused = contents(edit), talk_stage.write_parts, []

    def work(*arguments: object) -> None:
        with pytest.raises(BadInput, match="another run") as error:
            inference_edit_expression.main([*edit_flags(folder, edit), "--force"])
        refused.append(error)
        original(*arguments)

    monkeypatch.setattr(talk_stage, "write_parts", work)
    inference_joygen.main(flags(folder, tmp_path / "talk", intermediate_dir=edit))
    assert refused and contents(edit) == before
    result = store.edit_dir(edit, folder / CLIP_NAME, folder / SPEECH_NAME)
    with replacing(result), pytest.raises(BadInput, match="another run"):
        inference_joygen.main(flags(folder, tmp_path / "talk", intermediate_dir=edit))
    with reading(result):
        inference_joygen.main(flags(folder, tmp_path / "talk", intermediate_dir=edit))


@pytest.mark.parametrize("change", ["option", "speech", "clip", "weights", "depth", "motion", "nothing"])
def test_what_a_video_is_made_of_is_in_its_key(folder, tmp_path, change):
    for name in ("edit", "unet"):
        shutil.copytree(folder / name, tmp_path / name)
    for name in (CLIP_NAME, SPEECH_NAME):
        shutil.copy2(folder / name, tmp_path / name)
    before = key_of(folder, tmp_path)
    edit = store.edit_dir(tmp_path / "edit", tmp_path / CLIP_NAME, tmp_path / SPEECH_NAME)
    changed = {
        "speech": tmp_path / SPEECH_NAME,
        "clip": tmp_path / CLIP_NAME,
        "weights": tmp_path / "unet" / "config.json",
        "depth": store.depth_path(edit, 3),
        "motion": edit / "landmarks.npy",
    }.get(change)
    if changed is not None:
        content = bytearray(changed.read_bytes())
        content[-1] ^= 1
        changed.write_bytes(content)
    extra = ["--seed", "1"] if change == "option" else []
    after = key_of(folder, tmp_path, *extra)
    assert (after == before) == (change == "nothing")


def key_of(folder: Path, tmp_path: Path, *extra: str) -> str:
    places = {"video_path": CLIP_NAME, "audio_path": SPEECH_NAME, "intermediate_dir": "edit", "unet_model_path": "unet"}
    changes = {name: tmp_path / place for name, place in places.items()}
    options = parse_options(TalkOptions, "", [*flags(folder, tmp_path / "talk", **changes), *extra])
    edit = store.load_edit(store.edit_dir(options.edit_dir, options.video_path, options.audio_path))
    return talk_stage.talk_key(options, options.resolve_pack(), edit)


def test_the_model_that_chooses_the_speaker_is_in_the_key(folder, tmp_path, monkeypatch):
    options = parse_options(EditOptions, "", edit_flags(folder, tmp_path))
    model, keys = tmp_path / "av_agreement.safetensors", []
    monkeypatch.setattr(edit_stage, "agreement_model", lambda: model)
    for content in (None, b"a model", b"another"):
        if content is not None:
            model.write_bytes(content)
        keys.append(edit_stage.open_edit(options, CallbackMonitor()).key)
    assert len(set(keys)) == 3


@pytest.mark.parametrize("stage", [inference_edit_expression, inference_joygen])
def test_a_changed_comment_leaves_a_result_up_to_date(folder, tmp_path, stage):
    """The key depends on inputs, options and weights, not on the code's bytes."""
    make = edit_flags if stage is inference_edit_expression else flags
    arguments = make(folder, tmp_path / "results")
    stage.main(arguments)
    for name in ("models", "utils"):
        shutil.copytree(ROOT / name, tmp_path / "code" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(stage.__file__, tmp_path / "code")
    (tmp_path / "code" / "pretrained_models").symlink_to(ROOT / "pretrained_models")
    for changed in ("models/pipeline/edit_stage.py", "models/pipeline/talk_stage.py", "utils/results/store.py"):
        with (tmp_path / "code" / changed).open("a") as file:
            file.write("# a comment more\n")
    command = [sys.executable, str(tmp_path / "code" / Path(stage.__file__).name), *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].endswith("is up to date")
