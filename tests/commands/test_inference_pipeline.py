"""The pipeline's command: its arguments become the options of every stage, in one process or in several."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import inference_pipeline
from models.pipeline.options import AdaptOptions, EditOptions, MotionOptions, TalkOptions
from models.pipeline.pipeline_options import PipelineOptions
from tests.commands.test_scripts import ROOT, STAGES, STUB, run_bash, stub_project  # noqa: F401  # a fixture
from tests.helpers import media, people_scene, talking_clip
from tests.helpers.stage_world import contents, fill_world, small_networks
from utils.core.errors import BadInput
from utils.core.options import parse_options

SHELL_SCRIPT = ROOT / "scripts" / "inference_pipeline.sh"
KINDS = (MotionOptions, EditOptions, TalkOptions)


@pytest.fixture
def recorders(stub_project):  # noqa: F811
    """A project folder with the real pipeline, whose stages print their arguments."""
    for stage in (*STAGES, "adapt"):
        (stub_project / f"{stage}.py").write_text(STUB.format(code=0))
    (stub_project / "inference_pipeline.py").write_bytes((ROOT / "inference_pipeline.py").read_bytes())
    for floor in ("utils", "models"):
        (stub_project / floor).symlink_to(ROOT / floor)
    return stub_project


def recorded(project: Path, cwd: Path, *words: str) -> list[list[str]]:
    """The arguments of every stage in turn."""
    result = run_bash(project / "scripts" / "inference_pipeline.sh", *words, "--separate_processes", cwd=cwd)
    assert result.returncode == 0, result.stderr
    return [json.loads(line)[1:] for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    "audio",
    ["speech.mp3", "my clip (1) it's.mp3", "./-dash $HOME `x`.a.wav", "no suffix", ".hidden", 'tön"e.m4a', "a\n.wav"],
)
def test_names_reach_the_stages(recorders, tmp_path, audio):
    video, result_dir = "my clip (1) it's.mp4", "re sults/it's"
    words = recorded(recorders, tmp_path, audio, video, result_dir)
    motion, edit, talk = (parse_options(kind, "", given) for kind, given in zip(KINDS, words, strict=True))
    folder, stem = Path(result_dir), Path(audio).stem
    assert motion.audio_path == talk.audio_path == Path(audio)
    assert edit.video_path == talk.video_path == Path(video)
    assert motion.motion_path == edit.motion_path == folder / "a2m" / f"{stem}.npy"
    assert edit.result_dir == talk.edit_dir == folder / "edit_expression"
    assert (talk.result_dir, talk.pose_driven) == (folder / "talk", True)


def test_files_whose_name_begins_with_a_dash(recorders, tmp_path):
    for name in ("-speech.wav", "--gpu_id"):
        (tmp_path / name).touch()
    words = recorded(recorders, tmp_path, "-speech.wav", "--gpu_id", "out", "--fps", "source", "--length=hold")
    motion, edit, talk = (parse_options(kind, "", given) for kind, given in zip(KINDS, words, strict=True))
    assert motion.audio_path == talk.audio_path == Path("-speech.wav")
    assert (edit.video_path, edit.fps, edit.length, talk.fps) == (Path("--gpu_id"), "source", "hold", "source")


def test_a_flag_reaches_every_stage_that_has_it(recorders, tmp_path):
    flags = [
        "--faithful",
        "--seed",
        "3",
        "--debug",
        "--smoothing",
        "all",
        "--batch_size",
        "4",
        "--mouth_amp=0.6",
        "--gpu_id=-1",
        "--force",
    ]
    words = recorded(recorders, tmp_path, "a.wav", "b.mp4", "out", *flags)
    motion, edit, talk = (parse_options(kind, "", given) for kind, given in zip(KINDS, words, strict=True))
    assert (motion.faithful, edit.faithful, talk.faithful) == (True, True, True)
    assert (motion.gpu_id, edit.gpu_id, talk.gpu_id) == (-1, -1, -1)
    assert (motion.seed, talk.seed, motion.mouth_amp) == (3, 3, 0.6)
    assert (edit.smoothing, edit.force, talk.force) == ("all", True, True)
    assert (talk.debug, talk.batch_size) == (True, 4)
    expected = PipelineOptions.of(
        Path("a.wav"),
        Path("b.mp4"),
        Path("out"),
        {"faithful": True, "seed": 3, "debug": True, "smoothing": "all", "batch_size": 4, "mouth_amp": 0.6}
        | {"gpu_id": -1, "force": True},
    )
    assert (motion, edit, talk) == (expected.motion, expected.edit, expected.talk)


@pytest.mark.parametrize("flags", [["--adapt", "50", "--seed", "4"], ["--seed", "4", "--adapt=60", "--adapt=50"]])
def test_adaptation_comes_before_generation(recorders, tmp_path, flags):
    _, _, adapt, talk = recorded(recorders, tmp_path, "a.wav", "my clip.b.mp4", "out", *flags)
    options = parse_options(AdaptOptions, "", adapt)
    assert (options.video_path, options.steps, options.seed) == (Path("my clip.b.mp4"), 50, 4)
    assert parse_options(TalkOptions, "", talk).unet_path == Path("out/adapted/my clip.b/unet") == options.unet_path


INTERRUPTED = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
code = 130
try:
    Path("started").touch()
    time.sleep(60)
except SystemExit as end:
    code = end.code
except KeyboardInterrupt:
    pass
time.sleep(1)
Path("cleaned up").touch()
sys.exit({code})
"""


