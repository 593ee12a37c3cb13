"""The trainer on a small invented world: it learns, resumes exactly and exports what stage 1 loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import save_file

import train_audio2motion
from models.audio2motion import build_audio2motion, load_audio2motion
from models.audio_features import SpeechFeatures, mfcc_features, speech_features
from models.hubert import HubertEncoder
from models.motion_training import (
    clip_features,
    collate,
    opening_direction,
    opening_matches,
    window_features,
    with_hubert,
)
from tests.hubert_folder import WIDTH, write_hubert_folder
from utils.config import load_config
from utils.errors import BadInput
from utils.motion_dataset import AugmentationConfig, MotionClip, MotionDataConfig, cut_window, load_motion_clips

ROOT = Path(__file__).resolve().parents[1]
N_FRAMES = 120
SMALL = {"hidden": 16, "latent": 4, "n_encoder_layers": 1, "n_decoder_layers": 2, "flow_hidden": 8, "n_flow_layers": 1}
EVERYTHING = {
    "gain_db": 6,
    "noise_probability": 0.5,
    "speed": 0.1,
    "channel": 0.1,
    "time_masks": 1,
    "mirror_probability": 0.5,
}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Four clips whose first expression coefficient opens the mouth as loudly as the sound is; a face model."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c", "unheard"):
        loudness = np.clip(np.convolve(rng.normal(size=N_FRAMES), np.ones(5), mode="same"), 0, None) / 5
        coeffs = np.zeros((N_FRAMES, 257), np.float32)
        coeffs[:, 80] = loudness
        wave = rng.normal(0, 3000, N_FRAMES * 640) * loudness.repeat(640)
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        np.save(folder / "coeffs.npy", coeffs)
        np.save(folder / "valid.npy", np.ones(N_FRAMES, bool))
        np.save(folder / "audio.npy", wave.clip(-32768, 32767).astype(np.int16))
    save_face_model(tmp_path / "face_model.safetensors")
    return tmp_path


def save_face_model(path: Path) -> None:
    rng = np.random.default_rng(0)
    expression = rng.normal(0, 0.01, (1404, 64)).astype(np.float32)
    expression[14 * 3 + 1, 0] = -0.3  # the lower lip goes down with the first coefficient
    arrays = {
        "meanshape": rng.normal(size=1404).astype(np.float32),
        "idBase": np.zeros((1404, 80), np.float32),
        "exBase": expression,
        "tri": np.array([[0, 1, 2]], np.int32),
        "landmark_index": np.arange(468, dtype=np.int32),
        "alignment_points": rng.normal(size=(5, 3)).astype(np.float32),
        "mirror_exp": np.eye(64, dtype=np.float32),
    }
    save_file(arrays, path)


def write_config(world: Path, output: str = "out", **changes: object) -> Path:
    config = {
        "data_dir": str(world / "data"),
        "face_model": str(world / "face_model.safetensors"),
        "output_dir": str(world / output),
        "max_steps": 4,
        "report_interval": 2,
        "validation_interval": 4,
        "checkpoint_interval": 2,
        "network": {"audio_type": "mfcc", "use_pitch": False, "cond_channels": 16, "sizes": SMALL},
        "data": {"validation_clips": ["unheard"], "window_frames": 32, "batch_size": 4, "center_expression": True},
        "augmentation": EVERYTHING,
        "optimizer": {"warmup_steps": 2},
    }
    path = world / f"{output}.yaml"
    path.write_text(yaml.safe_dump(config | changes))
    return path


def train(config: Path, *arguments: str) -> None:
    train_audio2motion.main(["--config", str(config), "--gpu_id", "-1", *arguments])


def last_weights(world: Path, output: str = "out") -> dict[str, torch.Tensor]:
    return torch.load(world / output / "last.pt", weights_only=True)["network"]


def test_exported_network_is_loaded_by_stage_1(world: Path, capsys) -> None:
    train(write_config(world), "--export", str(world / "pack"))
    output = capsys.readouterr().out
    assert "linear baseline  unheard" in output
    assert "step 4 validation  unheard" in output
    assert {path.name for path in (world / "pack").iterdir()} == {"config.yaml", "model_ckpt_steps_4.safetensors"}
    network = load_audio2motion(world / "pack")
    assert network.config.audio_type == "mfcc"
    trained = torch.load(world / "out" / "best.pt", weights_only=True)["network"]
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, trained[key], rtol=1e-3, atol=1e-3)


def test_it_learns_to_open_the_mouth(world: Path) -> None:
    """Unheard loudness opens the mouth after a few steps of the full objective."""
    loss = {"prior_expression": 0.5, "prior_landmarks": 0.5}
    quick = {"learning_rate": 0.005, "warmup_steps": 10}
    train(write_config(world, max_steps=150, validation_interval=150, loss=loss, optimizer=quick, augmentation={}))
    assert torch.load(world / "out" / "best.pt", weights_only=True)["score"] > 0.8


def test_config_values_may_stand_anywhere_on_the_command_line() -> None:
    options = train_audio2motion.parse_arguments(["max_steps=3", "--gpu_id", "-1", "seed=1"])
    assert options.overrides == ["max_steps=3", "seed=1"]


@pytest.mark.parametrize("variant", [{}, {"use_pitch": True, "use_mouth_amp_embed": True}])
def test_resuming_changes_nothing(world: Path, variant: dict[str, bool]) -> None:
    network = {"audio_type": "mfcc", "use_pitch": False, "cond_channels": 16, "sizes": SMALL} | variant
    train(write_config(world, "whole", network=network))
    parts = write_config(world, "parts", network=network)
    train(parts, "max_steps=2")
    train(parts)
    whole, resumed = last_weights(world, "whole"), last_weights(world, "parts")
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, rtol=0, atol=0)


def test_another_seed_gives_another_network(world: Path) -> None:
    train(write_config(world, "one"))
    train(write_config(world, "two"), "seed=1")
    key = "vae.decoder.out_proj.weight"
    assert not torch.equal(last_weights(world, "one")[key], last_weights(world, "two")[key])


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


def test_export_gain_amplifies_the_motion_about_the_mean(world: Path) -> None:
    train(write_config(world), "--export", str(world / "plain"))
    train(write_config(world), "--export", str(world / "louder"), "export_gain=2.0")
    quiet, loud = (load_audio2motion(world / name) for name in ("plain", "louder"))
    features = mfcc_features(np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32))
    mean = np.concatenate([np.load(world / "data" / name / "coeffs.npy")[:, 80:144] for name in "abc"]).mean(0)
    speech = SpeechFeatures(features, np.zeros(len(features), np.float32))
    first, second = (network.predict(speech, temperature=0.0) for network in (quiet, loud))
    np.testing.assert_allclose(second - mean, 2.0 * (first - mean), atol=5e-3)  # the files are half-precision


def test_another_network_in_the_output_folder_is_refused(world: Path) -> None:
    config = write_config(world)
    train(config, "max_steps=2")
    with pytest.raises(BadInput, match="checkpoint of another network"):
        train(config, "network.sizes.hidden=8")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("network.audio_type=hubert", "hubert_dir is not set"),
        ("network.audio_type=wav2vec", "unknown network.audio_type: expected mfcc or hubert, found wav2vec"),
        ("data.window_frames=30", "window_frames"),
        ("data.validation_clips=[nobody]", "validation clip is not there"),
        ("loss.sharpness=1", "unknown config key"),
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
    config = load_config(train_audio2motion.TrainConfig, path)
    written = yaml.safe_load(path.read_text())
    assert train_audio2motion.to_dict(config).keys() == written.keys()
    for group in ("network", "data", "augmentation", "loss", "optimizer"):
        assert train_audio2motion.to_dict(getattr(config, group)).keys() == written[group].keys()


def test_shipped_full_size_config_is_the_reference() -> None:
    config = load_config(train_audio2motion.TrainConfig, ROOT / "config" / "audio2motion.yaml")
    paths = (config.data_dir, config.face_model, config.output_dir, config.hubert_dir)
    assert config == train_audio2motion.TrainConfig(*paths)
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


HEARD = {"audio_type": "hubert", "use_pitch": True, "cond_channels": 16, "sizes": SMALL}
QUIET = EVERYTHING | {"noise_probability": 0}


def test_training_on_hubert(world: Path) -> None:
    """States are computed once per clip; the trained network is one that stage 1 loads, for HuBERT of that width."""
    hubert = write_hubert_folder(world / "hubert")
    config = write_config(world, network=HEARD, augmentation=QUIET, hubert_dir=str(hubert))
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


def test_other_hubert_weights_are_heard_anew(world: Path) -> None:
    first, second = (write_hubert_folder(world / f"hubert{seed}", seed) for seed in (0, 1))
    for number, hubert in enumerate((first, second)):
        train(
            write_config(world, f"out{number}", network=HEARD, augmentation={}, hubert_dir=str(hubert)), "max_steps=1"
        )
    assert len(list((world / "data" / "a").glob("hubert-*.npy"))) == 2


def test_windows_of_states_are_those_of_the_whole_clip(world: Path) -> None:
    hubert = write_hubert_folder(world / "hubert")
    clips, _ = load_motion_clips(world / "data", MotionDataConfig())
    (clip, *_) = with_hubert(clips, world / "data", hubert, torch.device("cpu"))
    whole = speech_features(clip.wave, "hubert", hubert=HubertEncoder.load(hubert))
    network = load_config(train_audio2motion.TrainConfig, write_config(world, network=HEARD)).network
    features = clip_features(clip, network)
    np.testing.assert_allclose(features.audio, whole.audio, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(features.f0, whole.f0)
    window = window_features(cut_window(clip, start=20, n_frames=40))
    assert window.dtype == np.float32
    np.testing.assert_array_equal(window, features.audio[40:120])
    late = window_features(cut_window(clip, start=110, n_frames=20))
    np.testing.assert_array_equal(late[:19], features.audio[220:239])
    assert (late[19:] == 0).all()


def test_a_perfect_mouth_correlates_perfectly(world: Path, monkeypatch) -> None:
    """A network that answers the truth, two frames early."""
    _, (clip,) = load_motion_clips(world / "data", MotionDataConfig(validation_clips=("unheard",)))
    network = build_audio2motion(load_config(train_audio2motion.TrainConfig, write_config(world)).network)
    monkeypatch.setattr(type(network), "predict", lambda *_, **__: np.roll(clip.expression, -2, axis=0))
    match = opening_matches(network, [clip], opening_direction(face_expression_basis(world)))["unheard"]
    assert match.lag == 2
    assert match.r > 0.98


def face_expression_basis(world: Path) -> np.ndarray:
    from models.face_model import FaceModel

    return FaceModel.load(world / "face_model.safetensors").landmark_bases()[2].numpy()


def test_clips_without_sound_are_left_out(world: Path) -> None:
    (world / "data" / "a" / "audio.npy").unlink()
    clips, _ = load_motion_clips(world / "data", MotionDataConfig())
    assert [clip.name for clip in clips] == ["b", "c", "unheard"]
    assert all(isinstance(clip, MotionClip) for clip in clips)
