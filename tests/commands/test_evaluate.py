"""evaluate.py end to end on synthetic clips, with the real tracker and the mini pack's face model."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

import evaluate
from models.evaluation.clip_comparison import BadFrame
from models.evaluation.clip_figures import FrameCurves, PredictedCurves
from models.evaluation.inception import InceptionV3
from models.evaluation.lpips import Lpips
from models.evaluation.pair_results import PairResult, has_other_speech
from models.lipsync.av_agreement import AvModel
from models.lipsync.syncnet import SyncNet
from tests.helpers.filled_weights import save_filled
from tests.helpers.media import blank_frames, face_frames, speech_like, write_clip
from utils.core.errors import BadInput
from utils.metrics.clip_pairs import ClipPair
from utils.weights import wheels
from utils.weights.checkpoints import read_metadata
from utils.weights.packs import agreement_model, log_mel_agreement_model

ROOT = Path(__file__).resolve().parents[2]
N_FRAMES = 60
PICTURES = ("clips.png", "density.png", "worst_frames.png")


def darker_below(frame: np.ndarray) -> np.ndarray:
    changed = frame.copy()
    changed[110:] = changed[110:] // 4 * 3
    return changed


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two references; one generated clip equals its reference, one is darker below and shorter, others are unusable."""
    root = tmp_path_factory.mktemp("clips")
    made, real = root / "made", root / "real"
    made.mkdir()
    real.mkdir()
    sound = speech_like(N_FRAMES / 25, 48_000)
    faces = face_frames(N_FRAMES)
    for name in ("one", "two"):
        write_clip(real / f"{name}.mp4", faces, sound=sound)
    shutil.copy(real / "one.mp4", made / "one.mp4")
    write_clip(made / "two#speech.mp4", [darker_below(frame) for frame in faces[:55]], sound=sound)
    write_clip(real / "faceless.mp4", blank_frames(12))
    write_clip(made / "faceless.mp4", blank_frames(12))
    write_clip(made / "lonely.mp4", blank_frames(3))
    (made / "damaged.mp4").write_bytes(b"not a video")
    (real / "damaged.mp4").write_bytes(b"not a video")
    return made, real


@pytest.fixture(scope="module")
def report(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "report"
    evaluate.main(flags(folders, out))
    return out, json.loads((out / "report.json").read_text())


def flags(folders, out, *more: object) -> list[str]:
    made, real = folders
    return [str(word) for word in ("--generated", made, "--reference", real, "--out", out, "--gpu_id", -1, *more)]


def test_everything_is_written(report):
    out, content = report
    assert sorted(path.name for path in out.iterdir()) == sorted(["report.json", "report.md", *PICTURES])
    assert [clip["name"] for clip in content["clips"]] == ["one", "two#speech"]
    assert all((out / name).stat().st_size > 5000 for name in PICTURES)


def test_figures_tell_the_good_clip_from_the_bad_one(report):
    _, content = report
    good, bad = (clip["figures"] for clip in content["clips"])
    assert good["psnr"] == 60
    assert (good["lmd"], good["upper_drift"]) == (0, 0)
    assert bad["psnr"] < 30
    assert bad["ssim"] < good["ssim"] == pytest.approx(1)
    assert bad["upper_drift"] < 2 < 10 * bad["upper_codec"]
    assert bad["upper_excess"] == pytest.approx(bad["upper_drift"] - bad["upper_codec"], abs=0.5)
    assert {"jitter_face", "jitter_face_ref", "opening_r"} <= set(bad)
    assert good["av_r"] == good["av_r_real"]
    assert good["av_log_mel_r"] == good["av_log_mel_r_real"]
    assert good["detail"] == good["closure_precision"] == good["closure_recall"] == 1
    assert good["width_r"] == pytest.approx(1)
    assert {"lpips", "fid", "lse_c"}.isdisjoint(content["summary"])


def test_what_went_wrong_is_named(report):
    _, content = report
    assert content["clips"][0]["notes"] == []
    assert "has 55 frames, reference 60; the first 55 are compared" in content["clips"][1]["notes"][0]
    assert "no face" in content["skipped"]["faceless"]
    assert "cannot be opened" in content["skipped"]["damaged"]
    assert content["without_partner"] == {"generated": ["lonely.mp4"], "reference": []}


def test_other_words_are_named(report):
    """Pairs with the same sound have no note; a pair whose sound predicts another opening has one."""
    _, content = report
    assert not any("different words" in note for clip in content["clips"] for note in clip["notes"])
    rng = np.random.default_rng(0)
    own, other = rng.normal(size=(2, 90, 2))
    assert has_other_speech(PredictedCurves(own, other))
    assert not has_other_speech(PredictedCurves(own[:80], 2 * own))
    assert not has_other_speech(PredictedCurves(own, None))


def test_settings_say_how(report):
    _, content = report
    settings = content["settings"]
    assert "MediaPipe" in settings["implementation"]
    assert "Whisper-tiny encoder in windows of ±3 frames" in settings["audio-visual agreement"]
    assert "states of the same encoder" in settings["what agreement depends on"]
    assert "log-mel windows of ±8 frames" in settings["agreement on log-mel bands"]
    assert len(settings["weights"]["av"].split()[-1]) == 64


def test_networks_are_used_where_weights_are_given(folders, tmp_path, capsys):
    _, real = folders
    weights = {
        "--lpips_weights": save_filled(tmp_path / "lpips.pth", Lpips()),
        "--inception_weights": save_filled(tmp_path / "inception.pth", InceptionV3()),
        "--syncnet_weights": save_filled(tmp_path / "syncnet.model", SyncNet()),
    }
    clip = tmp_path / "short.mp4"
    write_clip(clip, [darker_below(frame) for frame in face_frames(8)], sound=speech_like(0.4, 48_000))
    words = [word for pair in weights.items() for word in pair]
    metrics = ("--metrics", "lse", "fid", "lpips")
    evaluate.main(flags((clip, real / "one.mp4"), tmp_path / "out", *words, *metrics))
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    (clip_result,) = content["clips"]
    assert set(clip_result["figures"]) == {"lpips", "lse_c", "lse_d", "lse_c_ref", "lse_d_ref", "lse_offset"}
    assert clip_result["figures"]["lpips"] > 0
    assert clip_result["figures"]["lse_d"] > 0
    assert content["summary"]["fid"]["mean"] > 0
    assert "biased upwards below 2048" in content["settings"]["FID"]
    assert set(content["settings"]["weights"]) == {"lpips", "fid", "lse"}
    assert "audio-visual agreement" not in content["settings"]
    assert "fid" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--metrics", "psnr", "beauty"], "unknown metric: expected some of psnr, .*, found beauty"),
        (["--metrics", "fid"], "fid needs weights: expected --inception_weights FILE"),
        (["--metrics", "av", "--av_model", __file__], "unreadable"),
        (["--metrics", "av", "--av_model", log_mel_agreement_model()], "not a model of audio-visual agreement"),
    ],
)
def test_wrong_options_are_said(folders, tmp_path, more, words):
    with pytest.raises(BadInput, match=words):
        evaluate.main(flags(folders, tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "words"), [("damaged", "cannot be opened"), ("faceless", "no face in the reference")])
