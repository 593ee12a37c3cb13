"""Unusable input of the three stages: one line that names the file, exit code 2, and an unchanged disk."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.helpers import media, talking_clip
from tests.helpers.stage_world import EDIT, MOTION_NAME, STAGES, arguments_of, contents, fill_world
from utils.results import store

ROOT = Path(__file__).resolve().parents[2]


class RunsCode:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("ran",)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A folder with all inputs of the three stages."""
    return fill_world(tmp_path_factory.mktemp("good"))


@pytest.fixture
def world(good, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(good, tmp_path / "the world"))


@pytest.fixture
def run(world, monkeypatch, capfd) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Run a script as ``python <stage>.py`` would, in this process: exit code, stdout, stderr."""
    from diffusers.utils import logging

    handler, verbosity = signal.getsignal(signal.SIGTERM), logging.get_verbosity()
    logging.set_verbosity_error()  # as in the scripts' own processes
    monkeypatch.chdir(world)

    def run_stage(stage: str, **changes: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{stage}.py", *arguments_of(stage, world, changes)])
        capfd.readouterr()
        code = 0
        try:
            runpy.run_path(str(ROOT / f"{stage}.py"), run_name="__main__")
        except SystemExit as end:
            code = end.code
        return code, *capfd.readouterr()

    yield run_stage
    signal.signal(signal.SIGTERM, handler)
    logging.set_verbosity(verbosity)


@pytest.fixture
def refuses(world, run) -> Callable[..., str]:
    """Run a stage that must refuse its input, check exit code, output and disk, and return its message."""

    def check(stage: str, named: Path | str, **changes: object) -> str:
        before = contents(world)
        code, _, errors = run(stage, **changes)
        assert code == 2, errors
        assert errors.startswith("error: ")
        assert errors.count("\n") == 1
        assert str(named) in errors
        assert contents(world) == before
        return errors

    return check


@pytest.mark.parametrize("stage", STAGES)
def test_good_input_is_accepted(world, run, stage):
    before = contents(world)
    code, output, errors = run(stage)
    assert (code, errors) == (0, "")
    assert str(world / "results") in output.splitlines()[-1]
    after = contents(world)
    assert {name: after[name] for name in before} == before
    assert all(name.split("/")[0] == "results" and ".partial" not in name for name in after if name not in before)


@pytest.mark.parametrize("stage", STAGES)
def test_as_a_command(world, stage):
    """The same in a separate process, where libraries print nothing to stderr."""
    flag = {"inference_audio2motion": "drv_aud", "inference_joygen": "audio_path"}.get(stage, "infer_video_path")
    missing = world / "no such file.mp4"
    command = [sys.executable, str(ROOT / f"{stage}.py"), *arguments_of(stage, world, {flag: missing})]
    result = subprocess.run(command, cwd=world, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert str(missing) in result.stderr


MEDIA_FLAGS = [
    ("inference_audio2motion", "drv_aud"),
    ("inference_edit_expression", "infer_video_path"),
    ("inference_joygen", "video_path"),
    ("inference_joygen", "audio_path"),
]


def spoil_media(world: Path, kind: str) -> Path:
    """An unusable media file."""
    path = world / f"{kind} clip.mp4"
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("certainly not a film\n" * 20)
    elif kind == "truncated":  # its index stands at the end and is lost
        whole = media.write_clip(world / "whole.mp4", media.face_frames(5), sound=media.speech_like(0.2, 48_000))
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    return path


@pytest.mark.parametrize(("stage", "flag"), MEDIA_FLAGS)
@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text", "truncated"])
def test_media_that_cannot_be_read(world, refuses, stage, flag, kind):
    path = spoil_media(world, kind)
    refuses(stage, path, **{flag: path})


@pytest.mark.parametrize(("stage", "flag"), [(stage, flag) for stage, flag in MEDIA_FLAGS if "video" in flag])
def test_sound_in_place_of_a_clip(world, refuses, stage, flag):
    song = media.write_song_with_cover(world / "song.mp3", media.speech_like(0.3, 44_100), 44_100)
    for path in (world / talking_clip.SPEECH_NAME, song):
        assert "no video stream" in refuses(stage, path, **{flag: path})


@pytest.mark.parametrize(("stage", "flag"), [("inference_audio2motion", "drv_aud"), ("inference_joygen", "audio_path")])
def test_silent_clip_in_place_of_speech(world, refuses, stage, flag):
    path = world / talking_clip.CLIP_NAME
    assert "no sound track" in refuses(stage, path, **{flag: path})


def test_speech_without_a_sample(world, refuses):
    path = media.write_wav(world / "nothing.wav", np.zeros(0))
    refuses("inference_audio2motion", path, drv_aud=path)
    path = media.write_wav(world / "blip.wav", np.zeros(100))
    assert "too short" in refuses("inference_audio2motion", path, drv_aud=path)


def test_no_face_anywhere(world, refuses):
    path = media.write_clip(world / "wall.mp4", media.blank_frames(4))
    assert "none in 4" in refuses("inference_edit_expression", path, infer_video_path=path)


MOTIONS = {
    "transposed": np.zeros((64, 20), np.float32),
    "too many columns": np.zeros((20, 257), np.float32),
    "one row": np.zeros(64, np.float32),
    "integers": np.zeros((20, 64), np.int64),
    "no frame": np.zeros((0, 64), np.float32),
    "not a number": np.full((20, 64), np.nan, np.float32),
    "infinite": np.full((20, 64), np.inf, np.float32),
}


@pytest.mark.parametrize("kind", [*MOTIONS, "missing", "text", "archive", "pickle"])
def test_motion_that_does_not_fit(world, refuses, kind):
    path = world / "odd motion.npy"
    if kind in MOTIONS:
        np.save(path, MOTIONS[kind])
    elif kind == "text":
        path.write_text("0.1 0.2 0.3")
    elif kind == "archive":
        with path.open("wb") as file:
            np.savez(file, motion=np.zeros((20, 64), np.float32))
    elif kind == "pickle":
        np.save(path, np.array([RunsCode()], dtype=object), allow_pickle=True)
    refuses("inference_edit_expression", path, infer_exp_coeff_path=path)
    assert not (world / "ran").exists()


def spoil_weights(path: Path, kind: str) -> None:
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "web page":
        path.write_text("<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>")
    elif kind == "LFS pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 135\n")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "text":
        path.write_text("these are no weights, whatever the name says\n" * 4)


# stage, flag, the damaged weights file, the flag's value
WEIGHTS = [
    ("inference_audio2motion", "a2m_ckpt", "a2m.ckpt", "a2m.ckpt"),
    ("inference_edit_expression", "bfm_folder", "face_model.safetensors", "face_model.safetensors"),
    ("inference_joygen", "unet_model_path", "unet/diffusion_pytorch_model.safetensors", "unet"),
    ("inference_joygen", "vae_model_path", "vae/diffusion_pytorch_model.safetensors", "vae"),
    ("inference_joygen", "whisper_model_path", "whisper.pt", "whisper.pt"),
]


@pytest.mark.parametrize(("stage", "flag", "name", "given"), WEIGHTS, ids=[flag for _, flag, _, _ in WEIGHTS])
@pytest.mark.parametrize("kind", ["missing", "empty", "web page", "LFS pointer", "truncated", "text"])
def test_weights_that_cannot_be_read(world, refuses, stage, flag, name, given, kind):
    spoil_weights(world / name, kind)
    named = world / (given if kind == "missing" else name)
    refuses(stage, named, **{flag: world / given})


@pytest.mark.parametrize(("stage", "flag", "name"), [weights[:3] for weights in WEIGHTS if weights[3] == weights[2]])
def test_weights_that_hold_code(world, refuses, stage, flag, name):
    path = (world / name).with_suffix(".ckpt")
    torch.save({"state_dict": {"model": RunsCode()}}, path)
    refuses(stage, path, **{flag: path})
    assert not (world / "ran").exists()


def reshape_one(path: Path, key: str) -> None:
    """Add a column of zeros to one weight."""
    if path.suffix == ".safetensors":
        arrays = load_file(path)
        save_file(arrays | {key: np.concatenate([arrays[key], arrays[key][..., :1]], axis=-1)}, path)
        return
    content = torch.load(path, weights_only=True)
    state = content.get("model_state_dict") or content["state_dict"]["model"]
    state[key] = torch.cat([state[key], state[key][..., :1]], dim=-1)
    torch.save(content, path)


@pytest.mark.parametrize(
    ("stage", "flag", "name", "given", "key"),
    [
        (*WEIGHTS[0], "vae.encoder.out_proj.weight"),
        (*WEIGHTS[1], "alignment_points"),
        (*WEIGHTS[2], "conv_out.weight"),
        (*WEIGHTS[3], "encoder.conv_in.weight"),
        (*WEIGHTS[4], "encoder.conv2.weight"),
    ],
    ids=[flag for _, flag, _, _ in WEIGHTS],
)
def test_weights_of_another_shape(world, refuses, stage, flag, name, given, key):
    reshape_one(world / name, key)
    message = refuses(stage, world / name, **{flag: world / given})
    assert key in message
    assert "found" in message


@pytest.mark.parametrize("part", ["unet", "vae"])
@pytest.mark.parametrize("config", [None, "", "[]", "[" * 100_000], ids=["none", "empty", "list", "deep"])
def test_model_folders_without_a_usable_config(world, refuses, part, config):
    path = world / part / "config.json"
    path.unlink()
    if config is not None:
        path.write_text(config)
    refuses("inference_joygen", path.parent, **{f"{part}_model_path": path.parent})


ARRAYS = ("boxes", "landmarks", "source_landmarks", "coeffs", "frame_index", "valid", "strength")


@pytest.mark.parametrize("name", ["track.json", *(f"{array}.npy" for array in ARRAYS), "depth/00000002.png"])
@pytest.mark.parametrize("kind", ["missing", "truncated"])
def test_incomplete_stage_2(world, refuses, name, kind):
    path = world / EDIT / name
    spoil_weights(path, kind)
    if kind == "truncated" and path.suffix == ".png":  # found when its frame is generated
        assert "unreadable image" in refuses("inference_joygen", path)
        return
    assert "inference_edit_expression" in refuses("inference_joygen", path)


def test_stage_2_that_was_never_run(world, refuses):
    shutil.rmtree(world / "edit")
    refuses("inference_joygen", world / EDIT)


@pytest.mark.parametrize("change", [{"source_bytes": 1}, {"width": 100}, {"schema": 0}, {"n_frames": 7}, {"colour": 1}])
def test_stage_2_of_another_clip_or_version(world, refuses, change):
    path = world / EDIT / store.TRACK_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refuses("inference_joygen", world / EDIT)


def test_another_clip_of_the_same_name(world, refuses):
    other = world / "other" / talking_clip.CLIP_NAME
    other.parent.mkdir()
    media.write_clip(other, media.face_frames(5))
    message = refuses("inference_joygen", world / EDIT, video_path=other)
    assert "another clip" in message


def test_longer_speech_than_stage_2_had(world, refuses):
    longer = world / "other" / talking_clip.SPEECH_NAME
    longer.parent.mkdir()
    media.write_wav(longer, media.speech_like(5.0))
    assert "shorter speech" in refuses("inference_joygen", world / EDIT, audio_path=longer)


RESULT_FLAGS = [(stage, "infer_result_dir" if "edit" in stage else "result_dir") for stage in STAGES]


@pytest.mark.parametrize(("stage", "flag"), RESULT_FLAGS)
@pytest.mark.parametrize("kind", ["file", "below a file", "long name"])
def test_result_folder_that_cannot_be_written(world, refuses, stage, flag, kind):
    occupied = world / "occupied"
    occupied.write_text("mine")
    target = {"file": occupied, "below a file": occupied / "results", "long name": world / ("n" * 300)}[kind]
    refuses(stage, target, **{flag: target})


def test_folder_of_the_user_is_not_replaced(world, refuses):
    taken = world / "results" / Path(talking_clip.CLIP_NAME).stem / Path(MOTION_NAME).stem
    taken.mkdir(parents=True)
    (taken / "holiday.jpg").write_bytes(b"a picture")
    refuses("inference_edit_expression", taken)
