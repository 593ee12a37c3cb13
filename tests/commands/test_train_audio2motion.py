"""Training of audio2motion on synthetic clips: MFCC and HuBERT, export for stage 1, bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import train_audio2motion
from models.audio.audio_features import SpeechFeatures, mfcc_features, speech_features
from models.audio.hubert import HubertEncoder
from models.face3d.closed_mouth import LipGaps
from models.face3d.face_model import FaceModel
from models.motion.audio2motion_checkpoint import load_audio2motion
from models.training.motion_batches import clip_features, collate, window_features, with_hubert
from models.training.motion_training_config import MotionTrainingConfig
from tests.helpers.hubert_folder import WIDTH, write_hubert_folder
from tests.helpers.motion_world import CLIPS, EVERYTHING, SMALL, train, weights_of, write_config, write_world
from utils.core.config import load_config, to_dict
from utils.core.errors import BadInput
from utils.core.options import parse_options
from utils.data.motion_dataset import MotionClip, MotionDataConfig, load_motion_clips
from utils.data.motion_windows import AugmentationConfig, cut_window
from utils.training.learner import float32_accelerator

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return write_world(tmp_path)


def test_exported_network_is_loaded_by_stage_1(world: Path, capsys) -> None:
    train(write_config(world), "--export", str(world / "pack"))
    output = capsys.readouterr().out
    assert "linear baseline  unheard" in output
    assert "mouth opening  unheard" in output
    assert "samples/s  peak" in output
    assert {path.name for path in (world / "pack").iterdir()} == {"config.yaml", "model_ckpt_steps_4.safetensors"}
    network = load_audio2motion(world / "pack")
    assert network.config.audio_type == "mfcc"
    trained = torch.load(world / "out" / "best.pt", weights_only=True)["network"]
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, trained[key], rtol=1e-3, atol=1e-3)


def test_it_learns_to_open_the_mouth(world: Path) -> None:
    """After a few steps of the full objective, the mouth opens with the loudness of a held-out clip."""
    loss = {"prior_expression": 0.5, "prior_landmarks": 0.5}
    quick = {"learning_rate": 0.005, "warmup_steps": 10}
    train(write_config(world, max_steps=150, validation_interval=150, loss=loss, optimizer=quick, augmentation={}))
    assert torch.load(world / "out" / "best.pt", weights_only=True)["score"] > 0.8


def test_config_values_may_stand_anywhere_on_the_command_line() -> None:
    words = ["max_steps=3", "--gpu_id", "-1", "seed=1"]
    options = parse_options(train_audio2motion.TrainingOptions, "", words)
    assert options.overrides == ("max_steps=3", "seed=1")


def test_another_seed_gives_another_network(world: Path) -> None:
    train(write_config(world, "one"))
    train(write_config(world, "two"), "seed=1")
    key = "vae.decoder.out_proj.weight"
    assert not torch.equal(weights_of(world, "one")[key], weights_of(world, "two")[key])


def test_a_finished_training_only_exports(world: Path) -> None:
    config = write_config(world)
    train(config)
    before = (world / "out" / "last.pt").stat().st_mtime_ns
    train(config, "--export", str(world / "pack"))
    assert (world / "out" / "last.pt").stat().st_mtime_ns == before
    assert (world / "pack" / "config.yaml").is_file()
    (world / "pack" / "model_ckpt_steps_400000.ckpt").touch()
    with pytest.raises(BadInput, match="folder holds another checkpoint"):
        train(config, "--export", str(world / "pack"))


def test_export_gain_opens_the_lips_farther_about_the_mean(world: Path) -> None:
    """The opening doubles its distance from the mean; what is added is the motion that opens the clips' mouths."""
    train(write_config(world), "--export", str(world / "plain"))
    train(write_config(world), "--export", str(world / "louder"), "export_gain=2.0")
    quiet, loud = (load_audio2motion(world / name) for name in ("plain", "louder"))
    features = mfcc_features(np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32))
    mean = np.concatenate([np.load(world / "data" / name / "coeffs.npy")[:, 80:144] for name in "abc"]).mean(0)
    speech = SpeechFeatures(features, np.zeros(len(features), np.float32))
    first, second = (network.predict(speech, temperature=0.0) - mean for network in (quiet, loud))
    opening = LipGaps.of(FaceModel.load(world / "face_model.safetensors")).middle_basis
    np.testing.assert_allclose(second @ opening, 2.0 * first @ opening, atol=5e-3)  # the files are half-precision
    assert np.abs(first @ opening).max() > 0.02
    added = second - first
    np.testing.assert_allclose(added[:, 1:], 0, atol=5e-3)  # the clips move the first coefficient alone


