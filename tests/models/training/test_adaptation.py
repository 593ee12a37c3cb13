"""Fine-tuning of the mini pack's generator on one clip: best weights, resumption, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import adapt
from models.editing.clip_preparation import PreparationJob, prepare_clip
from models.generation.generator import Generator
from models.generation.refiner import Refiner
from models.training import adaptation
from models.training.adaptation import Adaptation, AdaptationSettings, split_valid
from tests.helpers import media
from utils.core.errors import BadInput
from utils.files.work_folder import sole_run
from utils.media.video import VideoWriter
from utils.weights import packs

SIZE, N_FRAMES = 200, 24
FAST = AdaptationSettings(steps=4, batch_size=2, held_back=0.3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "some one.mp4"
    with VideoWriter(path) as writer:
        for frame in media.face_frames(N_FRAMES, SIZE):
            writer.write(frame)
    return path


@pytest.fixture(scope="module")
def clip_dir(clip, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    prepare_clip(PreparationJob(packs.mini_pack(), folder, keep_silent=True), clip)
    return folder / clip.stem


@pytest.fixture(autouse=True)
def look_often(monkeypatch) -> None:
    monkeypatch.setattr(adaptation, "CHECK_INTERVAL", 2)
    monkeypatch.setattr(adaptation, "N_CHECKED", 4)


def adapted(clip_dir: Path, work_dir: Path, settings: AdaptationSettings = FAST, report=lambda *_: None):
    work_dir.mkdir(exist_ok=True)
    task = Adaptation(packs.mini_pack(), clip_dir, work_dir, settings, CPU)
    return task.run(report), task.best


def test_it_learns_and_keeps_the_best(clip_dir, tmp_path):
    seen = {}
    result, best = adapted(clip_dir, tmp_path, report=seen.__setitem__)
    assert sorted(seen) == [0, 2, 4]
    assert result.psnr_before == seen[0]
    assert result.psnr_after == max(seen.values()) == seen[result.best_step]
    again, best_again = adapted(clip_dir, tmp_path / "again")
    assert again.psnr_after == result.psnr_after
    assert all(torch.equal(best[name], best_again[name]) for name in best)


def test_a_stopped_run_ends_with_the_same_weights(clip_dir, tmp_path):
    _, uninterrupted = adapted(clip_dir, tmp_path / "straight")

    def stop_at_4(step: int, _: float) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapted(clip_dir, tmp_path / "stopped", report=stop_at_4)
    _, continued = adapted(clip_dir, tmp_path / "stopped")
    assert all(torch.equal(uninterrupted[name], continued[name]) for name in uninterrupted)


def test_what_makes_it_worse_is_not_kept(clip_dir, tmp_path):
    harmful = AdaptationSettings(steps=2, batch_size=2, lr=0.5, held_back=0.3)
    seen = {}
    result, best = adapted(clip_dir, tmp_path, harmful, seen.__setitem__)
    assert seen[2] < seen[0]
    assert (result.best_step, result.psnr_after) == (0, seen[0])
    original = Generator.load(packs.mini_pack().unet).unet.state_dict()
    assert all(torch.equal(best[f"unet.{name}"], original[name]) for name in original)


def test_command_writes_a_generator_that_stage_3_takes(clip, tmp_path, capsys):
    arguments = ["--video_path", str(clip), "--result_dir", str(tmp_path / "adapted"), "--gpu_id", "-1"]
    arguments += ["--steps", "2", "--batch_size", "2", "--held_back", "0.3"]
    adapt.main(arguments)
    directory = tmp_path / "adapted" / clip.stem
    assert {path.name for path in directory.iterdir()} == {"unet", "refiner", "adaptation.json", "held_back.png"}
    record = json.loads((directory / "adaptation.json").read_text())
    assert record["psnr_after"] >= record["psnr_before"]
    pack, mini = packs.resolve_pack(unet=directory / "unet"), packs.mini_pack()
    assert pack.name == f"{mini.name} adapted to {clip.name}"
    assert (pack.image_size, pack.vae, pack.whisper) == (mini.image_size, mini.vae, mini.whisper)
    Generator.load(pack.unet)
    assert pack.refiner == directory / "refiner"
    Refiner.load(pack.refiner)
    capsys.readouterr()
    adapt.main(arguments)
    assert "already adapted" in capsys.readouterr().out
    adapt.main([*arguments, "--seed", "1"])
    assert json.loads((directory / "adaptation.json").read_text())["settings"]["seed"] == 1


def test_a_generator_of_another_origin_is_left_alone(clip, tmp_path):
    foreign = tmp_path / clip.stem / "unet" / "config.json"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    with pytest.raises(BadInput, match="generator of another origin"):
        adapt.main(["--video_path", str(clip), "--result_dir", str(tmp_path), "--gpu_id", "-1"])
    assert foreign.read_text() == "mine"


def test_one_run_at_a_time(clip, tmp_path):
    directory = tmp_path / clip.stem
    with sole_run(directory):
        others = directory / ".adapting-others"
        others.mkdir()
        with pytest.raises(BadInput, match="another run uses this folder"):
            adapt.main(["--video_path", str(clip), "--result_dir", str(tmp_path), "--gpu_id", "-1", "--steps", "1"])
        assert others.is_dir()


@pytest.mark.parametrize(
    ("frames", "reason"),
    [(lambda: media.numbered_frames(20), "no face"), (lambda: media.face_frames(10, SIZE), "clip too short")],
    ids=["no face", "short"],
)
def test_a_clip_of_no_use_leaves_nothing(tmp_path, frames, reason):
    clip = media.write_clip(tmp_path / "clip.mp4", list(frames()))
    with pytest.raises(BadInput, match=reason):
        adapt.main(["--video_path", str(clip), "--result_dir", str(tmp_path / "adapted"), "--gpu_id", "-1"])
    assert list(tmp_path.iterdir()) == [clip]


def test_the_end_is_held_back():
    valid = np.ones(40, bool)
    valid[5] = False
    first, last = split_valid(valid, 0.25)
    assert np.flatnonzero(last).tolist() == list(range(30, 40))
    assert np.array_equal(first | last, valid)
    assert not (first & last).any()
    assert split_valid(np.ones(40, bool), 0.01)[1].sum() == 7
    with pytest.raises(BadInput, match="clip too short to adapt to: expected 14 frames with a face, found 13"):
        split_valid(np.ones(13, bool), 0.1)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--held_back", "1.5"], "--held_back: expected a number above 0, below 1, found 1.5"),
        (["--lr", "0"], "--lr: expected a number above 0, below 1, found 0"),
        ([], "media file missing"),
    ],
)
def test_bad_arguments(tmp_path, flags, named):
    with pytest.raises(BadInput, match=named):
        adapt.main(["--video_path", str(tmp_path / "nowhere.mp4"), "--result_dir", str(tmp_path), *flags])


def test_an_unreadable_record_is_named(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / packs.ADAPTATION_RECORD).write_text("[]")
    with pytest.raises(BadInput, match="unreadable record of an adaptation"):
        packs.resolve_pack(unet=tmp_path / "unet")