@pytest.mark.parametrize("to_group", [False, True])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, "code"), (signal.SIGTERM, "code"), (signal.SIGINT, "0")])
def test_a_stage_in_a_process_of_its_own_cleans_up_before_the_end(recorders, tmp_path, number, code, to_group):
    (recorders / f"{STAGES[0]}.py").write_text(INTERRUPTED.format(code=code))
    script = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
    script += f"import sys; sys.path.insert(0, {str(recorders)!r})\nimport inference_pipeline\n"
    script += "from utils.core import cli; cli.run(inference_pipeline.main)"
    words = ("a.wav", "b.mp4", "out", "--separate_processes")
    command = [sys.executable, "-c", script, *words]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True) as process:
        wait_for(tmp_path / "started")
        (os.killpg if to_group else os.kill)(process.pid, number)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + number, b"")
    assert (tmp_path / "cleaned up").exists()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_stage_that_was_killed_has_the_shell_s_exit_code(recorders, tmp_path):
    (recorders / f"{STAGES[0]}.py").write_text("import os; os.kill(os.getpid(), 9)")
    script = recorders / "scripts" / "inference_pipeline.sh"
    assert run_bash(script, "a.wav", "b.mp4", "out", "--separate_processes", cwd=tmp_path).returncode == 128 + 9


def test_flags_may_be_abbreviated_and_stand_before_the_paths(recorders, tmp_path):
    words = recorded(recorders, tmp_path, "--temp=0", "a.wav", "--batch", "4", "b.mp4", "out", "--deb")
    motion, _, talk = (parse_options(kind, "", given) for kind, given in zip(KINDS, words, strict=True))
    assert (motion.temperature, talk.batch_size, talk.debug) == (0, 4, True)