PLAIN = {"audio_type": "mfcc", "use_pitch": False, "cond_channels": 16, "sizes": SMALL}
WHISPER = PLAIN | {"audio_type": "whisper", "audio_components": 8}
VARIED = {
    "count": 2,
    "pitch": 3,
    "formants": 0.1,
    "speed": 0.1,
    "equaliser_db": 4,
    "room_probability": 0.5,
    "noise_probability": 0.5,
    "gain_db": 6,
}


def test_training_on_copies(world: Path, capsys) -> None:
    """Copies are used for training only; the same seed gives the same weights."""
    for output in ("one", "two"):
        train(write_config(world, output, network=WHISPER, augmentation=QUIET, variants=VARIED))
    said = capsys.readouterr().out
    assert "3 clips and 6 copies with other voices and rooms of 3 speakers to train on, 1 of 1" in said
    key = "vae.decoder.out_proj.weight"
    assert torch.equal(weights_of(world, "one")[key], weights_of(world, "two")[key])
    train(write_config(world, "alone", network=WHISPER, augmentation=QUIET))
    assert not torch.equal(weights_of(world, "one")[key], weights_of(world, "alone")[key])


def write_groups(world: Path) -> Path:
    path = world / "groups.txt"
    path.write_text("".join(f"{name} Dutch\n" for name in CLIPS))
    return path


def test_training_on_whisper_states(world: Path, capsys) -> None:
    """States of clips, copies and cuts are kept and reused; the trained network is one that stage 1 loads."""
    config = write_config(
        world, network=WHISPER | {"audio_dropout": 0.2}, augmentation=QUIET, variants=VARIED | {"count": 1}
    )
    words = ["cuts.interval=1.5", f"data.groups={write_groups(world)}"]
    train(config, *words, "max_steps=2", "validation_interval=2", "--export", str(world / "pack"))
    said = capsys.readouterr().out
    assert "3 clips and 3 copies with other voices and rooms, " in said and " cuts of them, of 3 speakers" in said
    assert "recall\nunheard" in said
    loaded = load_audio2motion(world / "pack")
    assert (loaded.config.audio_type, loaded.audio_dim, loaded.config.audio_components) == ("whisper", 768, 8)
    kept = {path: path.stat().st_mtime_ns for path in (world / "out" / "states").glob("*.npy")}
    assert len(kept) == 7 + 6
    train(config, *words)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    wave = np.load(world / "data" / "a" / "audio.npy").astype(np.float32) / 32768
    motion = loaded.predict(speech_features(wave, "whisper", with_pitch=False), temperature=0.0)
    assert motion.shape[1] == 64 and np.isfinite(motion).all()