def test_a_single_pair_that_cannot_be_measured_is_an_error(folders, tmp_path, name, words):
    made, real = folders
    with pytest.raises(BadInput, match=words):
        evaluate.main(flags((made / f"{name}.mp4", real / f"{name}.mp4"), tmp_path / "out", "--metrics", "psnr"))


def test_only_pictures_that_are_shown_are_kept(tmp_path):
    """The worst frames are those of all clips, although few are held in memory."""
    picture, rng = np.zeros((1, 1, 3), np.uint8), np.random.default_rng(0)
    whole, kept = {}, {}
    for number in range(12):
        pair = ClipPair(tmp_path / f"{number}.mp4", tmp_path)
        worst = [BadFrame(index, psnr, picture, picture) for index, psnr in enumerate(sorted(rng.uniform(20, 40, 10)))]
        whole[pair] = kept[pair] = PairResult(0, {}, [], FrameCurves(*[np.zeros(0)] * 6), {}, {}, worst)
        evaluate.keep_worst(kept)
        assert evaluate.worst_of(kept) == evaluate.worst_of(whole)
        assert sum(len(result.worst) for result in kept.values()) <= 3 * evaluate.MAX_WORST
    assert sum(len(result.worst) for result in kept.values()) == evaluate.MAX_WORST


def test_the_shell_script_passes_everything_on(tmp_path):
    script = ROOT / "scripts" / "evaluate.sh"
    usage = subprocess.run(["bash", str(script), "a"], capture_output=True, text=True, check=False)
    assert (usage.returncode, usage.stderr.startswith("usage: ")) == (2, True)
    command = ["bash", str(script), str(tmp_path / "no clips (1)"), str(tmp_path), "--metrics", "psnr"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: clips missing")
    assert "no clips (1)" in result.stderr


def test_a_missing_speech_encoder_is_one_line(folders, tmp_path, monkeypatch):
    def missing(name: str) -> object:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(wheels, "distribution", missing)
    with pytest.raises(BadInput, match=r"speech networks missing: .*; install it with: pip install"):
        evaluate.main(flags(folders, tmp_path / "out", "--metrics", "psnr", "av"))
    made, real = folders
    evaluate.main(flags((made / "one.mp4", real / "one.mp4"), tmp_path / "out", "--metrics", "psnr", "closures"))


def test_the_shipped_model_left_everyone_out():
    path = agreement_model()
    assert path.stat().st_size < 200_000
    model = AvModel.load(path)
    assert set(model.clips.values()) | {""} == set(model.weights)
    assert model.speaker_of("menendez") == "menendez"


def test_the_shipped_model_reports_its_figures():
    figures = json.loads(read_metadata(agreement_model())["left_out"]).values()
    assert len(figures) > 30
    assert 0.6 < np.mean([row["r"] for row in figures]) < 0.8
    assert np.mean([row["r_wrong"] for row in figures]) < 0.2
    assert abs(np.mean([row["r_wrong_sync"] for row in figures])) < 0.1
    assert np.mean([row["above"] == 1 for row in figures]) > 0.9
