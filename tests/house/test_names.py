"""Any valid name of clips, speeches and folders: used unchanged, printed in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.test_scripts import STAGES, stub_project  # noqa: F401  # a fixture
from tests.helpers import talking_clip
from tests.helpers.stage_world import EDIT, ROOT, arguments_of, contents, fill_world, run_stage
from utils.core.errors import BadInput, printable
from utils.results import store

# FFmpeg would parse text before the first colon as a protocol, and %d as a frame number.
ODD = os.fsdecode(b'12:30 "it\'s"  #1 %d \n $HOME `x` \\ \xff \xc3\xbc\xf0\x9f\x98\x80.v2')
ODD_PRINTABLE = '12:30 "it\'s"  #1 %d \\n $HOME `x` \\ \\xff ü😀.v2'


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    return fill_world(tmp_path_factory.mktemp("good"))


@pytest.fixture
def world(good, tmp_path, monkeypatch) -> Path:
    """A copy, the test's working directory."""
    copied = Path(shutil.copytree(good, tmp_path / "world"))
    monkeypatch.chdir(copied)
    return copied


def name_media(world: Path, stem: str) -> None:
    (world / talking_clip.CLIP_NAME).rename(world / f"{stem}.mp4")
    (world / talking_clip.SPEECH_NAME).rename(world / f"{stem}.wav")


def test_all_stages_take_any_name(world, capsys):
    name_media(world, ODD)
    folder, clip, speech = Path(f"{ODD} results"), f"{ODD}.mp4", f"{ODD}.wav"  # relative, so that 12: comes first
    changes: list[dict[str, object]] = [
        {"drv_aud": speech, "result_dir": folder},
        {"infer_video_path": clip, "infer_exp_coeff_path": folder / f"{ODD}.npy", "infer_result_dir": folder},
        {"video_path": clip, "audio_path": speech, "intermediate_dir": folder, "result_dir": folder},
    ]
    for stage, values in zip(STAGES, changes, strict=True):
        assert run_stage(stage, arguments_of(stage, world, values)) == 0
        written = capsys.readouterr()
        assert written.err == ""
        assert ODD_PRINTABLE in written.out
    names = {path.name for path in folder.iterdir()}
    assert names == {ODD, f"{ODD}.npy", f"{ODD}#{ODD}.mp4"}
    assert store.load_track_record(folder / ODD / ODD).source_name == clip
    again = run_stage(STAGES[2], arguments_of(STAGES[2], world, changes[2]))
    assert (again, "is up to date" in capsys.readouterr().out) == (0, True)


@pytest.mark.parametrize("stage", STAGES)
def test_an_odd_name_is_printed_in_one_line(world, capsys, stage):
    flag = {"inference_audio2motion": "drv_aud", "inference_joygen": "audio_path"}.get(stage, "infer_exp_coeff_path")
    before = contents(world)
    assert run_stage(stage, arguments_of(stage, world, {flag: ODD})) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"({ODD_PRINTABLE})" in error
    (world / ODD).mkdir()
    (world / ODD).chmod(0o500)
    (world / ODD / "results").symlink_to("nowhere")
    flag = "infer_result_dir" if "edit" in stage else "result_dir"
    assert run_stage(stage, arguments_of(stage, world, {flag: f"{ODD}/results"})) == 2
    error = capsys.readouterr().err
    assert (error.count("\n"), f"({ODD_PRINTABLE}/results" in error) == (1, True), error
    (world / ODD).chmod(0o700)
    shutil.rmtree(world / ODD)
    assert contents(world) == before


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"LC_ALL": "C"}, {}]
)
@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_names_are_printed_in_any_encoding(world, locale, encoding):
    name_media(world, ODD)
    code = (
        "import sys; from pathlib import Path; from utils.core import cli; from utils.core.errors import BadInput\n"
        "def main(_):\n"
        "    path = next(Path('.').glob('*.mp4'))\n"
        "    print(f'{path}: 20 frames')\n"
        "    raise BadInput('no face found', path)\n"
        "cli.run(main)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("LANG", "LC_ALL")}
    environment |= {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT), **locale}
    result = subprocess.run([sys.executable, "-c", code], cwd=world, env=environment, capture_output=True, check=False)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith(b"error: no face found (12:30 ") and result.stderr.count(b"\n") == 1
    assert result.stdout.endswith(b".v2.mp4: 20 frames\n")


def test_names_that_are_too_long(world, capsys):
    """Each input's name fits; the result's name, composed of both, is too long."""
    name_media(world, "n" * 200)
    (world / "edit" / ("n" * 200)).mkdir()
    (world / EDIT).rename(world / "edit" / ("n" * 200) / ("n" * 200))
    before = contents(world)
    changes: dict[str, object] = {"video_path": f"{'n' * 200}.mp4", "audio_path": f"{'n' * 200}.wav"}
    assert run_stage("inference_joygen", arguments_of("inference_joygen", world, changes)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: File name too long (") and error.count("\n") == 1
    assert "shorter name" in error
    assert contents(world) == before


NAMES = [ODD, f"-{ODD}", "--seed", "n" * 250]


@pytest.mark.parametrize("name", NAMES, ids=["odd", "dash", "flag", "long"])
def test_the_pipeline_hands_any_name_to_its_scripts(stub_project, tmp_path, name):  # noqa: F811
    shutil.copy(ROOT / "inference_pipeline.py", stub_project)
    for floor in ("utils", "models"):
        (stub_project / floor).symlink_to(ROOT / floor)
    clip, speech = f"{name}.mp4", f"{name}.wav"
    (tmp_path / clip).touch()
    (tmp_path / speech).touch()
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    script = stub_project / "scripts" / "inference_pipeline.sh"
    command = ["bash", str(script), speech, clip, f"./{name}", "--separate_processes"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    motion, edit, talk = (json.loads(line)[1:] for line in result.stdout.splitlines())
    motion_path = f"{name}/a2m/{name}.npy"
    assert motion == [f"--drv_aud={speech}", f"--result_dir={name}/a2m", f"--exp_file={name}.npy"]
    assert f"--infer_video_path={clip}" in edit and f"--infer_exp_coeff_path={motion_path}" in edit
    assert f"--infer_result_dir={name}/edit_expression" in edit
    assert f"--audio_path={speech}" in talk and f"--video_path={clip}" in talk


def test_printable_names():
    assert printable(ODD) == ODD_PRINTABLE
    assert printable("a\r\x1b[31m\u2028b\x00") == "a\\r\\x1b[31m\\u2028b\\x00"
    assert printable("\ud800") == "?"
    error = BadInput("broken", Path("two  spaces\n"), found="a\nb  c", advice="do\nthis")
    assert str(error) == "broken (two  spaces\\n): found a b c; do this"
