"""The shell scripts: usage, quoting, exit codes, and setup's check for finished installations."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from functools import partial
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
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


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
pathlib.Path(folder, "words").write_text(" ".join(sys.argv))
"""


@pytest.fixture
def pack_build(tmp_path):
    """Runs build.sh with trainings of stage 3 that only write files, everything else being finished."""
    root, pack = tmp_path / "root", tmp_path / "work" / "pack"
    shutil.copytree(ROOT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "train_joygen.py").write_text(TRAINING_STUB)
    (root / "preprocess_dataset.py").write_text("")
    mini = root / "pretrained_models" / "mini"
    kept = [mini / name for name in ("pack.json", "av_agreement.safetensors", "av_log_mel.safetensors")]
    done = [pack / "face_model.safetensors", pack / "vae/config.json", pack / "audio2motion/config.yaml"]
    for path in (*kept, *done, tmp_path / "clips" / "talk" / "menendez.mp4"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return partial(run_bash, root / "scripts" / "mini_pack" / "build.sh", str(tmp_path / "clips"), str(pack.parent))


def test_a_stopped_build_of_the_mini_pack_goes_on(pack_build, tmp_path):
    """Trained networks that are not, or partly, exported to the pack are exported by the next run."""
    pack = tmp_path / "work" / "pack"
    (pack / "unet").mkdir()  # an interrupted copy

    def build() -> None:
        result = pack_build()
        assert result.returncode == 0, result.stderr
        assert {path.relative_to(pack).as_posix(): path.read_text() for path in pack.glob("[ru]*/**/*.json")} == {
            "refiner/config.json": "together",
            "unet/config.json": "together",
        }

    build()
    (pack / "unet" / "config.json").write_text("joygen")  # as before the last step
    build()


def test_minutes_of_a_build_reach_every_training_of_stage_3(pack_build, tmp_path):
    result = pack_build("--device", "cpu", "--minutes", "10")
    assert result.returncode == 0, result.stderr
    for name, minutes in (("joygen", "3.5"), ("refiner", "1.5"), ("together", "3")):
        words = (tmp_path / "work" / name / "words").read_text().split()
        assert f"opti.max_minutes={minutes}" in words


@pytest.mark.parametrize(
    "words", [["--device", "tpu"], ["--minutes", "0"], ["--minutes", "much"], ["--minutes"], ["--minute", "3"], ["a"]]
)
def test_a_wrong_command_line_of_a_build_is_one_line(pack_build, words):
    result = pack_build(*words)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
