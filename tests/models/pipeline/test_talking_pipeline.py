"""The class that programs call: README's example, progress, cancellation, and the commands' errors as exceptions."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from models.pipeline import talking_pipeline
from models.pipeline.pipeline_options import PipelineOptions
from models.pipeline.talking_pipeline import TalkingFacePipeline
from tests.helpers import media, talking_clip
from tests.helpers.stage_world import ROOT, contents, fill_world, small_networks
from utils.core.errors import BadInput, Cancelled
from utils.files.work_folder import parts_folder
from utils.media.audio import load_waveform
from utils.media.video import read_frames
from utils.people.speaker import Speaker

README_EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return fill_world(tmp_path_factory.mktemp("world"))


def call(world: Path, out: Path, **more: object) -> object:
    """The pipeline on small inputs."""
    flags = small_networks(world) | {"batch_size": 4}
    pipeline = TalkingFacePipeline.from_pretrained(gpu_id=-1)
    clip, speech = world / talking_clip.CLIP_NAME, world / talking_clip.SPEECH_NAME
    return pipeline(audio=str(speech), video=clip, out=out, **(flags | more))


def test_readme_s_example_runs(tmp_path, monkeypatch, capsys):
    (example,) = README_EXAMPLE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    (tmp_path / "demo").mkdir()
    shutil.copy(ROOT / "demo" / "portrait.mp4", tmp_path / "demo")
    media.write_wav(tmp_path / "demo" / "speech.wav", load_waveform(ROOT / "demo" / "speech.wav")[:12_000])
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    path = Path("results/python/talk/portrait#speech.mp4")
    assert capsys.readouterr().out == f"{path} 19\n"
    assert len(list(read_frames(path))) == 19


def test_progress_counts_every_step(world, tmp_path):
    calls: list[tuple[str, int, int | None]] = []
    result = call(world, tmp_path / "out", progress=lambda *call: calls.append(call))
    ends = {step: (n_done, total) for step, n_done, total in calls}
    assert list(ends) == ["tracking", "rendering depth", "generating faces"]
    assert ends["rendering depth"] == (20, 20)
    assert ends["generating faces"] == (result.n_frames, result.n_frames) == (19, 19)
    assert (result.path.is_file(), result.n_untouched) == (True, 10)


@pytest.mark.parametrize("step", ["tracking", "rendering depth", "generating faces"])
def test_a_cancelled_call_is_resumed_by_the_same_call(world, tmp_path, monkeypatch, step):
    monkeypatch.setattr("utils.media.video_parts.PART_FRAMES", 4)
    monkeypatch.setattr("models.editing.expression_edit.PART_FRAMES", 4)
    whole, seen = call(world, tmp_path / "whole"), []
    with pytest.raises(Cancelled):
        call(
            world,
            tmp_path / "out",
            progress=lambda *call: seen.append(call),
            is_cancelled=lambda: sum(call[0] == step for call in seen) >= 10,
        )
    out = tmp_path / "out" / "talk" / whole.path.name
    assert not out.exists()
    if step == "generating faces":
        assert any(path.suffix == ".mp4" for path in parts_folder(out).iterdir())
    call(world, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_errors_are_those_of_the_commands(world, tmp_path):
    with pytest.raises(BadInput, match=r"--temperature: expected a number at least 0, found -1"):
        call(world, tmp_path / "out", temperature=-1)
    with pytest.raises(BadInput, match=r"folder of weights incomplete .*nowhere"):
        TalkingFacePipeline.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="--speaker: expected auto, largest") as error:
        call(world, tmp_path / "out", speaker="middle")
    assert "'middle'" in str(error.value)
    with pytest.raises(TypeError, match="unknown flag 'sed'"):
        call(world, tmp_path / "out", sed=3)
    assert not (tmp_path / "out").exists()


def test_flags_are_those_of_the_command_line_in_any_type(world, monkeypatch):
    given: list[PipelineOptions] = []
    monkeypatch.setattr(talking_pipeline, "run_pipeline", lambda options, _: given.append(options))
    flags = {"speaker": 1, "seed": np.int64(3), "fps": 25, "faithful": "False", "unet_model_path": str(world / "unet")}
    call(world, Path("out"), weights_dir="weights", adapt=2, **flags)
    (options,) = given
    assert (options.edit.speaker, options.edit.fps) == (Speaker("", index=1), "25")
    assert (options.motion.seed, options.edit.faithful) == (3, False)
    assert options.adapt is not None and options.adapt.steps == 2
    assert options.motion.weights_dir == options.adapt.weights_dir == options.talk.weights_dir == Path("weights")
    assert options.talk.unet_path == options.adapt.unet_path