def test_an_adaptation_of_no_steps_is_refused_before_any_work(tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        inference_pipeline.main(["a.wav", "b.mp4", str(tmp_path / "out"), "--adapt", "0"])
    assert (error.value.code, (tmp_path / "out").exists()) == (2, False)
    assert capsys.readouterr().err.startswith("error: argument --adapt: expected at least 1, found 0")


@pytest.mark.parametrize("failing", range(len(STAGES)))
def test_it_stops_with_the_code_of_the_stage_that_failed(recorders, tmp_path, failing):
    (recorders / f"{STAGES[failing]}.py").write_text(STUB.format(code=2 + failing))
    script = recorders / "scripts" / "inference_pipeline.sh"
    result = run_bash(script, "a.wav", "b.mp4", "out", "--separate_processes", cwd=tmp_path)
    assert (result.returncode, len(result.stdout.splitlines())) == (2 + failing, failing + 1)


def test_clean_leaves_other_speeches_and_waits_for_the_last_stage(recorders, tmp_path):
    script = recorders / "scripts" / "inference_pipeline.sh"
    words = ("a.wav", "b.mp4", "out", "--clean", "--separate_processes")
    motions = [tmp_path / "out" / "a2m" / name for name in ("a.npy", "b.npy")]
    motions[0].parent.mkdir(parents=True)
    for motion in motions:
        motion.touch()
    (recorders / f"{STAGES[2]}.py").write_text(STUB.format(code=1))
    assert run_bash(script, *words, cwd=tmp_path).returncode == 1
    assert motions[0].exists()
    (recorders / f"{STAGES[2]}.py").write_text(STUB.format(code=0))
    assert run_bash(script, *words, cwd=tmp_path).returncode == 0
    assert [motion.exists() for motion in motions] == [False, True]
    motions[1].rename(motions[0])
    assert run_bash(script, *words, cwd=tmp_path).returncode == 0
    assert not motions[0].parent.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: AUDIO, VIDEO, RESULT_DIR"),
        (["a.wav", "b.mp4"], "the following arguments are required: RESULT_DIR"),
        (["a", "b", "c", "--seed"], "argument --seed: expected one argument"),
        (["a", "b", "c", "--seed", "x"], "argument --seed: expected a whole number, found 'x'"),
        (["a", "b", "c", "--sed", "3"], "unknown flag '--sed'; did you mean --seed?"),
        (["a", "b", "c", "--batchsize=4"], "unknown flag '--batchsize=4'; did you mean --batch_size?"),
        (["a", "b", "c", "d"], "unexpected argument 'd'"),
        (["a", "b", "c", "--reference", "none"], "argument --reference: invalid choice: 'none'"),
        (["a", "b", "c", "--adapt", "0"], "argument --adapt: expected at least 1, found 0"),
        (["a", "b", "c", "--temperature=-1"], "--temperature: expected a number at least 0, found -1.0"),
        (["a", "b", "c", "--vae", "tiny"], "tiny VAE without weights"),
    ],
)
def test_wrong_words_end_in_one_line_before_anything_is_made(tmp_path, words, message):
    result = run_bash(SHELL_SCRIPT, *words, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith(f"error: {message}")
    assert not any(tmp_path.iterdir())


def test_help_lists_every_flag_by_stage_and_loads_nothing_heavy():
    code = "import sys, inference_pipeline\ntry: inference_pipeline.main(['--help'])\n"
    code += "finally: assert not {'torch', 'numpy', 'cv2'} & set(sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert run_bash(SHELL_SCRIPT, "--help").stdout == result.stdout
    places = [
        result.stdout.index(title) for title in ("pipeline:", "several stages:", "stage 1:", "stage 2:", "stage 3:")
    ]
    assert places == sorted(places)
    flags = ("--adapt", "--list-speakers", "--seed", "--mouth_amp", "--speaker", "--fps", "--reference", "--clean")
    assert all(f"\n  {flag}" in result.stdout for flag in flags)
    assert "--infer_video_path" not in result.stdout  # set by the pipeline


def test_one_process_and_several_make_the_same_files(tmp_path, capsys):
    world = fill_world(tmp_path / "world")
    flags = small_networks(world) | {"gpu_id": -1}
    words = [str(world / talking_clip.SPEECH_NAME), str(world / talking_clip.CLIP_NAME)]
    values = [f"--{name}={value}" for name, value in flags.items()]
    inference_pipeline.main([*words, str(tmp_path / "one"), *values])
    result = run_bash(SHELL_SCRIPT, *words, str(tmp_path / "several"), *values, "--separate_processes")
    assert result.returncode == 0, result.stderr
    assert contents(tmp_path / "one") == contents(tmp_path / "several")
    capsys.readouterr()
    inference_pipeline.main([*words, str(tmp_path / "one"), *values])
    assert capsys.readouterr().out.count("is up to date") == 2


def test_the_former_flag_says_that_it_is_the_default(tmp_path, capsys):
    with pytest.raises(BadInput, match="nowhere"):
        inference_pipeline.main([str(tmp_path / "nowhere.wav"), "b.mp4", str(tmp_path / "out"), "--one_process"])
    assert capsys.readouterr().out == "note: --one-process has no effect: it is the default\n"


def test_listing_speakers_makes_nothing_else(tmp_path, capsys):
    clip = media.write_clip(tmp_path / "b.mp4", people_scene.two_people(5, people_scene.at(30), people_scene.at(360)))
    inference_pipeline.main(["a.wav", str(clip), str(tmp_path / "out"), "--list-speakers", "--speaker", "left"])
    assert "speakers.png: " in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").rglob("*.*")] == ["speakers.png"]