def test_training_a_regression_ensemble(world: Path, capsys) -> None:
    """Its errors fall, and what is exported opens its lips farther by the gain."""
    network = PLAIN | {"regression": {"members": 2, "hidden": 8}}
    unused = dict.fromkeys(("kl", "landmarks", "laplacian", "magnitude", "sync"), 0.0)
    loss = unused | {"expression": 0.05, "lips": 1.0, "lip_velocity": 1.0}
    config = write_config(world, network=network, augmentation=QUIET, loss=loss, export_gain=1.5)
    train(config, "--export", str(world / "pack"))
    assert "lip_velocity" in capsys.readouterr().out
    loaded = load_audio2motion(world / "pack")
    assert (loaded.config.regression.members, loaded.config.regression.hidden) == (2, 8)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("network.audio_type=hubert", "hubert_dir is not set"),
        ("network.audio_type=wav2vec", "unknown network.audio_type: expected mfcc or hubert or whisper"),
        ("network.audio_type=whisper", r"noise_probability cannot be used.*0 with whisper, found 0\.5"),
        ("variants.count=2", "variants cannot be used: expected network.audio_type whisper, found mfcc"),
        ("cuts.interval=1", "cuts cannot be used: expected network.audio_type whisper, found mfcc"),
        ("data.window_frames=30", "window_frames"),
        ("loss.lips=1", r"loss.lips cannot be used: expected 0 with a flow-VAE .*, found 1"),
        ("network.regression.members=2", "cannot be used: expected 0 with a regression ensemble"),
        ("data.validation_clips=[nobody]", "validation clip is not there"),
        ("loss.sharpness=1", "unknown config key"),
        ("loss.prior_sync=1", "prior_sync needs sync_expert"),
        ("sync_expert=nowhere.safetensors", "nowhere.safetensors"),
        ("face_model=nowhere.safetensors", "nowhere"),
    ],
)
def test_bad_input(world: Path, override: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        train(write_config(world), override)
    assert not (world / "out" / "last.pt").exists()


@pytest.mark.parametrize("name", ["audio2motion.yaml", "audio2motion_mini.yaml"])
def test_shipped_configs_are_complete(name: str) -> None:
    """Every key is written out."""
    path = ROOT / "config" / name
    config = load_config(MotionTrainingConfig, path)
    written = yaml.safe_load(path.read_text())
    assert to_dict(config).keys() == written.keys()
    for group in ("network", "data", "augmentation", "variants", "cuts", "loss", "optimizer", "sync"):
        assert to_dict(getattr(config, group)).keys() == written[group].keys()


def test_shipped_full_size_config_is_the_reference() -> None:
    config = load_config(MotionTrainingConfig, ROOT / "config" / "audio2motion.yaml")
    paths = (config.data_dir, config.face_model, config.output_dir, config.hubert_dir)
    assert config == MotionTrainingConfig(*paths)
    assert config.sync_expert is None
    assert config.network.audio_type == "hubert"


def test_window_features_are_those_of_the_whole_clip(world: Path) -> None:
    (clip, *_), _ = load_motion_clips(world / "data", MotionDataConfig())
    whole = mfcc_features(clip.wave)
    window = window_features(cut_window(clip, start=20, n_frames=40))
    assert window.shape == (80, 13)
    np.testing.assert_allclose(window, whole[40:120], rtol=0, atol=0.02)


def test_collated_shapes(world: Path) -> None:
    clips, _ = load_motion_clips(world / "data", MotionDataConfig())
    windows = [cut_window(clip, 0, 32) for clip in clips[:3]]
    batch = collate(windows, AugmentationConfig(), np.random.default_rng(0), torch.device("cpu"))
    assert batch.inputs.audio.shape == (3, 64, 13)
    assert batch.inputs.f0.shape == (3, 64)
    assert batch.inputs.blink.shape == (3, 64, 1)
    assert batch.inputs.mouth_amp.shape == (3, 1)
    assert batch.motion.shape == (3, 32, 64)
    assert batch.mask.shape == (3, 32)


HUBERT = {"audio_type": "hubert", "use_pitch": True, "cond_channels": 16, "sizes": SMALL}
QUIET = EVERYTHING | {"noise_probability": 0}


def test_training_on_hubert(world: Path) -> None:
    """States are computed once per clip; the trained network is one that stage 1 loads, for HuBERT of that width."""
    hubert = write_hubert_folder(world / "hubert")
    config = write_config(world, network=HUBERT, augmentation=QUIET, hubert_dir=str(hubert))
    train(config, "max_steps=2", "--export", str(world / "pack"))
    network = load_audio2motion(world / "pack")
    assert (network.config.audio_type, network.audio_dim) == ("hubert", WIDTH)

    kept = {path: path.stat().st_mtime_ns for path in (world / "data").glob("*/hubert-*.npy")}
    assert len(kept) == 4
    wave = np.load(world / "data" / "a" / "audio.npy").astype(np.float32) / 32768
    (states,) = (np.load(path) for path in kept if path.parent.name == "a")
    np.testing.assert_allclose(states, HubertEncoder.load(hubert).encode(wave), rtol=1e-3, atol=1e-3)
    train(config)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept

    with pytest.raises(BadInput, match=r"noise_probability cannot be used.*found 0\.5"):
        train(config, "augmentation.noise_probability=0.5")
    spoilt = next(iter(kept))
    np.save(spoilt, np.zeros((3, WIDTH), np.float16))
    with pytest.raises(BadInput, match=rf"array does not fit \({spoilt}\)"):
        train(config)


def test_other_hubert_weights_give_new_states(world: Path) -> None:
    first, second = (write_hubert_folder(world / f"hubert{seed}", seed) for seed in (0, 1))
    for number, hubert in enumerate((first, second)):
        train(
            write_config(world, f"out{number}", network=HUBERT, augmentation={}, hubert_dir=str(hubert)), "max_steps=1"
        )
    assert len(list((world / "data" / "a").glob("hubert-*.npy"))) == 2


def test_windows_of_states_are_those_of_the_whole_clip(world: Path) -> None:
    hubert = write_hubert_folder(world / "hubert")
    clips, _ = load_motion_clips(world / "data", MotionDataConfig())
    (clip, *_) = with_hubert(clips, world / "data", hubert, float32_accelerator(-1))
    whole = speech_features(clip.wave, "hubert", hubert=HubertEncoder.load(hubert))
    network = load_config(MotionTrainingConfig, write_config(world, network=HUBERT)).network
    features = clip_features(clip, network)
    np.testing.assert_allclose(features.audio, whole.audio, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(features.f0, whole.f0)
    window = window_features(cut_window(clip, start=20, n_frames=40))
    assert window.dtype == np.float32
    np.testing.assert_array_equal(window, features.audio[40:120])
    late = window_features(cut_window(clip, start=110, n_frames=20))
    np.testing.assert_array_equal(late[:19], features.audio[220:239])
    assert (late[19:] == 0).all()


def test_clips_without_sound_are_left_out(world: Path) -> None:
    (world / "data" / "a" / "audio.npy").unlink()
    clips, _ = load_motion_clips(world / "data", MotionDataConfig())
    assert [clip.name for clip in clips] == ["b", "c", "unheard"]
    assert all(isinstance(clip, MotionClip) for clip in clips)
