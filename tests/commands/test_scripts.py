"""The shell scripts: usage, quoting, exit codes, and what setup needs to know that it has nothing to do."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SHELL_SCRIPTS = [*sorted((ROOT / "scripts").rglob("*.sh")), ROOT / ".ci" / "run"]
REQUIREMENT_FILES = ("requirements.txt", "requirements-nodeps.txt", "requirements-dev.txt")
STAGES = ("inference_audio2motion", "inference_edit_expression", "inference_joygen")
STUB = """
import json, sys
print(json.dumps(sys.argv))
sys.exit({code})
"""


def run_bash(script: Path, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["bash", str(script), *arguments]
    environment = {**os.environ, "PATH": path}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def stub_project(tmp_path):
    """A project folder with the real shell scripts and stages that only print their arguments."""
    root = tmp_path / "a project's folder (1)"
    shutil.copytree(ROOT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for stage in STAGES:
        (root / f"{stage}.py").write_text(STUB.format(code=0))
    return root


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_scripts_are_strict_and_executable(script):
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


@pytest.mark.parametrize("arguments", [(), ("a.wav",), ("a.wav", "b.mp4"), ("a.wav", "b.mp4", "--debug")])
def test_pipeline_says_how_it_is_called(arguments):
    result = run_bash(ROOT / "scripts" / "inference_pipeline.sh", *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("usage: ")


def test_pipeline_names_a_flag_without_its_value():
    result = run_bash(ROOT / "scripts" / "inference_pipeline.sh", "a.wav", "b.mp4", "out", "--seed")
    assert result.returncode == 2
    assert "--seed" in result.stderr


@pytest.mark.parametrize(
    "audio",
    ["speech.mp3", "my clip (1) it's.mp3", "./-dash $HOME `x`.a.wav", "no suffix", ".hidden", 'tön"e.m4a', "a\n.wav"],
)
def test_pipeline_hands_names_through(stub_project, tmp_path, audio):
    video, result_dir = "my clip (1) it's.mp4", "re sults/it's"
    result = run_bash(stub_project / "scripts" / "inference_pipeline.sh", audio, video, result_dir, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    motion, edit, talk = (json.loads(line) for line in result.stdout.splitlines())
    stem = Path(audio).stem
    assert motion[1:] == ["--drv_aud", audio, "--result_dir", f"{result_dir}/a2m", f"--exp_file={stem}.npy"]
    assert value(edit, "--infer_video_path") == video
    assert value(edit, "--infer_exp_coeff_path") == f"{result_dir}/a2m/{stem}.npy"
    assert value(edit, "--infer_result_dir") == f"{result_dir}/edit_expression"
    assert (value(talk, "--audio_path"), value(talk, "--video_path")) == (audio, video)
    assert value(talk, "--intermediate_dir") == f"{result_dir}/edit_expression"
    assert value(talk, "--result_dir") == f"{result_dir}/talk"
    assert "--enable_pose_driven" in talk


def test_pipeline_takes_files_whose_name_begins_with_a_dash(stub_project, tmp_path):
    (tmp_path / "-speech.wav").touch()
    (tmp_path / "--gpu_id").touch()
    script = stub_project / "scripts" / "inference_pipeline.sh"
    result = run_bash(script, "-speech.wav", "--gpu_id", "out", "--fps", "source", "--length=hold", cwd=tmp_path)
    motion, edit, talk = (json.loads(line) for line in result.stdout.splitlines())
    assert motion[1:] == ["--drv_aud", "./-speech.wav", "--result_dir", "out/a2m", "--exp_file=-speech.npy"]
    assert value(edit, "--infer_video_path") == "./--gpu_id"
    assert edit[-3:] == ["--fps", "source", "--length=hold"]
    assert value(talk, "--audio_path") == "./-speech.wav"
    assert talk[-2:] == ["--fps", "source"]


def value(arguments: list[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


def test_pipeline_gives_flags_to_the_stages_that_know_them(stub_project):
    flags = ["--faithful", "--seed", "3", "--debug", "--smoothing", "all", "--batch_size", "4", "--mouth_amp", "0.6"]
    result = run_bash(stub_project / "scripts" / "inference_pipeline.sh", "a.wav", "b.mp4", "out", *flags)
    motion, edit, talk = (json.loads(line) for line in result.stdout.splitlines())
    assert motion[-5:] == ["--faithful", "--seed", "3", "--mouth_amp", "0.6"]
    assert edit[-3:] == ["--faithful", "--smoothing", "all"]
    assert talk[-6:] == ["--faithful", "--seed", "3", "--debug", "--batch_size", "4"]
    flags = ["--gpu_id=-1", "--recon", "fit", "--dwpose_model_path=a b.onnx", "--epoch", "7", "--img_size", "64"]
    result = run_bash(stub_project / "scripts" / "inference_pipeline.sh", "a.wav", "b.mp4", "out", *flags)
    motion, edit, talk = (json.loads(line) for line in result.stdout.splitlines())
    assert motion[-1:] == ["--gpu_id=-1"]
    assert edit[-6:] == ["--gpu_id=-1", "--recon", "fit", "--dwpose_model_path=a b.onnx", "--epoch", "7"]
    assert talk[-3:] == ["--gpu_id=-1", "--img_size", "64"]


@pytest.mark.parametrize("flag", ["--list-speakers", "--list_speakers"])
def test_pipeline_lists_speakers_and_does_nothing_else(stub_project, flag):
    script = stub_project / "scripts" / "inference_pipeline.sh"
    result = run_bash(script, "a.wav", "b.mp4", "out", "--speaker", "10,20", flag)
    assert result.returncode == 0, result.stderr
    (edit,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert (value(edit, "--infer_video_path"), value(edit, "--speaker")) == ("b.mp4", "10,20")
    assert flag in edit and "--infer_exp_coeff_path" not in edit


def test_pipeline_cleans_up_after_the_last_stage_only(stub_project, tmp_path):
    script = stub_project / "scripts" / "inference_pipeline.sh"
    motions = [tmp_path / "out" / "a2m" / name for name in ("a.npy", "b.npy")]
    motions[0].parent.mkdir(parents=True)
    for motion in motions:
        motion.touch()
    (stub_project / f"{STAGES[2]}.py").write_text(STUB.format(code=1))
    assert run_bash(script, "a.wav", "b.mp4", "out", "--clean", cwd=tmp_path).returncode == 1
    assert motions[0].exists()
    (stub_project / f"{STAGES[2]}.py").write_text(STUB.format(code=0))
    result = run_bash(script, "a.wav", "b.mp4", "out", "--clean", "--force", cwd=tmp_path)
    motion, edit, talk = (json.loads(line) for line in result.stdout.splitlines())
    assert (edit[-1], talk[-2:]) == ("--force", ["--clean", "--force"])
    assert "--clean" not in edit + motion
    assert [motion.exists() for motion in motions] == [False, True]
    motions[1].rename(motions[0])
    assert run_bash(script, "a.wav", "b.mp4", "out", "--clean", cwd=tmp_path).returncode == 0
    assert not motions[0].parent.exists()


@pytest.mark.parametrize("flags", [["--adapt", "50", "--seed", "4"], ["--adapt=50", "--seed", "4"]])
def test_pipeline_adapts_before_it_draws(stub_project, flags):
    (stub_project / "adapt.py").write_text(STUB.format(code=0))
    result = run_bash(stub_project / "scripts" / "inference_pipeline.sh", "a.wav", "my clip.b.mp4", "out", *flags)
    _, _, adapt, talk = (json.loads(line) for line in result.stdout.splitlines())
    assert (value(adapt, "--video_path"), value(adapt, "--result_dir")) == ("my clip.b.mp4", "out/adapted")
    assert (value(adapt, "--steps"), value(adapt, "--seed")) == ("50", "4")
    assert value(talk, "--unet_model_path") == "out/adapted/my clip.b/unet"
    assert "--adapt" not in talk


@pytest.mark.parametrize("failing", range(len(STAGES)))
def test_pipeline_stops_with_the_code_of_the_stage_that_failed(stub_project, failing):
    (stub_project / f"{STAGES[failing]}.py").write_text(STUB.format(code=2 + failing))
    result = run_bash(stub_project / "scripts" / "inference_pipeline.sh", "a.wav", "b.mp4", "out")
    assert result.returncode == 2 + failing
    assert len(result.stdout.splitlines()) == failing + 1


@pytest.mark.parametrize("stage", STAGES)
def test_stage_scripts_run_the_demo_or_the_given_flags(stub_project, stage):
    script = stub_project / "scripts" / f"{stage}.sh"
    defaults = json.loads(run_bash(script).stdout)[1:]
    assert any(argument.startswith(f"{stub_project}/demo/") for argument in defaults)
    assert json.loads(run_bash(script, "--flag", "a b").stdout)[1:] == ["--flag", "a b"]


def test_setup_has_nothing_to_do_when_its_stamp_fits(tmp_path):
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    lines = []
    for name in REQUIREMENT_FILES:
        shutil.copy(ROOT / name, tmp_path)
        lines.append(f"{hashlib.sha256((ROOT / name).read_bytes()).hexdigest()} {name}\n")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(Path(sys.executable).resolve())
    (tmp_path / ".venv" / ".requirements.sha256").write_text("".join(lines))
    for flags in ([], ["--dev"]):
        result = run_bash(tmp_path / "scripts" / "setup.sh", *flags)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_setup_refuses_unknown_flags():
    result = run_bash(ROOT / "scripts" / "setup.sh", "--everything")
    assert result.returncode == 2
    assert result.stderr.startswith("usage: ")


@pytest.mark.parametrize("name", REQUIREMENT_FILES)
def test_requirements_are_pinned_and_installed(name):
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    for line in filter(None, lines):
        package, _, wanted = line.partition("==")
        assert wanted, f"{name}: {line} is not pinned"
        assert version(package).partition("+")[0] == wanted, f"{package}: run scripts/setup.sh --dev"


def test_demo_portrait_is_repeatable_and_moves_smoothly():
    from scripts.make_demo_media import FRAME_SIZE, moving_portrait, slow_waves

    photograph = np.random.default_rng(1).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    first, again, other = (list(moving_portrait(photograph, 3, seed)) for seed in (0, 0, 1))
    assert first[0].shape == (FRAME_SIZE, FRAME_SIZE, 3)
    assert np.array_equal(first, again)
    assert np.array_equal(first[0], other[0])  # every motion starts at rest
    assert not np.array_equal(first[2], other[2])
    motion = slow_waves(np.arange(150) / 25, np.random.default_rng(0))
    assert np.abs(motion).max() <= 1
    assert np.abs(np.diff(motion)).max() < 0.1


TRAINING_STUB = """
import pathlib, sys
folder = next(word.partition("=")[2] for word in sys.argv if word.startswith("checkpoint_dir="))
for part in ("unet", "refiner"):
    file = pathlib.Path(folder, "final", part, "config.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(pathlib.Path(folder).name)
pathlib.Path(folder, "final", "whisper.pt").write_text("")
"""


def test_a_stopped_build_of_the_mini_pack_goes_on(tmp_path):
    """What was trained, but not or only half put into the pack, is put there by the next run."""
    root, work = tmp_path / "root", tmp_path / "work"
    pack = work / "pack"
    shutil.copytree(ROOT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "train_joygen.py").write_text(TRAINING_STUB)
    (root / "preprocess_dataset.py").write_text("")
    mini = root / "pretrained_models" / "mini"
    kept = [mini / "pack.json", mini / "av_agreement.safetensors"]
    done = [pack / "face_model.safetensors", pack / "vae/config.json", pack / "audio2motion/config.yaml"]
    for path in (*kept, *done):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    clips = tmp_path / "clips"
    (clips / "talk").mkdir(parents=True)
    (clips / "talk" / "menendez.mp4").write_text("")
    (pack / "unet").mkdir()  # a copy that was stopped

    def build() -> None:
        result = run_bash(root / "scripts" / "mini_pack" / "build.sh", str(clips), str(work))
        assert result.returncode == 0, result.stderr
        assert {path.relative_to(pack).as_posix(): path.read_text() for path in pack.glob("[ru]*/**/*.json")} == {
            "refiner/config.json": "together",
            "unet/config.json": "together",
        }

    build()
    (pack / "unet" / "config.json").write_text("joygen")  # as before the last step
    build()
