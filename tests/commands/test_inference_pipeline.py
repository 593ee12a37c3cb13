"""The pipeline in one process hands the stages what the shell script hands them, and makes the same files."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import inference_pipeline
from tests.commands.test_scripts import ROOT, STAGES, STUB, run_bash, stub_project  # noqa: F401  # a fixture

RECORDER = """
import json, sys
def parse(arguments): return arguments
def main(arguments): print(json.dumps([__file__, *arguments]))
if __name__ == "__main__":
    main(sys.argv[1:])
"""
FLAGS = [
    [],
    ["--faithful", "--seed", "3", "--debug", "--smoothing", "all", "--batch_size", "4", "--mouth_amp=0.6", "--fps=25"],
    ["--gpu_id=-1", "--dwpose_model_path", "a b.onnx", "--speaker", "10,20", "--img_size", "64", "--force"],
    ["--adapt", "50", "--seed", "4"],
    ["--adapt=50", "--adapt=60", "--silence", "open"],
    ["--list-speakers", "--speaker", "left"],
    ["--list_speakers"],
]


@pytest.fixture
def recorders(stub_project):  # noqa: F811
    """A project folder whose stages, run either way, print their arguments."""
    for stage in (*STAGES, "adapt"):
        (stub_project / f"{stage}.py").write_text(RECORDER)
    (stub_project / "inference_pipeline.py").write_bytes((ROOT / "inference_pipeline.py").read_bytes())
    (stub_project / "utils").symlink_to(ROOT / "utils")
    return stub_project


@pytest.mark.parametrize(
    ("audio", "flags"),
    [*(("a.wav", flags) for flags in FLAGS), *((name, []) for name in ("it's a (1).v2.mp3", ".hidden", "-dash.wav"))],
)
def test_stages_get_the_same_words_as_from_the_shell(recorders, tmp_path, flags, audio):
    (tmp_path / "-dash.wav").touch()
    script = recorders / "scripts" / "inference_pipeline.sh"
    words = [audio, "my clip.b.mp4", "out dir", *flags]
    shell, together = (run_bash(script, *words, *extra, cwd=tmp_path) for extra in ([], ["--one-process"]))
    assert (shell.returncode, together.returncode) == (0, 0), shell.stderr + together.stderr
    expected = [json.loads(line) for line in shell.stdout.splitlines()]
    found = [json.loads(line) for line in together.stdout.splitlines()]
    assert len(expected) == (1 if "list" in "".join(flags) else 4 if "adapt" in "".join(flags) else 3)
    assert found == expected


@pytest.mark.parametrize("flag", ["--one-process", "--one_process"])
def test_the_shell_script_s_words_can_be_given_as_they_are(flag):
    words = ["a.wav", "b.mp4", "c", "--seed", "3"]
    assert inference_pipeline.parse([*words, flag]) == inference_pipeline.parse(words)


@pytest.mark.parametrize(
    "arguments", [(), ("a.wav", "b.mp4"), ("a.wav", "b.mp4", "--debug"), ("a", "b", "c", "--seed")]
)
def test_it_says_how_it_is_called(arguments):
    result = run_bash(ROOT / "scripts" / "inference_pipeline.sh", "--one-process", *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("error: --seed needs a value" if len(arguments) == 4 else "usage: ")


def test_help_is_quick_and_loads_nothing_heavy():
    code = "import sys, inference_pipeline\ntry: inference_pipeline.main(['--help'])\n"
    code += "finally: assert not {'torch', 'numpy', 'cv2'} & set(sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert "AUDIO VIDEO RESULT_DIR" in result.stdout


def test_a_mistake_in_the_last_stage_s_flags_shows_first(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        inference_pipeline.main(["a.wav", "b.mp4", str(tmp_path), "--reference", "none"])
    assert stop.value.code == 2
    assert "--reference" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_clean_leaves_other_speeches(tmp_path):
    run = inference_pipeline.Run("a.wav", "b.mp4", str(tmp_path))
    for name in ("a.npy", "c.npy"):
        (tmp_path / "a2m").mkdir(exist_ok=True)
        (tmp_path / "a2m" / name).touch()
    inference_pipeline.clean(run)
    assert [path.name for path in (tmp_path / "a2m").iterdir()] == ["c.npy"]
    (tmp_path / "a2m" / "c.npy").unlink()
    inference_pipeline.clean(run)
    assert not any(tmp_path.iterdir())
